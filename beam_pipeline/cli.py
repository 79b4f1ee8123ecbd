"""The command line: `run` (also without its name), `counts`, `chart`, `report`, `rules check`,
`backtest`, `pack`, `export`, `evaluate`, `tune`, `health`, `alerts`."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence

from beam_pipeline import alerts, backtest, chart, counts, export, health, options, pack, report
from beam_pipeline.archive_job import CommandFailed
from beam_pipeline.errors import SetupError
from beam_pipeline.evaluation import evaluate, tune
from beam_pipeline.options import OneLineParser

_RUN_EPILOG = """\
Every option of Apache Beam can be given too: --runner, --direct_num_workers, --flink_master,
--project, --temp_location and so on (https://beam.apache.org/documentation/runners).

Other commands: counts, chart, report, rules check, backtest, pack, export, evaluate, tune, health,
alerts; each has a --help of its own.
Exit codes: 0 done (invalid images are no failure), 1 the job failed, 2 wrong usage or set-up.
"""


_BEAM_EPILOG = (
    "Every option of Apache Beam can be given too: --runner, --direct_num_workers, --temp_location "
    "and so on."
)
_STORES_EPILOG = (
    "Beam's options for S3 and Google Cloud are taken too: --s3_endpoint_url, --s3_region_name, "
    "--no_auth and so on."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _leave_out_what_no_user_can_act_on()
    command = {
        "run": _run,
        "counts": _counts,
        "chart": _chart,
        "report": _report,
        "rules": _rules,
        "backtest": _backtest,
        "pack": _pack,
        "export": _export,
        "evaluate": _evaluate,
        "tune": _tune,
        "health": _health,
        "alerts": _alerts,
    }
    try:
        if words and words[0] in command:
            return command[words[0]](words[1:])
        if words and not words[0].startswith("-"):
            raise SetupError(
                f"no such command: {words[0]}; there are {', '.join(command)} (see --help)"
            )
        return _run(words)
    except (SetupError, counts.CountsError) as error:
        print(f"beam_pipeline: {error}", file=sys.stderr)
        return 2
    except CommandFailed as error:
        print(f"beam_pipeline: {error}", file=sys.stderr)
        return 1


def _run(arguments: Sequence[str]) -> int:
    parser = OneLineParser(
        prog="python -m beam_pipeline [run]",
        description="Finds threats in the pictures of security cameras: validates each picture, "
        "detects objects in it, judges them by the rules of its camera, sends alerts, and counts "
        "threats per camera in windows of time. Without options it runs on the bundled samples.",
        epilog=_RUN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    options.add_arguments(parser)
    parsed, rest = parser.parse_known_args(arguments)
    own = options.to_options(parsed)
    from beam_pipeline.run import run

    return run(own, rest)


def _leave_out_what_no_user_can_act_on() -> None:
    """Drops libraries' notes: about optional parts that the job does not use, and of waiting."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")
    notes = (
        "crcmod package not found",
        "Resource module is not available",
        "Waiting for grpc channel to be ready",
    )
    logging.getLogger().addFilter(lambda record: not record.getMessage().startswith(notes))


def _parse(parser: OneLineParser, arguments: Sequence[str]) -> argparse.Namespace:
    """A command's own arguments; Beam's options for S3 and Google Cloud are taken beside them."""
    parsed, rest = parser.parse_known_args(arguments)
    if rest:
        from apache_beam.io.filesystems import FileSystems
        from apache_beam.options.pipeline_options import (
            GoogleCloudOptions,
            PipelineOptions,
            S3Options,
        )

        of_stores = OneLineParser(prog=parser.prog, add_help=False, allow_abbrev=False)
        for group in (S3Options, GoogleCloudOptions):
            group._add_argparse_args(of_stores)
        of_stores.parse_args(rest)
        FileSystems.set_options(PipelineOptions(rest))
    return parsed


def _parser(command: str, description: str, epilog: str = _STORES_EPILOG) -> OneLineParser:
    return OneLineParser(
        prog=f"python -m beam_pipeline {command}",
        description=description,
        epilog=epilog,
        allow_abbrev=False,
    )


def _reach(option: str, uri: str, *, is_file: bool = False) -> None:
    if "://" in uri:
        from beam_pipeline.preflight import check_readable

        check_readable(option, uri, is_file=is_file)


def _counts(arguments: Sequence[str]) -> int:
    parser = _parser(
        "counts", "Prints how many images and threats there were, by id and window of time."
    )
    counts.add_arguments(parser)
    parsed = _parse(parser, arguments)
    _reach_outputs(parsed)
    return counts.main(parsed)


def _chart(arguments: Sequence[str]) -> int:
    parser = _parser(
        "chart",
        "Draws the threats per id in the recent period, and marks ids with unusually "
        "many or few for their images.",
    )
    chart.add_arguments(parser)
    parsed = _parse(parser, arguments)
    _reach_outputs(parsed)
    return chart.main(parsed)


def _report(arguments: Sequence[str]) -> int:
    parser = _parser(
        "report",
        "Writes one page of HTML about the whole fleet in a period: cameras, threats, "
        "alerts with their pictures, invalid images, and what is wrong with which camera.",
    )
    report.add_arguments(parser)
    parsed = _parse(parser, arguments)
    _reach_outputs(parsed)
    _reach_files(parsed, "rules", "labels")
    return report.main(parsed)


def _alerts(arguments: Sequence[str]) -> int:
    parser = OneLineParser(
        prog="python -m beam_pipeline alerts", epilog=_STORES_EPILOG, allow_abbrev=False
    )
    alerts.add_arguments(parser)
    parsed = _parse(parser, arguments)
    _reach("--output", parsed.output)
    return alerts.main(parsed)


def _rules(arguments: Sequence[str]) -> int:
    parser = OneLineParser(prog="python -m beam_pipeline rules", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=OneLineParser)
    check = commands.add_parser(
        "check",
        help="say what each camera ends up with",
        description="Checks a rule file and says what each camera ends up with, and where each "
        "value comes from.",
        epilog=_STORES_EPILOG,
        allow_abbrev=False,
    )
    check.add_argument("rules", metavar="FILE", help="the rule file, on any of Beam's filesystems")
    explain = commands.add_parser(
        "explain",
        help="say what holds for one camera, and why a picture was or was no threat",
        description="Says what a camera's rules are and where each value comes from; with a file "
        "of final/, why there was or was no alert.",
        epilog=_STORES_EPILOG,
        allow_abbrev=False,
    )
    explain.add_argument("id", metavar="ID", help="the camera")
    explain.add_argument("file", metavar="FILE", nargs="?", help="a picture's JSON in final/")
    explain.add_argument(
        "--rules",
        metavar="FILE",
        help="the rule file (default: with a picture's FILE none, otherwise the bundled one)",
    )
    for command in (check, explain):
        options.add_labels(command)
    parsed = _parse(parser, arguments)
    for file in (parsed.rules, getattr(parsed, "file", None)):
        if file is not None:
            _reach(f"rules {parsed.command}", file, is_file=True)
    from beam_pipeline import rule_commands

    if parsed.command == "check":
        print(rule_commands.check(parsed.rules, parsed.labels))
    else:
        print(rule_commands.explain(parsed.id, parsed.file, parsed.rules, parsed.labels), end="")
    return 0


def _backtest(arguments: Sequence[str]) -> int:
    parser = _parser(
        "backtest",
        "Judges every picture of an archive by other rules, without the model and "
        "without sending anything, and says which alerts would have been gained and lost.",
        epilog=_BEAM_EPILOG,
    )
    backtest.add_arguments(parser)
    return backtest.main(*parser.parse_known_args(arguments))


def _pack(arguments: Sequence[str]) -> int:
    parser = _parser(
        "pack",
        "Writes an archive as Parquet, a file a camera, which backtest and other "
        "tools read many times as fast as a JSON a picture.",
        epilog=_BEAM_EPILOG,
    )
    pack.add_arguments(parser)
    return pack.main(*parser.parse_known_args(arguments))


def _export(arguments: Sequence[str]) -> int:
    parser = _parser(
        "export",
        "Writes what was detected as one JSON file in MegaDetector's format 1.6, for "
        "review tools that read it.",
    )
    export.add_arguments(parser)
    return export.main(_parse(parser, arguments))


def _evaluate(arguments: Sequence[str]) -> int:
    parser = _parser(
        "evaluate",
        "Measures the alerts of an archive against what is known to be in its "
        "pictures: precision, recall and false alerts per camera and day, by camera, label and "
        "rule.",
    )
    evaluate.add_arguments(parser)
    parsed = _parse(parser, arguments)
    _reach_files(parsed, "truth", "rules", "labels")
    return evaluate.main(parsed)


def _tune(arguments: Sequence[str]) -> int:
    parser = _parser(
        "tune",
        "Proposes min_score, min_area and max_area that keep recall and send the "
        "fewest false alerts, from what is known to be in the pictures of an archive. Writes "
        "nothing unless asked.",
    )
    tune.add_arguments(parser)
    parsed = _parse(parser, arguments)
    _reach_files(parsed, "truth", "rules", "labels")
    return tune.main(parsed)


def _health(arguments: Sequence[str]) -> int:
    parser = _parser(
        "health",
        "Says which cameras are silent or blind, send invalid or misdated pictures, or "
        "show unusually many or few threats, by what is usual for each at these hours.",
    )
    health.add_arguments(parser)
    parsed = _parse(parser, arguments)
    _reach_outputs(parsed)
    _reach_files(parsed, "rules", "labels")
    return health.main(parsed)


def _reach_outputs(parsed: argparse.Namespace) -> None:
    for output in parsed.outputs or ():
        _reach("--output", output)


def _reach_files(parsed: argparse.Namespace, *options: str) -> None:
    for option in options:
        if getattr(parsed, option) is not None:
            _reach(f"--{option}", getattr(parsed, option), is_file=True)
