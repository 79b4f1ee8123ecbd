"""Messages that tell of new pictures, in place of looking for them (`--notifications`)."""
