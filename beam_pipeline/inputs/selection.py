"""Selects the images of an archive that a command uses, and reports unreadable ones."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from beam_pipeline.console import failure_messages
from beam_pipeline.console.exceptions import CommandFailedError, SetupError
from beam_pipeline.inputs import paths
from beam_pipeline.inputs.preflight import check_readable
from transforms.records.text import printable
from transforms.records.times import canonical_time, parse_time
from transforms.storage.archive import Archive, ArchiveError, Problem, open_archive

_SHOWN = 20
RESTART_ADVICE = "run the same command again"


@dataclass(frozen=True)
class Selection:
    """Which images of which archive.

    Attributes:
      archive: Where they are.
      ids: The cameras, sorted.
      by_id: Whether the command line names them.
      since: Start of the period; None for all.
      until: End of the period, exclusive; None for all.
    """

    archive: Archive
    ids: tuple[str, ...]
    by_id: bool
    since: datetime | None
    until: datetime | None


def select(parsed: argparse.Namespace) -> Selection:
    """Opens the archive that the options name (see `commands.arguments`).

    Raises:
      SetupError: There is none, or nothing of it is selected.
    """
    since, until = (
        time_option(option, text)
        for option, text in (("--since", parsed.since), ("--until", parsed.until))
    )
    if since is not None and until is not None and since >= until:
        raise SetupError(
            f"the period is empty: it begins {canonical_time(since)} and ends "
            f"{canonical_time(until)}"
        )

    archive = open_archives(parsed.archive)
    for id in parsed.ids or ():
        if id not in archive.ids:
            raise SetupError(
                f"--id {id}: no such camera in the archive; there are {list_names(archive.ids)}"
            )
    ids = tuple(sorted(set(parsed.ids))) if parsed.ids else archive.ids
    return Selection(archive, ids, bool(parsed.ids), since, until)


def open_archives(addresses: Sequence[str]) -> Archive:
    """Opens the archives that `--output` names, as one.

    Raises:
      SetupError: There is none.
    """
    uris = [paths.absolute("--output", uri) for uri in addresses]
    for uri in uris:
        check_readable("--output", uri)
    try:
        return open_archive(*uris)
    except ArchiveError as error:
        raise SetupError(f"--output {error}") from None


def time_option(option: str, text: str | None) -> datetime | None:
    """Returns the time that an option names; None without the option.

    Raises:
      SetupError: It is no time.
    """
    try:
        return None if text is None else parse_time(text)
    except ValueError as error:
        raise SetupError(f"{option}: {error}") from None


def list_names(names: Sequence[str]) -> str:
    """Returns names for a message; of many, the first."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def print_problems(problems: Iterable[Problem], full_list_hint: str) -> None:
    """Says on standard error what could not be read."""
    listed_problems = list(problems)
    if not listed_problems:
        return
    print(f"problems with the archive, skipped: {len(listed_problems)}", file=sys.stderr)
    for uri, why in listed_problems[:_SHOWN]:
        print(f"  {printable(uri)}: {printable(why)}", file=sys.stderr)
    if len(listed_problems) > _SHOWN:
        print(f"  and {len(listed_problems) - _SHOWN} more; {full_list_hint}", file=sys.stderr)


@contextmanager
def store_errors_as_failures() -> Iterator[None]:
    """Makes a store that fails in mid-work the end of the command.

    Raises:
      CommandFailedError: In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise CommandFailedError(
            f"failed: {failure_messages.explain(error, RESTART_ADVICE)}"
        ) from None
