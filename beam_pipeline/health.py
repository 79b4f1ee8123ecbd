"""The command ``health``: which cameras are broken, silent, blind or badly set.

Apache Beam and SciPy are imported only where they are used, so that ``--help`` is quick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import rules
from beam_pipeline import counts, health_statistics
from beam_pipeline.health_statistics import Finding, Observed

HISTORY_DAYS = 56
"""How far back is looked for what is usual of a camera."""


def findings(
    outputs: str | Sequence[str],
    *,
    since: datetime,
    until: datetime,
    by: rules.Rules | None = None,
    expected: Mapping[str, float] | None = None,
) -> list[Finding]:
    """What is wrong with the cameras of one output or several in a period.

    Args:
      outputs: The job's output directory, or several, on any filesystem that Beam knows.
      since: The first moment of the period (UTC).
      until: The first moment after it.
      by: The rule file: cameras that it names and that never sent are silent.
      expected: Pictures an hour that a camera sends at the least.

    Raises:
      CountsError: No counts, or wrong ones.
    """
    observed = Observed(
        counts.read_counts(outputs, until=until),
        named=frozenset() if by is None else frozenset(by.cameras),
        expected=dict(expected or {}),
    )
    return health_statistics.findings(observed, since=since, until=until)
