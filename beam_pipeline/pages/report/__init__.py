"""The command ``report``: the whole fleet on one page of HTML, for a period.

beam_pipeline/pages/report/gathering.py    what the page shows, read from an output
beam_pipeline/pages/report/incidents.py    alerts grouped to incidents
beam_pipeline/pages/report/page.py         the page made of it; page.html, page.css and page.js
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace

from apache_beam.io.filesystem import BeamIOError

from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.fleet import counts
from beam_pipeline.fleet.output_scan import CountsError, NoValidImageError, OutputScan
from beam_pipeline.inputs import paths, selection
from beam_pipeline.inputs.preflight import check_arguments
from beam_pipeline.inputs.rule_files import read_rules
from beam_pipeline.pages.report.gathering import ReportOptions, gather
from beam_pipeline.pages.report.page import make_page
from transforms.storage import stores


def print_report(parsed: argparse.Namespace) -> int:
    """Writes the page, and prints where it is.

    Raises:
      CountsError, SetupError: What a person must correct, in one line.
    """
    check_arguments(parsed.outputs, rules=parsed.rules, labels=parsed.labels)
    if parsed.report_period_hours is not None and (parsed.since or parsed.until):
        raise SetupError(
            "--report_period_hours: the period is given by --since and --until already; leave one "
            "of the two out"
        )
    since, until = (
        selection.time_option(f"--{name}", getattr(parsed, name)) for name in ("since", "until")
    )
    if since is not None and until is not None and since >= until:
        raise SetupError("--until: the period is empty, as it ends before it begins")
    ruleset = None
    if parsed.rules is not None:
        ruleset = read_rules(parsed.rules, parsed.labels)
    hours = 24 if parsed.report_period_hours is None else parsed.report_period_hours
    if not 0 < hours <= 1_000_000:  # False for NaN too.
        raise SetupError("--report_period_hours: must be above 0 and at most 1000000")
    scan = OutputScan(counts.named_outputs(parsed))
    if parsed.file is not None:
        paths.writable_file("--file", parsed.file)
    options = ReportOptions(hours, since, until, ruleset)
    try:
        target = write_report(scan, options, file=parsed.file)
    except NoValidImageError as error:
        print(error, file=sys.stderr)
        target = write_report(scan, replace(options, missing_ok=True), file=parsed.file)
    print(target)
    return 0


def write_report(
    scan: OutputScan,
    options: ReportOptions | None = None,
    *,
    file: str | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> str:
    """Writes the page of one output or several, and returns where.

    Args:
      scan: The output, or several.
      options: What the report is about; by default the day up to the fleet's end.
      file: Where to write it; None for ``<output>/report/report.html`` of a single output.
      is_wanted: Is asked before the page is written; False leaves it out.

    Raises:
      CountsError: No counts, wrong counts, several outputs and no `file`, or the page or a folder
        can't be written or listed.
    """
    if file is None and len(scan.outputs) > 1:
        raise CountsError(
            "--file is missing: the report of several outputs belongs to none of them"
        )
    target = stores.report_uri(scan.outputs[0]) if file is None else file
    try:
        fleet = gather(scan, options or ReportOptions())
        page = make_page(fleet).encode()
        if is_wanted():
            stores.write_bytes(target, page)
    except (BeamIOError, OSError) as error:
        raise CountsError(f"cannot write the report: {' '.join(str(error).split())}") from error
    return target
