"""The ids of cameras."""

from __future__ import annotations

import re
import unicodedata

CAMERA_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_CAMERA_ID = re.compile(CAMERA_ID_PATTERN)
_MAX_CHARACTERS = 64


def is_camera_id(text: str) -> bool:
    """Returns whether a text is a valid id of a camera."""
    return _CAMERA_ID.fullmatch(text) is not None


def camera_id(name: str, channel: int | None = None) -> str | None:
    """Makes an id of the name that people gave a camera; None if nothing of it is left.

    What no id can contain becomes a dash, and letters lose their accents.

    Args:
        name: The name.
        channel: The channel of the device; the first one has the id of the device.
    """
    if not is_camera_id(name):
        plain = unicodedata.normalize("NFKD", name)
        plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).lstrip("._-").rstrip("-")
    suffix = "" if channel is None or channel <= 1 else f"_{channel:02d}"
    name = name[: _MAX_CHARACTERS - len(suffix)] + suffix
    return name if is_camera_id(name) else None
