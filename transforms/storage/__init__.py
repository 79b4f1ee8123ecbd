"""Stores, the layout of the output, and archives."""
