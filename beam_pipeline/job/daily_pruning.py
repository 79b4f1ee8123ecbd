"""Prunes the output of a stream once a day, if its rules say how long what is kept.

The program that has started the stream does it, beside the workers, for as long as it waits for
the stream. What fails is logged and tried again a day later; it never stops the stream.
"""

from __future__ import annotations

import logging
import threading
from contextlib import AbstractContextManager
from datetime import datetime, timezone

from beam_pipeline.fleet.pruning import ALERTS, Pruning
from beam_pipeline.job.background import in_background
from transforms.records.text import one_line
from transforms.runtime.live_rules import LiveRules

_LOGGER = logging.getLogger(__name__)
_DAY = 86_400.0


def pruned_daily(
    output: str, ruleset: LiveRules, seconds_between: float = _DAY
) -> AbstractContextManager[None]:
    """Returns a context at whose beginning, and then once a day, an output is pruned.

    Args:
      output: The job's output.
      ruleset: The rules, whose `retention` may be edited while the stream runs.
      seconds_between: The seconds between the end of one pruning and the beginning of the next.
    """
    running: list[Pruning] = []

    def prune_until(ended: threading.Event) -> None:
        while not ended.is_set():
            retention = ruleset.current.retention
            if retention is not None:
                pruning = Pruning(output, retention, datetime.now(timezone.utc), deletes=True)
                running[:] = [pruning]
                _prune(pruning)
            ended.wait(seconds_between)

    def stop() -> None:
        for pruning in running:
            pruning.stop()

    return in_background("pruning", prune_until, stop)


def _prune(pruning: Pruning) -> None:
    try:
        pruning.run()
    except Exception as error:  # Whatever is wrong with the output, the stream goes on.
        _LOGGER.error("the output is not pruned, which is tried again later: %s", one_line(error))
        return
    deleted = sum(tally.gone for name, tally in pruning.tallies.items() if name != ALERTS)
    shortened = pruning.tallies[ALERTS].gone if ALERTS in pruning.tallies else 0
    if deleted or shortened:
        _LOGGER.warning("pruned: %d files deleted, %d alerts shortened", deleted, shortened)
    for uri, why in pruning.problems[:1]:
        number = len(pruning.problems)
        _LOGGER.error("%d files could not be pruned, such as %s: %s", number, uri, why)
