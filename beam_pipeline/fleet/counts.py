"""The command ``counts``: the windowed counts that jobs have written, as a table, CSV or JSON.

Where the images were shared out to several jobs, each with an output of its own, their rows are
added up.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from beam_pipeline.console.tables import align, write_stdout
from beam_pipeline.fleet.output_scan import CountsError, OutputScan, find_outputs
from beam_pipeline.inputs.preflight import check_arguments
from rules import is_camera_id
from rules.text import escaped, number_of, shortened
from transforms.records.count_rows import KEYS, TOTAL_ID, CountRow, sum_by_id, sum_total
from transforms.records.times import canonical_time, parse_time

# Printing


def format_table(rows: Sequence[CountRow]) -> str:
    """Returns the rows for a person: aligned, with thousands separators and a totals line."""
    if not rows:
        return "No counts in this period.\n"
    header = (
        "id",
        "from (UTC)",
        "to (UTC)",
        "images",
        "with threat",
        "threats",
        "alerts",
        "threats by label",
    )
    lines = [header, *(_table_cells(row) for row in rows)]
    if rows[0].id != TOTAL_ID:
        (total,) = sum_total(rows)
        lines.append(_table_cells(total))
    lines = [(("total" if line[0] == TOTAL_ID else line[0]), *line[1:]) for line in lines]
    text = align(lines, left=3, prose=True)
    rule = "-" * max(map(len, text))
    text.insert(1, rule)
    if rows[0].id != TOTAL_ID:
        text.insert(-1, rule)
    return "".join(f"{line}\n" for line in text)


def _table_cells(row: CountRow) -> tuple[str, ...]:
    labels = sorted(row.by_label.items(), key=lambda item: (-item[1], item[0]))
    return (
        row.id,
        canonical_time(row.window_start),
        canonical_time(row.window_end),
        f"{row.images:,}",
        f"{row.threat_images:,}",
        f"{row.threats:,}",
        f"{row.alerts:,}",
        ", ".join(f"{escaped(label)} {count:,}" for label, count in labels),
    )


def format_csv(rows: Sequence[CountRow]) -> str:
    """Returns the rows for a spreadsheet: plain numbers, a column ``label:<label>`` for each label.

    Neither an id nor a label's column can begin like a formula (``=``, ``+``, ``-``, ``@``).
    """
    labels = sorted({label for row in rows for label in row.by_label})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*KEYS[:-1], *(f"label:{escaped(label)}" for label in labels)])
    for row in rows:
        values = row.to_json()
        writer.writerow(
            [
                *(values[key] for key in KEYS[:-1]),
                *(row.by_label.get(label, 0) for label in labels),
            ]
        )
    return text.getvalue()


def format_json(rows: Sequence[CountRow]) -> str:
    """Returns the rows as a JSON list of the objects that the counts files hold, a row a line."""
    # ASCII only: whatever a label holds reaches a terminal as an escape. JSON leaves DEL as it is.
    lines = [json.dumps(row.to_json()).replace("\x7f", "\\u007f") for row in rows]
    return "[" + ",".join(f"\n  {line}" for line in lines) + ("\n]\n" if lines else "]\n")


FORMATS: Mapping[str, Callable[[Sequence[CountRow]], str]] = {
    "table": format_table,
    "csv": format_csv,
    "json": format_json,
}
SUMS: Mapping[str, Callable[[Sequence[CountRow]], Sequence[CountRow]]] = {
    "window": lambda rows: rows,
    "id": sum_by_id,
    "total": sum_total,
}


# The command


def named_outputs(args: argparse.Namespace) -> list[str]:
    """Returns the outputs that ``--output`` names (see `find_outputs`).

    Raises:
      CountsError: As `find_outputs`.
    """
    return find_outputs(args.outputs or ["output"])


def print_counts(args: argparse.Namespace) -> int:
    """Prints the counts that the arguments ask for; returns the exit code.

    Raises:
      CountsError: What a person must correct, in one line; nothing has been printed then.
    """
    check_arguments(args.outputs)
    since = _parse_option("--since", args.since)
    until = _parse_option("--until", args.until)

    for id_ in args.ids or ():
        if not is_camera_id(id_):
            raise CountsError(f"--id: not an id: {shortened(repr(id_))}")
    scan = OutputScan(named_outputs(args))
    late = scan.late(since=since, until=until, ids=args.ids)
    if args.late:
        rows = late
    else:
        rows = scan.counts(since=since, until=until, ids=args.ids)
        if late:
            images = sum(row.images for row in late)
            print(
                f"not in these counts: {number_of(images, 'image')} that came too late "
                "(see --late)",
                file=sys.stderr,
            )
    unseen = sorted(set(args.ids or ()) - {row.id for row in rows})
    if unseen:
        print(f"no counts in this period for: {', '.join(unseen)}", file=sys.stderr)
    write_stdout(FORMATS[args.format](SUMS[args.by](rows)))
    return 0


def _parse_option(name: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_time(text)
    except ValueError as error:
        raise CountsError(f"{name}: {error}") from None
