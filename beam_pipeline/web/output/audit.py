"""What people did through the console: an entry for each write, in the output.

    audit/<day>/<time>_<12 digits>.json

An entry is written before the write that it is about, and never changed: nothing is written without
an entry, and an entry whose write failed is followed by no such file. Like marks, entries hold a
clock and need no lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson

from beam_pipeline.fleet.output_scan import map_in_threads
from transforms.records.times import canonical_time
from transforms.storage import stores

_FORMAT_VERSION = "1.0"
_DAYS = 30


def write_entry(
    output: str,
    *,
    by: str,
    role: str,
    action: str,
    about: Mapping[str, Any],
    now: datetime | None = None,
) -> None:
    """Writes an entry.

    Args:
      output: The job's output.
      by: Who.
      role: What the person may do.
      action: What is about to be done, such as `mark`.
      about: What it is done with.
      now: The present time (UTC); None for that of this machine's clock.

    Raises:
      OSError: The store can't be written.
    """
    at = now or datetime.now(timezone.utc)
    entry = {
        "format_version": _FORMAT_VERSION,
        "at": canonical_time(at),
        "by": by,
        "role": role,
        "action": action,
        "about": dict(about),
    }
    data = stores.json_bytes(entry)
    digits = hashlib.sha256(data).hexdigest()[:12]
    name = f"{_time_in_name(at)}_{digits}.json"
    stores.write_bytes(stores.join(output, "audit", f"{at:%Y-%m-%d}", name), data)


def read_entries(output: str, number: int, now: datetime | None = None) -> list[Mapping[str, Any]]:
    """Returns the newest entries of the last 30 days that can be read, the newest first.

    Args:
      output: The job's output.
      number: How many at most.
      now: The present time (UTC); None for that of this machine's clock.

    Raises:
      OSError: The store can't be listed.
    """
    today = now or datetime.now(timezone.utc)
    entries: list[Mapping[str, Any]] = []
    for days in range(_DAYS):
        folder = stores.join(output, "audit", f"{today - timedelta(days=days):%Y-%m-%d}")
        names = [name for name in stores.names_with_prefix(folder, [""]) if name.endswith(".json")]
        wanted = sorted(names, reverse=True)[: number - len(entries)]
        for data in map_in_threads(stores.read_bytes, [stores.join(folder, n) for n in wanted]):
            if (entry := _entry(data)) is not None:
                entries.append(entry)
        if len(entries) >= number:
            break
    return entries


def entries_at(
    output: str, times: Iterable[datetime], actions: Sequence[str]
) -> dict[datetime, Mapping[str, Any]]:
    """Returns the entries of these very times that can be read, by their times.

    Args:
      output: The job's output.
      times: The times (UTC), as `write_entry` got them.
      actions: What was done; other entries are left out.

    Raises:
      OSError: The store can't be listed.
    """
    by_day: dict[str, dict[str, datetime]] = {}
    for at in times:
        by_day.setdefault(f"{at:%Y-%m-%d}", {})[_time_in_name(at)] = at
    found: list[tuple[datetime, str]] = []
    for day, of_day in by_day.items():
        folder = stores.join(output, "audit", day)
        for name in stores.names_with_prefix(folder, sorted(of_day)):
            found.append((of_day[name.partition("_")[0]], stores.join(folder, name)))
    read = map_in_threads(stores.read_bytes, [uri for _, uri in found])
    entries = ((at, _entry(data)) for (at, _), data in zip(found, read, strict=True))
    return {at: entry for at, entry in entries if entry is not None and entry["action"] in actions}


def _time_in_name(at: datetime) -> str:
    return f"{at:%Y%m%dT%H%M%S}{at.microsecond:06d}Z"


def _entry(data: bytes | Exception) -> Mapping[str, Any] | None:
    """Returns an entry; None if its file can't be read, or is damaged."""
    if isinstance(data, Exception):
        return None
    try:
        value = orjson.loads(data)
        texts = [value[name] for name in ("at", "by", "role", "action")]
        about = value["about"].values()
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return value if all(isinstance(text, str) for text in (*texts, *filter(None, about))) else None
