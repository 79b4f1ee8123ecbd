"""`python -m beam_pipeline`, and `beam-threats` where the package is installed: see `--help`."""

# ruff: noqa: E402 - a signal that comes during the imports is handled too.
from beam_pipeline.console import ending

ending.install()

import sys

from beam_pipeline.cli import main


def run() -> int:
    """Runs the command line; returns the exit code."""
    ending.tolerate_closed_readers()
    return ending.flush_stdout(main())


if __name__ == "__main__":
    sys.exit(run())
