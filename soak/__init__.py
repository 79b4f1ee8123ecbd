"""A stream under load and disturbance, and a recount of what it wrote: `make soak`."""
