"""How many files the counts of a window are split into, if no option says so."""

from __future__ import annotations

import re

from transforms.storage import stores

_CAMERAS_A_FILE = 5000
_NAME = re.compile(
    r"(?P<window>\d{8}T\d{6}Z_\d{8}T\d{6}Z)(?:-\d+-of-(?P<shards>\d+))?\.jsonl", re.ASCII
)


def choose_count_shards(cameras: int, output: str, *, streaming: bool) -> int:
    """Returns one file for each 5,000 cameras.

    A stream that goes on from a savepoint has sums for each file of its open windows. So a stream
    keeps to the number of files that the newest window in its output has, even if the rule file has
    more cameras now.

    Args:
      cameras: The number of cameras in the rule file.
      output: The job's output.
      streaming: Whether the job is a stream.

    Raises:
      OSError: The output can't be listed.
    """
    if streaming:
        files = (
            (match["window"], file.last_updated_in_seconds, int(match["shards"] or 1))
            for file in stores.list_beneath(stores.join(output, "counts"))
            if (match := _NAME.fullmatch(file.path.rsplit("/", 1)[-1]))
        )
        if (newest := max(files, default=None)) is not None:
            return newest[2]
    return max(1, -(-cameras // _CAMERAS_A_FILE))
