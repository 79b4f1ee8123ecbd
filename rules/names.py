"""Reads the camera and the time from the names of images, by a preset or pattern and a time zone.

The options of a job set these for all cameras, and a rule file for all cameras or for each. Every
preset and pattern that some camera has is matched against a path. If one matches, the path is an
image of the camera in the match, provided that this camera is configured with that preset or
pattern. So cameras of several makers can share an input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import cache, cached_property
from typing import NamedTuple

from rules.errors import suggestion
from rules.frozen import FrozenMapping
from rules.name_patterns import NameMatch, NamePattern, parse_pattern
from rules.name_presets import PRESETS
from rules.schedule import zone_of
from rules.text import shortened

_SKEW = timedelta(minutes=5)
_DELAY = timedelta(hours=1)


def preset_problem(name: str) -> tuple[str, str] | None:
    """Returns what is wrong with the name of a preset, and what would be right; None if nothing."""
    if name in PRESETS:
        return None
    return f"there is no preset {shortened(name)!r}", suggestion(name, PRESETS, "presets")


class NameForm(NamedTuple):
    """A way of naming.

    Attributes:
        preset: The name of a preset; None without one.
        pattern: A pattern; None without one.
    """

    preset: str | None = None
    pattern: str | None = None

    def __bool__(self) -> bool:
        return self != _NO_FORM

    def __str__(self) -> str:
        return f"the preset {self.preset}" if self.pattern is None else f"'{self.pattern}'"

    def match(self, path: str) -> NameMatch | None:
        """Reads a path by the first pattern that fits; returns None if none does."""
        impossible = None
        for pattern in _patterns(self):
            match = pattern.match(path)
            if match is not None and match.id is not None:
                if match.problem is None:
                    return match
                impossible = impossible or match
        return impossible


_NO_FORM = NameForm()


@cache
def _patterns(form: NameForm) -> tuple[NamePattern, ...]:
    texts = PRESETS[form.preset] if form.preset is not None else (form.pattern,)
    return tuple(parse_pattern(text) for text in texts if text is not None)


@dataclass(frozen=True)
class NameSettings:
    """How the names of a camera's images are read.

    Attributes:
        preset: The name of a preset; None without one.
        pattern: A pattern; None without one.
        timezone: The IANA name of the time zone of times without an offset; None for UTC.
        origins: The section that sets each, e.g. ``{"preset": "defaults.names"}``.
    """

    preset: str | None = None
    pattern: str | None = None
    timezone: str | None = None
    origins: Mapping[str, str] = field(default_factory=FrozenMapping, compare=False)

    @property
    def form(self) -> NameForm:
        """The preset or pattern."""
        return NameForm(self.preset, self.pattern)

    @property
    def zone(self) -> str:
        """The time zone of times without an offset."""
        return self.timezone or "UTC"

    def over(self, base: NameSettings) -> NameSettings:
        """Returns these settings, with those of a base where nothing is set."""
        form = self if self.form else base
        return replace(
            self,
            preset=form.preset,
            pattern=form.pattern,
            timezone=self.timezone or base.timezone,
        )


class FoundName(NamedTuple):
    """What is found in a path.

    Attributes:
        id: The camera's id.
        match: What the path says.
        settings: How names of the camera are read.
    """

    id: str
    match: NameMatch
    settings: NameSettings


class AmbiguousNameError(ValueError):
    """Two presets or patterns read one path as different images. Its text is for a person."""


@dataclass(frozen=True)
class Names:
    """How the names of all cameras are read.

    Attributes:
        default: The settings of a camera that has none of its own.
        by_camera: The settings of the others, by id.
    """

    default: NameSettings = field(default_factory=NameSettings)
    by_camera: Mapping[str, NameSettings] = field(default_factory=FrozenMapping)

    @property
    def is_canonical(self) -> bool:
        """Whether all names are ``<id>_<timestamp>.jpg`` in UTC."""
        return not self.by_camera and self.default == NameSettings()

    def for_camera(self, camera_id: str) -> NameSettings:
        """Returns the settings of a camera."""
        return self.by_camera.get(camera_id, self.default)

    @cached_property
    def forms(self) -> tuple[NameForm, ...]:
        """The presets and patterns of all cameras, each once."""
        settings = (self.default, *self.by_camera.values())
        return tuple(dict.fromkeys(one.form for one in settings if one.form))

    def find(self, path: str) -> FoundName | None:
        """Finds the camera and the time in a path by presets and patterns.

        Args:
            path: The path below the input.

        Returns:
            What was found; None if no preset or pattern reads the path.

        Raises:
            AmbiguousNameError: Two of them read it as different images.
        """
        found = list(self._all_found(path))
        if not found:
            return None
        first = found[0]
        for other in found[1:]:
            if (other.id, other.match.local) != (first.id, first.match.local):
                raise AmbiguousNameError(
                    f"two ways of naming fit it: {first.settings.form} reads {first.id}, and "
                    f"{other.settings.form} reads {other.id}"
                )
        return first

    def _all_found(self, path: str) -> Iterator[FoundName]:
        for form in self.forms:
            match = form.match(path)
            if match is not None and match.id is not None:
                settings = self.for_camera(match.id)
                if settings.form == form:
                    yield FoundName(match.id, match, settings)


def moments(local: datetime, zone: str) -> tuple[datetime, ...]:
    """Returns the moments in UTC at which the clocks of a time zone show a local time, in order.

    In the hour that is repeated when clocks go back, these are two. In the hour that is skipped
    when they go forward there is none; a clock that shows it was not put forward, and so the time
    is read as before the change.

    Args:
        local: The local time, without an offset.
        zone: The IANA name of the time zone.

    Raises:
        OverflowError: The moment is before the year 1 or after the year 9999.
    """
    zoned = local.replace(tzinfo=zone_of(zone), fold=0)
    first = zoned.astimezone(timezone.utc)
    second = zoned.replace(fold=1).astimezone(timezone.utc)
    return (first, second) if first < second else (first,)


def choose_moment(moments: tuple[datetime, ...], changed: float | None) -> datetime:
    """Returns the moment of a time that occurs twice: the one that fits the time of the file.

    A file is written at the capture time or within an hour after it. The time of a later copy says
    nothing, and the first moment is taken.

    Args:
        moments: What `moments` has returned.
        changed: When the file was last changed, in Unix time; None if that is unknown.
    """
    if len(moments) == 1 or changed is None:
        return moments[0]
    first, second = moments
    written = (
        datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=changed)
        if abs(changed) < 1e11
        else first
    )
    return second if second - _SKEW <= written <= second + _DELAY else first
