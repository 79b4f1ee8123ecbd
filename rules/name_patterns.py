"""Patterns of file names: which part of a path is the camera, and which part the time.

A pattern such as ``{camera}/{time:%Y/%m/%d}/*_{time:%H%M%S%3f}.jpg`` is matched against a whole
path below the input; a pattern without a slash is matched against the file's name, in whatever
folder.

- ``{camera}`` takes as much of one folder's or file's name as fits.
- ``{channel}`` takes digits: the first channel of a device has the device's id, and any other
  channel an id of its own.
- ``{time:FORMAT}`` takes a time in the codes of `strftime`, and ``%3f`` for milliseconds. Several
  of them add up, and a code that occurs twice must have the same value in both places.
- ``{sequence}`` takes digits, ``*`` anything but a slash, and ``**/`` any number of folders.

A camera's name that is no id becomes one: ``Front Door`` is ``Front-Door``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from rules.camera_ids import camera_id
from rules.errors import suggestion
from rules.schedule import UnreadableError
from rules.text import shortened

_EXTENSION = re.compile(r"\.jpe?g\Z", re.IGNORECASE | re.ASCII)
_OTHER_EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,3}\Z")
_TOKEN = re.compile(r"\*\*/|\*\*|\*|\{[^{}]*\}|[{}]|[^*{}]+")
_CODE = re.compile(r"%(3f|-?[A-Za-z%])|[^%]+|%")
_EPOCH = datetime(1970, 1, 1)
_MAX_CHOICES = 3
"""How many times a pattern may leave open where one part of a name ends and the next begins: the
time to match a hostile name grows with its length to this power."""
_MAX_PATH_CHARACTERS = 1024
_MAX_PART_CHARACTERS = 255

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

_CODES = {
    "Y": r"[0-9]{4}",
    "y": r"[0-9]{2}",
    "m": r"[0-9]{2}",
    "-m": r"[0-9]{1,2}",
    "b": r"[A-Za-z]{3}",
    "d": r"[0-9]{2}",
    "-d": r"[0-9]{1,2}",
    "j": r"[0-9]{3}",
    "H": r"[0-9]{2}",
    "-H": r"[0-9]{1,2}",
    "I": r"[0-9]{2}",
    "-I": r"[0-9]{1,2}",
    "p": r"[AaPp][Mm]",
    "M": r"[0-9]{2}",
    "-M": r"[0-9]{1,2}",
    "S": r"[0-9]{2}",
    "-S": r"[0-9]{1,2}",
    "f": r"[0-9]{1,6}",
    "3f": r"[0-9]{3}",
    "s": r"[0-9]{10}",
    "z": r"Z|[+-][0-9]{2}[:-]?[0-9]{2}",
}
_SHORTHANDS = {"F": "%Y-%m-%d", "T": "%H:%M:%S"}
_GIVES = {"y": "Y", "b": "m", "I": "H", "3f": "f"}
"""Codes that give the same part of a time as another code."""

_FIELDS = ("camera", "channel", "sequence", "time:FORMAT")


@dataclass(frozen=True)
class NameMatch:
    """What a path says that fits a pattern.

    Attributes:
        camera: The camera's name, as in the path.
        channel: The channel of the device; None if the path has none.
        local: The time, without its offset; None if it is no moment.
        offset: The offset from UTC in the path; None if it has none.
        problem: Why the time is no moment; None if it is one.
    """

    camera: str
    channel: int | None
    local: datetime | None
    offset: timedelta | None
    problem: str | None = None

    @cached_property
    def id(self) -> str | None:
        """The camera's id; None if nothing of its name can be part of an id."""
        return camera_id(self.camera, self.channel)


@dataclass(frozen=True)
class NamePattern:
    """A pattern that `parse_pattern` found right.

    Attributes:
        text: The pattern, as it was written.
    """

    text: str
    _expression: str = field(repr=False, compare=False)

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return re.compile(self._expression, re.DOTALL | re.ASCII)

    @property
    def _is_of_name(self) -> bool:
        return "/" not in self.text

    def match(self, path: str) -> NameMatch | None:
        """Reads a path; returns None if it does not fit.

        Args:
            path: The path below the input, with slashes.
        """
        extension = _EXTENSION.search(path)
        if extension is None or len(path) > _MAX_PATH_CHARACTERS:
            return None
        stem = path[: extension.start()]
        if self._is_of_name:
            stem = stem.rpartition("/")[2]
        if max(map(len, stem.split("/"))) > _MAX_PART_CHARACTERS:
            return None
        match = self._regex.fullmatch(stem)
        if match is None:
            return None
        parts = {name: text for name, text in match.groupdict().items() if text is not None}
        channel = int(parts["channel"]) if "channel" in parts else None
        try:
            local, offset = _moment(parts)
        except (ValueError, OverflowError) as error:
            return NameMatch(parts["camera"], channel, None, None, str(error))
        return NameMatch(parts["camera"], channel, local, offset)


