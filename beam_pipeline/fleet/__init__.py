"""All cameras of an output: counts, chart, health, and undelivered alerts."""
