"""What a packed stream decides on a capture time, and the windows that the decisions belong to."""

from __future__ import annotations

from dataclasses import dataclass, replace

from transforms.count_threats import shard_of, window_of
from transforms.records import reasons
from transforms.records.codecs import VersionedCoder, register_record
from transforms.records.images import JudgedImage
from transforms.records.precedence import CaptureTime, Version, key_of
from transforms.storage.packed_output import PackedFile, period_name

Key = tuple[str, str]
"""A camera and a capture time, canonical."""


@dataclass(frozen=True)
class Decision:
    """What a stream has decided on a camera and capture time, for its packed form.

    Attributes:
      camera: The camera's id.
      timestamp: The capture time, canonical.
      number: How many decisions there have been on this capture time; this is the newest of them.
      winner: The image that wins; None if none is valid.
      is_recorded: Whether the winner has a record in `alerts/`, and so a file in `final/`.
      files: If no image is valid: the addresses and stored names of the files, whose earlier
        verdicts are retracted.
      late: A version that has come too late for the state of its capture time. It is handed on once
        all earlier decisions on its window are in the output; the other fields say nothing.
    """

    camera: str
    timestamp: str
    number: int = 0
    winner: JudgedImage | None = None
    is_recorded: bool = False
    files: tuple[tuple[str, str], ...] = ()
    late: Version | None = None

    @property
    def key(self) -> Key:
        """The camera and capture time."""
        return self.camera, self.timestamp


DECISIONS: VersionedCoder[Decision] = register_record(Decision)
"""Encodes the decisions that wait, as the state of a window and shard."""

Written = tuple[str, str, int]
WRITTEN: VersionedCoder[Written] = VersionedCoder(Written)
"""Encodes a camera, a capture time and the number of the newest decision on it that was written."""


def decision_on(known: CaptureTime, number: int, *, is_recorded: bool) -> Decision | None:
    """Returns the decision on a capture time; None if an earlier verdict on it stays.

    Args:
      known: What is known of it.
      number: The number of the decision.
      is_recorded: Whether the winner has a record in `alerts/`.
    """
    if not known.versions:
        return None
    camera, timestamp = key_of(next(iter(known.versions.values()))).split("\n")
    decision = Decision(camera, timestamp, number)
    if known.winner is not None:
        return replace(decision, winner=known.winner, is_recorded=is_recorded)
    files = tuple(
        (version.uri, version.name)
        for version in known.versions.values()
        if version.reason != reasons.READ_FAILED
    )
    return replace(decision, files=files) if files else None


@dataclass(frozen=True)
class LateVersion:
    """A version that has come too late for the state of its capture time.

    Attributes:
      version: The version.
      after: Names what was written before it was handed on. Versions of one name have come after
        the same files: a listing that is made when the first of them has come shows these files.
    """

    version: Version
    after: str


register_record(LateVersion)


def late_version(version: Version) -> Decision:
    """Returns what hands on a version that has come too late."""
    camera, timestamp = key_of(version).split("\n")
    return Decision(camera, timestamp, late=version)


@dataclass(frozen=True)
class PackedWindows:
    """Which window and shard a capture time belongs to.

    Attributes:
      seconds: Length of a window.
      shards: How many files a window has at a time.
    """

    seconds: int
    shards: int = 1

    def name_of(self, camera: str, timestamp: str) -> str:
        """Returns what the names of its files begin with."""
        name = period_name(*window_of(timestamp, self.seconds))
        if self.shards > 1:
            name += f"-{shard_of(camera, self.shards)}-of-{self.shards}"
        return name

    def is_of_another_shard(self, file: PackedFile, name: str) -> bool:
        """Returns whether a file of the same window has the rows of other cameras only."""
        window, _, shard = name.partition("-")
        file_name = file.uri.rpartition("/")[2]
        if self.shards == 1 or not file_name.startswith(f"{window}-"):
            return False
        other = file_name.removeprefix(f"{window}-").partition("_")[0]
        return other != shard and other.endswith(f"-of-{self.shards}")
