"""Reads the members of a large JSON object one by one, in bounded memory."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

MAX_VALUE = 4 << 20
"""The largest value that is read at once, in characters."""
MAX_KEYS = 1000
_GOES_ON = ("", ".", "e", "E")
_SPACES = " \t\n\r"


class JsonError(ValueError):
    """The text is not JSON as expected; the message says what is wrong, and where."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Integers become floats, as Python needs quadratic time for long ones.
_DECODER = json.JSONDecoder(parse_int=float, parse_constant=_refuse_constant)


def read_members(chunks: Iterable[bytes], streamed: str) -> Iterator[tuple[str, Any]]:
    """Yields the members of a JSON object as they come: key and value, numbers as floats.

    The array `streamed` is never in memory as a whole: its key is yielded once for each element,
    and before them once with None.

    Args:
      chunks: The text in UTF-8, in parts of any size.
      streamed: The key of the array.

    Raises:
      JsonError: The text is no such object, a key occurs twice, or one value is longer than
        :data:`MAX_VALUE`.
    """
    text = _Text(chunks)
    if text.next_character() != "{":
        text.fail("it does not begin with '{'")
    text.skip()
    keys: set[str] = set()
    is_last = text.next_character() == "}"
    if is_last:
        text.skip()
    while not is_last:
        key = _key(text, keys)
        if key == streamed:
            yield key, None
            for element in _elements(text, key):
                yield key, element
        else:
            yield key, text.value()
        is_last = text.is_last("}")
    if text.next_character():
        text.fail("there is more after its end")


def _key(text: _Text, keys: set[str]) -> str:
    """Reads a key with its colon, and adds it to the keys so far."""
    key = text.value()
    if not isinstance(key, str):
        text.fail("a key is not a text")
    if key in keys:
        text.fail(f"it has {key[:40]!r} twice")
    keys.add(key)
    if len(keys) > MAX_KEYS:
        text.fail(f"it has more than {MAX_KEYS:,} keys")
    if text.next_character() != ":":
        text.fail("':' is missing")
    text.skip()
    return key


def _elements(text: _Text, key: str) -> Iterator[Any]:
    if text.next_character() != "[":
        text.fail(f"{key!r} is not a list")
    text.skip()
    if text.next_character() == "]":
        text.skip()
        return
    while True:
        yield text.value()
        if text.is_last("]"):
            return


class _Text:
    """A text of which a part is in memory."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at = 0
        self._before = 0
        self._ended = False

    def fail(self, problem: str) -> NoReturn:
        raise JsonError(f"{problem} (at character {self._before + self._at + 1:,})")

    def skip(self) -> None:
        """Skips one character."""
        self._at += 1

    def next_character(self) -> str:
        """Skips spaces, and returns the next character; nothing at the end of the text."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACES:
                    return self._text[self._at]
                self._at += 1
            if not self._read_more(1):
                return ""

    def is_last(self, end: str) -> bool:
        """Skips a comma or the end of an array or object, and returns whether it was the end."""
        found = self.next_character()
        if found not in (",", end) or not found:
            self.fail(f"neither ',' nor {end!r} follows a value")
        self._at += 1
        return found == end

    def value(self) -> Any:
        """Reads the next value."""
        self.next_character()
        wanted = 1
        while True:
            problem = None
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                self.fail("a value in it is nested too deeply")
            except json.JSONDecodeError as error:
                problem = error.msg
            except ValueError as error:
                problem = str(error)
            # A number at the end of the part may go on, such as 1 to 1.5e3.
            if problem is None and (self._ended or self._text[end : end + 1] not in _GOES_ON):
                self._at = end
                return value
            length = len(self._text) - self._at
            if length > MAX_VALUE:
                self.fail(f"not JSON, or a value of more than {MAX_VALUE >> 20} million characters")
            if not self._read_more(wanted) and problem is not None:
                self.fail(f"not JSON: {problem}")
            wanted = max(wanted, length)  # Twice as much, so that the work stays linear.

    def _read_more(self, wanted: int) -> bool:
        """Reads at least so many characters if there are any; returns whether there were."""
        parts = [self._text[self._at :]]
        self._before += self._at
        self._at = 0
        number = 0
        while number < wanted and not self._ended:
            chunk = next(self._chunks, b"")
            try:
                part = self._utf8.decode(chunk, final=not chunk)
            except UnicodeDecodeError:
                self._text = "".join(parts)
                self._at = len(self._text)
                self.fail("it is not text in UTF-8")
            self._ended = not chunk
            parts.append(part)
            number += len(part)
        self._text = "".join(parts)
        return number > 0