def parse_pattern(text: str) -> NamePattern:
    """Parses a pattern.

    Raises:
        UnreadableError: It has no camera or no time, an unknown field or code, or can't fit a JPEG.
    """
    pattern = text.strip().lstrip("/")
    extension = _EXTENSION.search(pattern)
    if extension is not None:
        pattern = pattern[: extension.start()]
    elif pattern.endswith(".*"):
        pattern = pattern[:-2]
    elif match := _OTHER_EXTENSION.search(pattern):
        raise _refused(text, f"ends in {match[0]}, and images end in .jpg", "let it end in .jpg")
    expression = _Expression(text)
    for token in _TOKEN.findall(pattern):
        expression.add(token)
    return NamePattern(text.strip().lstrip("/"), expression.checked())


class _Expression:
    """The regular expression of a pattern, as it is put together."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._parts: list[str] = []
        self._names: list[str] = []
        self._is_open = False  # Whether the last token takes any number of characters.
        self._open_parts = [0]  # How many such tokens each folder or file name has.

    def add(self, token: str) -> None:
        if token == "**/":
            if self._parts and not self._parts[-1].endswith("/"):
                raise _refused(self._text, "has ** within a name", "write **/ for any folders")
            self._parts.append("(?:[^/]+/)*?")
            self._is_open = False
            self._open_parts.append(0)
        elif token == "**":
            raise _refused(self._text, "has ** within a name", "write **/ for any folders, or *")
        elif token == "*":
            self._add_open("[^/]*?")
        elif token in ("{", "}"):
            raise _refused(self._text, f"has a single {token}", "write {camera} or {time:FORMAT}")
        elif token.startswith("{"):
            self._add_field(token[1:-1])
        else:
            self._add_literal(token)

    def _add_literal(self, text: str) -> None:
        self._parts.append(re.escape(text))
        self._is_open = False
        if "/" in text:
            self._open_parts.append(0)

    def _add_open(self, part: str) -> None:
        if self._is_open:
            raise _refused(
                self._text,
                "has nothing between two parts of any length",
                "write what separates them",
            )
        self._parts.append(part)
        self._is_open = True
        self._open_parts[-1] += 1

    def _add_field(self, name: str) -> None:
        kind, colon, argument = name.partition(":")
        if kind == "time" and colon:
            self._add_time(argument)
            return
        if name not in ("camera", "channel", "sequence"):
            remedy = suggestion(name, _FIELDS, "fields")
            if kind == "time":
                remedy = "write its format too, such as {time:%Y%m%d%H%M%S}"
            raise _refused(self._text, f"has the unknown field {{{shortened(name)}}}", remedy)
        if name in self._names and name != "camera":
            raise _refused(self._text, f"has {{{name}}} twice", "keep one of them, and write *")
        body = "[^/]+" if name == "camera" else "[0-9]+"
        self._add_open(self._once(name, body))

    def _add_time(self, form: str) -> None:
        self._is_open = False
        for code in list(_codes(form, self._text)):
            if not code.startswith("%"):
                self._add_literal(code)
            elif code == "%%":
                self._parts.append("%")
            else:
                name = code[1:]
                part = name.lstrip("-")
                self._parts.append(self._once(f"t_{_GIVES.get(part, part)}_{part}", _CODES[name]))

    def _once(self, name: str, body: str) -> str:
        if name in self._names:
            return f"(?P={name})"
        self._names.append(name)
        return f"(?P<{name}>{body})"

    def _check_cost(self) -> None:
        if sum(max(number - 1, 0) for number in self._open_parts) > _MAX_CHOICES:
            raise _refused(
                self._text,
                "has too many parts of any length in one name",
                "write out what some * stand for",
            )

    def checked(self) -> str:
        """Returns the expression, if it gives a camera and a time.

        Raises:
            UnreadableError: It does not.
        """
        self._check_cost()
        if "camera" not in self._names:
            raise _refused(self._text, "has no {camera}", "write {camera} where its name is")
        given = [name.split("_")[1] for name in self._names if name.startswith("t_")]
        codes = {name.split("_")[2] for name in self._names if name.startswith("t_")}
        if not given:
            raise _refused(
                self._text, "has no {time}", "write it with its format: {time:%Y%m%d%H%M%S}"
            )
        for part in given:
            if given.count(part) > 1:
                both = sorted(code for code in codes if _GIVES.get(code, code) == part)
                raise _refused(
                    self._text,
                    f"gives one part of the time by %{both[0]} and %{both[1]}",
                    "keep one of them",
                )
        if "s" in given:
            others = sorted(set(given) - {"s", "f"})
            if others:
                raise _refused(
                    self._text,
                    f"has %s, the whole time, and %{others[0]}",
                    "keep one of them",
                )
            return "".join(self._parts)
        needed = ("Y", "j", "H", "M") if "j" in given else ("Y", "m", "d", "H", "M")
        missing = [f"%{part}" for part in needed if part not in given]
        if missing:
            raise _refused(
                self._text,
                f"gives no whole time: {' and '.join(missing)} missing",
                "write day and time, such as {time:%Y%m%d%H%M%S}",
            )
        if ("I" in codes) != ("p" in codes):
            raise _refused(
                self._text, "has one of %I and %p", "write both for AM and PM, or %H for 0 to 23"
            )
        if "j" in given and {"m", "d"} & set(given):
            raise _refused(self._text, "gives the day by %j and by %m or %d", "keep one of them")
        return "".join(self._parts)


def _codes(form: str, pattern: str) -> Iterator[str]:
    """Yields the codes and the literal parts of the format of a time."""
    if not form:
        raise _refused(pattern, "has a {time} without a format", "such as {time:%Y%m%d%H%M%S}")
    for match in _CODE.finditer(form):
        code = match[1]
        if code is None and match[0] != "%":
            yield match[0]
        elif code in _SHORTHANDS:
            yield from _codes(_SHORTHANDS[code], pattern)
        elif code == "%" or code in _CODES:
            yield match[0]
        else:
            known = " ".join(f"%{name}" for name in (*_CODES, *_SHORTHANDS) if name[0] != "-")
            raise _refused(
                pattern, f"has the code {match[0]}, which can't be read", f"the codes are {known}"
            )


def _refused(pattern: str, problem: str, remedy: str) -> UnreadableError:
    return UnreadableError(f"the pattern {shortened(pattern)!r} {problem}", remedy)


def _moment(parts: dict[str, str]) -> tuple[datetime, timedelta | None]:
    """Returns the local time and the offset from UTC that the parts of a name give.

    Raises:
        ValueError: There is no such moment.
        OverflowError: The same.
    """
    time = {name.split("_")[2]: text for name, text in parts.items() if name.startswith("t_")}
    fraction = timedelta(microseconds=int((time.get("3f") or time.get("f") or "0").ljust(6, "0")))
    if "s" in time:
        return _EPOCH + timedelta(seconds=int(time["s"])) + fraction, timedelta(0)
    year = int(time["Y"]) if "Y" in time else _year_of(int(time["y"]))
    hour = int(time["H"]) if "H" in time else _hour_of(int(time["I"]), time["p"].lower())
    if "j" in time:
        day = datetime(year, 1, 1) + timedelta(days=int(time["j"]) - 1)
        if day.year != year:
            raise ValueError(f"the year {year} has no day {time['j']}")
        month, date = day.month, day.day
    else:
        month = int(time["m"]) if "m" in time else _month_of(time["b"].lower())
        date = int(time["d"])
    local = datetime(year, month, date, hour, int(time["M"]), int(time.get("S", "0"))) + fraction
    return local, _offset_of(time["z"]) if "z" in time else None


def _year_of(digits: int) -> int:
    return digits + (2000 if digits < 69 else 1900)  # As in POSIX.


def _hour_of(hour: int, half: str) -> int:
    if not 1 <= hour <= 12:
        raise ValueError("hour must be in 1..12 with AM and PM")
    return hour % 12 + (12 if half == "pm" else 0)


def _month_of(name: str) -> int:
    if name not in _MONTHS:
        raise ValueError(f"there is no month {name}")
    return _MONTHS.index(name) + 1


def _offset_of(text: str) -> timedelta:
    if text == "Z":
        return timedelta(0)
    hours, minutes = int(text[1:3]), int(text[-2:])
    if hours > 23 or minutes > 59:
        raise ValueError(f"there is no offset {text}")
    return timedelta(hours=hours, minutes=minutes) * (-1 if text[0] == "-" else 1)
