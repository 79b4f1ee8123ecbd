"""Detectors: their files, labels and runtime."""
