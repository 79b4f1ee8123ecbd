"""What the sources of messages have in common: nothing is forgotten before it is kept.

A message may be acknowledged once the runner can't lose what came of it. Runners say so by calling
back after a bundle (`beam.DoFn.BundleFinalizerParam`). Beam's portable Flink runner calls when a
checkpoint is complete, but for *every* bundle that has ended by then, also for those that ended
after the checkpoint's barrier had passed and are not in it (`ExecutableStageDoFnOperator.
notifyCheckpointComplete` calls `InMemoryFinalizer.finalizeAllOutstandingBundles`). To take its word
would lose messages when a machine dies at that moment. So a message is acknowledged only at the
second word: when a bundle that began after the first word is called back in its turn, another
checkpoint is complete, whose barrier came after the message. Where no word comes, nothing is
acknowledged, and the messages come again, which does no harm.
"""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from beam_pipeline.notifications.events import Told

Position = tuple[tuple[int, int], ...]
"""How far a source has come, as the runner keeps it: pairs of a part and a place in it."""


class ChannelError(Exception):
    """Why no messages come: one line, without secrets."""


@dataclass(frozen=True)
class Message:
    """A message that came.

    Attributes:
      content: The message as bytes, by which a malformed one is kept.
      told: What it says.
    """

    content: bytes
    told: Told


@dataclass(frozen=True)
class Taken:
    """What came at one look.

    Attributes:
      messages: In the order in which they came.
      position: Where the next look goes on.
      receipt: What :meth:`Channel.acknowledge` needs for them; None where nothing is.
      is_full: There may be more right now.
      is_caught_up: All that was there is taken, or nearly so.
    """

    messages: Sequence[Message]
    position: Position
    receipt: Any
    is_full: bool
    is_caught_up: bool


class Channel(abc.ABC):
    """A connection to where messages come from. One for a process, used by one look at a time."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._heard_once: list[Any] = []

    @abc.abstractmethod
    def check(self) -> None:
        """Looks whether messages can be had, and takes none.

        Raises:
          ChannelError: They can't.
        """

    @abc.abstractmethod
    def take(self, position: Position, most: int) -> Taken:
        """The messages that came since a position.

        Args:
          position: Where the look before has ended; where that was not here, all that was handed on
            since is to be handed on again.
          most: How many to take at once.

        Raises:
          ChannelError: None can be had now.
        """

    @abc.abstractmethod
    def acknowledge(self, receipts: Sequence[Any]) -> None:
        """Says that messages need not come again."""

    def once_kept(self, receipt: Any) -> Callable[[], None] | None:
        """What is to be called once the runner has kept the bundle of a look; None for nothing.

        Args:
          receipt: Of the messages taken in this bundle, or None.
        """
        with self._lock:
            heard_once, self._heard_once = self._heard_once, []
        if not heard_once and receipt is None:
            return None
        return partial(self._is_kept, receipt, heard_once)

    def _is_kept(self, receipt: Any, heard_once: Sequence[Any]) -> None:
        with self._lock:
            if receipt is not None:
                self._heard_once.append(receipt)
            if heard_once:
                self.acknowledge(heard_once)

    def _forget_receipts(self) -> None:
        """For a look that goes on elsewhere than the one before has ended."""
        with self._lock:
            self._heard_once = []
