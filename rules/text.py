"""Text that is safe and short enough for a message."""

from __future__ import annotations

_MAX_CHARACTERS = 80


def escaped(text: str) -> str:
    """Returns the text with line breaks and other unprintable characters escaped.

    Such text cannot steer a terminal.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def shortened(text: str) -> str:
    """Returns the text, truncated to the length that a message can show."""
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 3] + "..."


def number_of(number: int, noun: str, plural: str | None = None) -> str:
    """Returns a number with its noun, such as `1 image` or `2,000 images`.

    Args:
      number: How many.
      noun: One of them.
      plural: Several of them; None for `noun` with an `s`.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
