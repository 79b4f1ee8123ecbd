"""Messages about new images, which replace listing (`--notifications`)."""
