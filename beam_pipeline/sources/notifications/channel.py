"""Shared parts of the message sources: a message is acknowledged only once its results are kept.

A message may be acknowledged once the runner can't lose what came of it. Runners say so by calling
back after a bundle (`beam.DoFn.BundleFinalizerParam`). Beam's portable Flink runner calls when a
checkpoint is complete, but for *every* bundle that has ended by then, also for those that ended
after the checkpoint's barrier had passed and are not in it (`ExecutableStageDoFnOperator.
notifyCheckpointComplete` calls `InMemoryFinalizer.finalizeAllOutstandingBundles`). Trusting this
callback would lose messages when a machine dies then. So a message is acknowledged only at the
second callback: when the bundle of a later pull of the same partition is called back in its turn,
another checkpoint is complete, whose barrier came after the message. Where no callback comes,
nothing is acknowledged, and the messages come again, which does no harm.
"""

from __future__ import annotations

import abc
import math
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from beam_pipeline.sources.notifications.events import ObjectEvents

_REPEAT_LINE_SECONDS = 60.0


class ChannelError(Exception):
    """Why no messages come: one line, without secrets."""


@dataclass(frozen=True)
class Notification:
    """A message about new objects.

    Attributes:
      content: The message as bytes, by which a malformed one is kept.
      events: What it says.
    """

    content: bytes
    events: ObjectEvents


@dataclass(frozen=True)
class PartitionPosition:
    """How far the messages of a partition were taken.

    Attributes:
      offset: Of the next message; None before the first pull that had an answer.
      last_pull: The id of the last pull that had an answer; 0 for none. If another process made
        that pull, or a connection has pulled since, the runner has moved the partition or has gone
        back to a checkpoint.
    """

    offset: int | None = None
    last_pull: int = 0

    @classmethod
    def after_pull(cls, offset: int) -> PartitionPosition:
        """Returns the position after a new pull, whose id no other pull of any process has."""
        return cls(offset, secrets.randbits(62) + 1)


@dataclass(frozen=True)
class PulledBatch:
    """The messages of one pull.

    Attributes:
      messages: In the order of the channel.
      position: Where the next pull starts.
      receipt: What :meth:`Channel.acknowledge` needs for them; None where nothing is.
      until: Unix time in seconds up to which all that was published is taken, as far as the clocks
        of those who publish agree with this one's; None where that is not known.
      is_full: There may be more right now.
      is_at_end: All that was there is taken.
    """

    messages: Sequence[Notification]
    position: PartitionPosition
    receipt: Any
    until: float | None
    is_full: bool
    is_at_end: bool


class Channel(abc.ABC):
    """A connection to where messages come from; the pulls of a process share it.

    Attributes:
      longest_pause_seconds: Between two pulls of a partition: the connection may end after longer.
    """

    longest_pause_seconds = math.inf

    def __init__(self) -> None:
        self._receipts = threading.Lock()
        self._finalized_once: dict[int, list[Any]] = {}
        self._forgotten: Counter[int] = Counter()  # How often receipts of a partition were.
        self._logged_at: dict[str, float] = {}

    @abc.abstractmethod
    def check(self) -> None:
        """Checks whether messages can be had, and takes none.

        Raises:
          ChannelError: They can't.
        """

    @abc.abstractmethod
    def partitions(self) -> Sequence[int]:
        """Returns the numbers of all partitions that there are now.

        Raises:
          ChannelError: That can't be known now.
        """

    @abc.abstractmethod
    def pull(self, partition: int, position: PartitionPosition, max_messages: int) -> PulledBatch:
        """Returns the messages of a partition from a position on.

        If this connection did not make the last pull of the position, it forgets the receipts that
        it holds: the runner may not have kept what they stand for.

        Args:
          partition: Its number.
          position: Where the last pull has ended.
          max_messages: The maximum number of messages.

        Raises:
          ChannelError: None can be had now.
        """

    @abc.abstractmethod
    def acknowledge(self, partition: int, receipts: Sequence[Any]) -> None:
        """Says that messages need not come again. Where it fails, they come again."""

    def finalizer_for(self, partition: int, receipt: Any) -> Callable[[], None] | None:
        """Returns what is to be called once the runner has kept the bundle of a pull; None for
        nothing.

        Args:
          partition: The pull's partition.
          receipt: The receipt of the pull's messages, or None.
        """
        with self._receipts:
            finalized_once = self._finalized_once.pop(partition, [])
            forgotten = self._forgotten[partition]
        if not finalized_once and receipt is None:
            return None
        return partial(self._finalized, partition, receipt, finalized_once, forgotten)

    def _finalized(
        self, partition: int, receipt: Any, finalized_once: Sequence[Any], forgotten: int
    ) -> None:
        with self._receipts:
            if forgotten != self._forgotten[partition]:
                return  # Of before a failure: its messages come again.
            if receipt is not None:
                self._finalized_once.setdefault(partition, []).append(receipt)
        if finalized_once:
            self.acknowledge(partition, finalized_once)

    def _forget_receipts(self, partition: int) -> None:
        """Forgets receipts, for a pull that starts elsewhere than the one before has ended."""
        with self._receipts:
            self._finalized_once.pop(partition, None)
            self._forgotten[partition] += 1

    def should_log(self, line: str) -> bool:
        """Returns whether a line is to be logged: it was not within the last minute."""
        now = time.monotonic()
        logged_last = self._logged_at.get(line)
        if logged_last is not None and now - logged_last < _REPEAT_LINE_SECONDS:
            return False
        self._logged_at = {line: now} | {
            logged_line: logged_at
            for logged_line, logged_at in self._logged_at.items()
            if now - logged_at < _REPEAT_LINE_SECONDS
        }
        return True
