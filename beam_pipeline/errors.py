"""What stops the job before it reads an image."""

from __future__ import annotations


class SetupError(ValueError):
    """A wrong set-up: one line that says what, where and what to do. Exit code 2."""
