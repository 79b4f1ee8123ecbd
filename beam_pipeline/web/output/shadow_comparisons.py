"""What the records of shadow rules say, compared once for all who look at them."""

from __future__ import annotations

import threading
from collections import OrderedDict

from beam_pipeline.evaluation.mark_facts import facts_of
from beam_pipeline.evaluation.shadow import Comparison, compare_alerts
from beam_pipeline.web.output.index import Index

_KEPT = 4


class ShadowComparisons:
    """Compares the alerts of the rules with those of the shadow rules, once after each change."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int, str | None], Comparison] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, index: Index, change: int, version: str | None) -> Comparison:
        """Returns the comparison.

        Args:
          index: The index of the output.
          change: The number of the last change of what the index holds.
          version: The version of the shadow rules; None for that of the newest record.
        """
        with self._lock:
            newest = self._compared(index, change, None)
            if version is None:
                return newest
            if version not in newest.versions:  # Nobody makes work by asking for any number.
                return Comparison(version, newest.versions, (), ())
            return self._compared(index, change, version)

    def _compared(self, index: Index, change: int, version: str | None) -> Comparison:
        key = change, index.generation, version
        if key not in self._kept:
            marks = facts_of(index.all_marks())
            self._kept[key] = compare_alerts(index.shadow_alerts(), marks, version)
        self._kept.move_to_end(key)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]
