"""Writes the report of a stream anew at regular times.

The program that has started the stream does it, beside the workers, for as long as it waits for
the stream. What fails is logged and tried again the next time; it never stops the stream.
"""

from __future__ import annotations

import logging
import threading
from contextlib import AbstractContextManager

from beam_pipeline.fleet.output_scan import Kept, OutputScan
from beam_pipeline.job.background import in_background
from beam_pipeline.pages.report import write_report
from beam_pipeline.pages.report.gathering import MOST_PAST_ROWS, ReportOptions
from transforms.records.text import one_line
from transforms.runtime.live_rules import LiveRules

_LOGGER = logging.getLogger(__name__)


def reported_regularly(
    output: str, ruleset: LiveRules, *, period_hours: float, seconds_between: float
) -> AbstractContextManager[None]:
    """Returns a context in which the report of an output is written again and again.

    Counts and records that have not changed since the last report are not read again. Between two
    reports, only these counts and records are in memory. A report that is not done when the block
    ends is not written, so that it does not replace a later one.

    Args:
      output: The job's output.
      ruleset: The rules, which may be edited while the stream runs.
      period_hours: The length of the report's period in hours.
      seconds_between: The seconds between the end of one report and the beginning of the next;
        infinite for none.
    """

    def report(kept: Kept | None, ended: threading.Event) -> Kept:
        scan = OutputScan(output, kept)
        options = ReportOptions(
            period_hours=period_hours,
            ruleset=ruleset.current,
            missing_ok=True,
            each_image=False,  # As in the report at a job's end.
            past_rows=MOST_PAST_ROWS,
        )
        try:
            write_report(scan, options, is_wanted=lambda: not ended.is_set())
        except Exception as error:  # Whatever is wrong with the output, the stream goes on.
            _LOGGER.error("no report, which is tried again later: %s", one_line(error))
        return scan.kept()

    def report_until(ended: threading.Event) -> None:
        kept: Kept | None = None
        while not ended.wait(min(seconds_between, threading.TIMEOUT_MAX)):
            kept = report(kept, ended)

    return in_background("report", report_until)
