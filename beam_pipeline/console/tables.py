"""Tables for a person at a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]], *, left: int = 1, prose: bool = False) -> list[str]:
    """Returns the lines of a table, two spaces between its columns.

    Args:
      rows: The cells, as many in each row; the header is one of them.
      left: How many columns, from the first, are set to the left; the others to the right.
      prose: Whether the last column is text, which is as long as it is.
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in (columns[:-1] if prose else columns)]
    return [
        "  ".join(
            [
                *(
                    cell.ljust(width) if column_index < left else cell.rjust(width)
                    for column_index, (cell, width) in enumerate(zip(row, widths, strict=False))
                ),
                *row[len(widths) :],
            ]
        ).rstrip()
        for row in rows
    ]


def write_stdout(text: str) -> None:
    """Prints a text, with escapes for what a terminal lacks; a reader that has gone is no error."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; without this Python complains again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
