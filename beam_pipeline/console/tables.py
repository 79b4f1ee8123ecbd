"""Tables for a person at a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1, prose: bool = False) -> list[str]:
    """The lines of a table, two spaces between its columns.

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
                    cell.ljust(width) if place < left else cell.rjust(width)
                    for place, (cell, width) in enumerate(zip(row, widths, strict=False))
                ),
                *row[len(widths) :],
            ]
        ).rstrip()
        for row in rows
    ]
