"""Draws the bundled samples and trains their detector."""
