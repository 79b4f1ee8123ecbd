"""The commands ``alerts list``, ``alerts resend``, ``alerts test`` and ``alerts mark``."""

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
        description="Lists the undelivered alerts in the order of their capture times, with the "
        "reason and the marks of each.",
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
        _add_output(command)
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
    _add_mark(
        commands.add_parser(
            "mark",
            help="say of an alert whether it is right",
            description="Records what you say of an alert: that it is right, false, or that you "
            "are unsure. Of an image it records a threat that was missed: something was there, and "
            "no alert. The newest mark of each person stands, for each label. The marks are the "
            "truth for `evaluate` and `tune`.",
            allow_abbrev=False,
        )
    )
    return parser


def _add_mark(parser: OneLineParser) -> None:
    parser.add_argument(
        "what",
        metavar="ALERT_ID",
        help="the id of the alert, or the name of an image, such as hall_20260131T235959Z.jpg",
    )
    parser.add_argument(
        "mark",
        choices=("right", "false", "unsure", "missed"),
        help="right: the alert is for a real threat; false: it is not; unsure: neither can be "
        "said, which also takes an earlier mark back; missed: the image shows a threat of the "
        "label --label, and the alert does not name it, or there was none",
    )
    parser.add_argument(
        "--label",
        metavar="LABEL",
        help="the label that the mark is about (default: the alert as a whole)",
    )
    parser.add_argument(
        "--bbox",
        action="append",
        default=[],
        dest="bboxes",
        metavar="X,Y,W,H",
        help="with missed: where it is, as fractions of the image from its top left corner, such "
        "as 0.1,0.2,0.05,0.3; may be given several times",
    )
    parser.add_argument(
        "--note",
        default="",
        metavar="TEXT",
        help="what else there is to say: at most 1000 characters",
    )
    parser.add_argument(
        "--by", metavar="NAME", help="who marks (default: the name of this user on this machine)"
    )
    parser.add_argument(
        "--id",
        metavar="ID",
        help="the camera of the alert, which spares a store from listing all alerts",
    )
    _add_output(parser)
    add_labels(parser)


def _add_output(parser: OneLineParser) -> None:
    parser.add_argument(
        "--output",
        "--archive",
        metavar="DIR",
        default=DEFAULT_OUTPUT,
        help="the job's output (default: %(default)s)",
    )


def main(words: Sequence[str]) -> int:
    """Runs a command; returns the exit code."""
    parsed = parse(parser(), words)
    if parsed.command == "test":
        from beam_pipeline.fleet.trial_messages import send_test_messages  # Slow, as below.

        return send_test_messages(parsed)
    if parsed.command == "mark":
        from beam_pipeline.fleet.marking import mark  # Slow, as below.

        return mark(parsed)
    from beam_pipeline.fleet.waiting_alerts import list_or_resend  # Slow: it reads stores.

    return list_or_resend(parsed)
