"""How long the files under an output are kept, as the rule file says. `prune` deletes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from rules.frozen import FrozenMapping
from rules.schedule import UnreadableError
from rules.text import shortened

KEPT = ("validated", "detections", "final", "invalid", "alerts", "threats", "marked")
"""What can be kept longer: the files of a folder; all files of images with an alert, with a threat,
or with a mark."""

FOR_GOOD = timedelta.max
"""The age of what is never deleted."""

_AGE = re.compile(r"([1-9][0-9]{0,4})([hd])", re.ASCII)


def parse_age(text: str) -> timedelta:
    """Parses an age such as ``30d`` or ``12h``.

    Raises:
        UnreadableError: The text is no age.
    """
    match = _AGE.fullmatch(text)
    if match is None:
        raise UnreadableError(
            f"{shortened(text)!r} is no age", "write a whole number and h or d, such as 12h or 30d"
        )
    return timedelta(hours=int(match[1]) * (24 if match[2] == "d" else 1))


@dataclass(frozen=True)
class Retention:
    """How long what is kept.

    Attributes:
        older_than: What is older is deleted.
        keep: Longer times, by what is kept (`KEPT`); `FOR_GOOD` for ever.
    """

    older_than: timedelta
    keep: Mapping[str, timedelta] = field(default_factory=FrozenMapping)

    def limit(self, kinds: Iterable[str]) -> timedelta:
        """Returns the age beyond which a file is deleted: the longest of its kinds.

        Args:
            kinds: What the file is, of `KEPT`.
        """
        return max((self.older_than, *(self.keep.get(kind, self.older_than) for kind in kinds)))
