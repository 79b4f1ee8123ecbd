"""Compares the alerts of an archive with the truth, and finds better scores."""
