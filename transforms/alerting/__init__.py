"""Alerts: what they say, where they go, and what became of them."""
