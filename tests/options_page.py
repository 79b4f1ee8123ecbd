"""Writes docs/options.md: every option of every command, from the parsers of the command line.

`make docs`, or `python -m tests.options_page`. `tests/test_docs.py` holds that the page is up to
date.
"""

from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path

from beam_pipeline import cli

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
INTRODUCTION = """\
# Options

This page is made from the parsers of the command line by `make docs`; do not edit it by hand.
`python -m beam_pipeline COMMAND --help` prints the same text.

The options of Apache Beam, of its runners and of its stores (`--runner`, `--direct_num_workers`,
`--flink_master`, `--project`, `--s3_endpoint_url` and so on) are accepted in addition to the
options below, as each section says. Beam documents them with
[its runners](https://beam.apache.org/documentation/runners/).
"""
_UNTITLED = {"positional arguments", "optional arguments", "options"}  # By argparse itself.


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Every command that takes options, with its parser."""
    found: dict[str, argparse.ArgumentParser] = {}
    for name in cli.COMMANDS:
        module = importlib.import_module(f"beam_pipeline.commands.{name}")
        parser = module.parser()
        inner = {
            f"{name} {subcommand}": subparser
            for action in parser._actions
            if isinstance(action, argparse._SubParsersAction)
            for subcommand, subparser in action.choices.items()
        }
        found |= inner or {name: parser}
        found |= getattr(module, "further_parsers", dict)()
    return found


def options_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The options and arguments of a parser, without `--help`."""
    return [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]


def _invocation(action: argparse.Action) -> str:
    formatter = argparse.HelpFormatter("", width=1000)
    metavar = formatter._format_args(action, action.dest)
    return " ".join([*action.option_strings[:1], metavar]).strip()


def _cell(text: str) -> str:
    """Text as it can stand in a cell of a table."""
    return re.sub(r"(\S*<\w+>[^\s:,;]*)", r"`\1`", text).replace("|", "\\|").replace("*", "\\*")


def _rows(parser: argparse.ArgumentParser, actions: list[argparse.Action]) -> list[str]:
    """A table of options; none where there are no options."""
    formatter = parser._get_formatter()
    rows = []
    for action in actions:
        text = formatter._expand_help(action) if action.help else ""
        invocation = _invocation(action).replace("|", "\\|")
        required = "required; " if action.required and action.option_strings else ""
        rows.append(f"| `{invocation}` | {required}{_cell(text)} |")
    return ["| option | meaning |", "|---|---|", *rows, ""] if rows else []


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    lines = [f"## {name}", "", parser.description or "", ""]
    options = options_of(parser)
    titled = [group for group in parser._action_groups if group.title not in _UNTITLED]
    inside = {id(action) for group in titled for action in group._group_actions}
    lines += _rows(parser, [action for action in options if id(action) not in inside])
    for group in titled:
        title = group.title or ""
        lines += [f"### {title[:1].upper()}{title[1:]}", ""]
        lines += _rows(parser, group._group_actions)
    return "\n".join([*lines, (parser.epilog or "").strip(), ""])


def page() -> str:
    """The text of docs/options.md."""
    sections = [_section(name, parser) for name, parser in parsers().items()]
    text = "\n".join([INTRODUCTION, *sections])
    return re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
