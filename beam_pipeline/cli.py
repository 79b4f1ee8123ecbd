"""The command line: picks the command and runs it."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata

from beam_pipeline.console import notes
from beam_pipeline.console.exceptions import CommandError, SetupError

COMMANDS = (
    *("run", "counts", "chart", "report", "rules", "backtest", "pack", "export"),
    *("evaluate", "tune", "health", "alerts", "marks", "prune", "names", "serve"),
)
"""Each is a module of :mod:`beam_pipeline.commands`; only the chosen one is imported."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _hide_library_notes()
    if words == ["--version"]:
        print(f"beam-threats {_version()}")
        return 0
    try:
        name, rest = _chosen(words)
        command = importlib.import_module(f"beam_pipeline.commands.{name}")
        code: int = command.main(rest)
        return code
    except CommandError as error:
        print(f"beam_pipeline: {error}", file=sys.stderr)
        return error.exit_code


def _chosen(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Returns the command, and its arguments."""
    if not words or words[0].startswith("-"):
        return "run", words
    if words[0] not in COMMANDS:
        raise SetupError(
            f"no such command: {words[0]}; there are {', '.join(COMMANDS)} (see --help)"
        )
    return words[0], words[1:]


def _version() -> str:
    """Returns the installed version, with those of what decides most of what it does."""
    beam, tensorflow = (metadata.version(name) for name in ("apache-beam", "tensorflow"))
    python = sys.version.partition(" ")[0]
    return (
        f"{metadata.version('beam-threat-detection')} "
        f"(Python {python}, Apache Beam {beam}, TensorFlow {tensorflow})"
    )


def _hide_library_notes() -> None:
    """Drops libraries' notes: about optional parts that the job does not use, their failures."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")
    notes.install()
