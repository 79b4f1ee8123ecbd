"""The command ``report``: the whole fleet on one page of HTML, for a period.

    beam_pipeline/report/gathering.py    what there is to tell, read from an output
    beam_pipeline/report/page.py         the page made of it; page.html, page.css and page.js

Apache Beam, matplotlib and Pillow are imported only where they are used, so that ``--help`` is
quick.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from beam_pipeline import archive_job, counts
from beam_pipeline.counts import CountsError
from beam_pipeline.errors import SetupError
from beam_pipeline.options import add_labels

if TYPE_CHECKING:
    import rules


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    counts.add_output_argument(parser)
    parser.add_argument(
        "--report_period_hours",
        type=float,
        metavar="HOURS",
        help="length of the period, which ends with the newest window (default: 24)",
    )
    counts.add_period_arguments(parser)
    parser.add_argument(
        "--file",
        metavar="PATH",
        help="where to write it (default: report/report.html in DIR, if that is one output)",
    )
    parser.add_argument(
        "--rules",
        metavar="FILE",
        help="the rule file, here or in a store: cameras that it names and that sent nothing are "
        "told of",
    )
    add_labels(parser)


def main(parsed: argparse.Namespace) -> int:
    """Writes the page that is asked for, and prints where it is.

    Raises:
      CountsError, SetupError: What a person must put right, in one line.
    """
    if parsed.report_period_hours is not None and (parsed.since or parsed.until):
        raise SetupError(
            "--report_period_hours: the period is given by --since and --until already; leave one "
            "of the two out"
        )
    since, until = (
        archive_job.moment(f"--{name}", getattr(parsed, name)) for name in ("since", "until")
    )
    if since is not None and until is not None and since >= until:
        raise SetupError("--until: the period is empty, as it ends before it begins")
    by = None
    if parsed.rules is not None:
        from beam_pipeline.job import read_rules

        by = read_rules(parsed.rules, parsed.labels)
    hours = 24 if parsed.report_period_hours is None else parsed.report_period_hours
    if not 0 < hours <= 1_000_000:  # False for NaN too.
        raise SetupError("--report_period_hours: must be above 0 and at most 1000000")
    outputs = counts.named_outputs(parsed)
    if parsed.file is not None:
        archive_job.writable_file("--file", parsed.file)
    print(
        write_report(outputs, period_hours=hours, since=since, until=until, by=by, file=parsed.file)
    )
    return 0


def write_report(
    outputs: Sequence[str],
    *,
    period_hours: float = 24,
    since: datetime | None = None,
    until: datetime | None = None,
    by: rules.Rules | None = None,
    file: str | None = None,
    missing_ok: bool = False,
    each_picture: bool = True,
) -> str:
    """Writes the page of one output or several; where.

    Args:
      outputs: The job's output directories, on any filesystem that Beam knows.
      period_hours: Length of the period up to the newest window, without the next two.
      since: First moment of the period (UTC).
      until: First moment after it.
      by: The rules, for what they say of cameras that never sent.
      file: Where to write it; None for ``<output>/report/report.html`` of a single output.
      missing_ok: Whether an output without counts, as of a job without a valid image, has a page.
      each_picture: Whether to read what was detected in each picture, to find blind cameras.

    Raises:
      CountsError: No counts, wrong counts, several outputs and no `file`, or the page or a folder
        can't be written or listed.
    """
    from apache_beam.io.filesystem import BeamIOError

    from beam_pipeline.report.gathering import gather
    from beam_pipeline.report.page import make_page
    from transforms import stores

    if file is None and len(outputs) > 1:
        raise CountsError("--file is missing: the report of several outputs is none of theirs")
    target = stores.join(outputs[0], "report", "report.html") if file is None else file
    try:
        fleet = gather(
            outputs,
            period_hours=period_hours,
            since=since,
            until=until,
            by=by,
            missing_ok=missing_ok,
            each_picture=each_picture,
        )
        stores.write_bytes(target, make_page(fleet).encode())
    except (BeamIOError, OSError) as error:
        raise CountsError(f"cannot write the report: {' '.join(str(error).split())}") from error
    return target
