"""Measured speed and memory: `make bench`, or one part by `python -m benchmarks PART`."""
