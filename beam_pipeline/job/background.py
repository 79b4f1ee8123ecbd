"""Does work in a thread while a block runs, such as the report of a stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECONDS_TO_END = 5.0


@contextmanager
def in_background(
    name: str, work: Callable[[threading.Event], None], stop: Callable[[], None] | None = None
) -> Iterator[None]:
    """Runs work in a thread during this block, and waits a few seconds for its end.

    Args:
      name: The name of the thread.
      work: Is given an event that is set when the block ends, and returns soon after.
      stop: Is called when the block ends, to stop what does not look at the event.
    """
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        if stop is not None:
            stop()
        thread.join(_SECONDS_TO_END)
