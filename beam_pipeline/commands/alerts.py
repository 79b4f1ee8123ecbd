"""The commands ``alerts list``, ``alerts resend`` and ``alerts test``."""

from __future__ import annotations

from collections.abc import Sequence

from beam_pipeline.commands.arguments import command_parser, parse
from beam_pipeline.console.parsing import (
    DEFAULT_OUTPUT,
    OneLineParser,
    add_alert_url,
    add_labels,
    max_age,
)


def parser() -> OneLineParser:
    """Returns the commands' parser."""
    parser = command_parser("alerts")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=OneLineParser)
    show = commands.add_parser(
        "list",
        help="list the undelivered alerts",
        description="Lists the undelivered alerts in the order of their capture times, and the "
        "reason of each.",
        allow_abbrev=False,
    )
    resend = commands.add_parser(
        "resend",
        help="send the undelivered alerts",
        description="Sends the undelivered alerts again, for each target in the order of their "
        "capture times, and prints the outcome. Alerts that were delivered meanwhile are not sent "
        "again. Exit code 1: some alerts are still undelivered.",
        allow_abbrev=False,
    )
    for command in (show, resend):
        command.add_argument(
            "--output",
            metavar="DIR",
            default=DEFAULT_OUTPUT,
            help="the job's output (default: %(default)s)",
        )
        command.add_argument(
            "--target",
            metavar="NAME",
            help="only alerts for this target, by its name in the rule file or in the list",
        )
    resend.add_argument(
        "--rules", metavar="FILE", help="the rule file with the addresses of the targets"
    )
    add_labels(resend)
    add_alert_url(resend)
    resend.add_argument(
        "--alert_max_age",
        type=max_age,
        metavar="DURATION",
        help="skip alerts of images older than this, such as 24h or 7d (default: off)",
    )
    resend.add_argument("--dry_run", action="store_true", help="only print what would be sent")
    test = commands.add_parser(
        "test",
        help="send a test message",
        description="Sends a test message with a sample picture to targets, once, and prints what "
        "each service answered. Exit code 0: all of them accepted it. Exit code 1: one did not.",
        allow_abbrev=False,
    )
    test.add_argument(
        "--target",
        metavar="NAME",
        action="append",
        default=[],
        dest="targets",
        help="a target of the rule file, by its name; may be given several times",
    )
    test.add_argument(
        "--rules",
        metavar="FILE",
        help="the rule file with the targets and the templates of messages",
    )
    add_labels(test)
    add_alert_url(test)
    return parser


def main(words: Sequence[str]) -> int:
    """Runs a command; returns the exit code."""
    parsed = parse(parser(), words)
    if parsed.command == "test":
        from beam_pipeline.fleet.trial_messages import send_test_messages  # Slow, as below.

        return send_test_messages(parsed)
    from beam_pipeline.fleet.waiting_alerts import list_or_resend  # Slow: it reads stores.

    return list_or_resend(parsed)
