"""The commands `alerts list` and `alerts resend`: what waits in `alerts/undelivered/`.

Apache Beam is imported only by the functions that touch a store, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from beam_pipeline.errors import SetupError
from beam_pipeline.options import (
    DEFAULT_OUTPUT,
    OneLineParser,
    add_alert_url,
    add_labels,
    max_age,
)
from beam_pipeline.tables import aligned

if TYPE_CHECKING:
    from transforms.delivery import PostOffice
    from transforms.ledger import Letter, Outcome

_READERS = 16
_NOT_TRIED = "not tried: neither --rules nor --alert_url names this target"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the commands, each with its options."""
    commands = parser.add_subparsers(dest="command", required=True, parser_class=OneLineParser)
    show = commands.add_parser(
        "list",
        help="show which alerts wait to be sent again",
        description="Shows the alerts that no try has delivered, in the order of time, and why.",
        allow_abbrev=False,
    )
    resend = commands.add_parser(
        "resend",
        help="send the alerts that wait",
        description="Sends the alerts that no try has delivered, each target's in the order of "
        "time, and says what came of it. What was delivered meanwhile is not sent again. Exit "
        "code 1: some still wait.",
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
            help="only those for this target, by its name in the rule file or in the list",
        )
    resend.add_argument(
        "--rules", metavar="FILE", help="the rule file, which names the targets' addresses"
    )
    add_labels(resend)
    add_alert_url(resend)
    resend.add_argument(
        "--alert_max_age",
        type=max_age,
        metavar="DURATION",
        help="leave alerts of pictures older than this, such as 24h or 7d, where they are "
        "(default: off)",
    )
    resend.add_argument("--dry_run", action="store_true", help="only say what would be sent")


def main(args: argparse.Namespace) -> int:
    """Runs a command; its exit code.

    Raises:
      SetupError: The set-up is wrong; nothing was sent.
    """
    if args.command == "list":
        letters, broken = _read(args.output, args.target)
        _print_letters(letters)
        return _tell_broken(broken)
    return _resend(args)


def _read(output: str, target: str | None) -> tuple[list[Letter], list[str]]:
    """What waits, in the order of time; and a line for each file that is none of it."""
    from transforms.ledger import Ledger, read_letter
    from transforms.text import one_line

    def read(uri: str) -> Letter | str:
        try:
            return read_letter(uri)
        except Exception as error:  # Each store's client has its own kinds of error.
            return f"{uri}: {one_line(error)}"

    try:
        uris = list(Ledger(output).waiting())
    except Exception as error:  # As above.
        raise SetupError(f"--output {output}: can't be listed ({one_line(error)})") from None
    with ThreadPoolExecutor(_READERS) as readers:
        found = list(readers.map(read, uris))
    letters = [one for one in found if not isinstance(one, str)]
    broken = sorted(one for one in found if isinstance(one, str))
    if target is not None:
        names = sorted({letter.target for letter in letters})
        letters = [letter for letter in letters if letter.target == target]
        if not letters and names:
            raise SetupError(
                f"--target {target}: nothing waits for it; there is something for "
                f"{', '.join(names)}"
            )
    return sorted(letters, key=lambda one: (one.order, one.target)), broken


def _resend(args: argparse.Namespace) -> int:
    import rules
    from beam_pipeline.job import check_targets, read_rules
    from transforms.alerts import is_too_old
    from transforms.couriers import check_url, target_name
    from transforms.delivery import PostOffice, RetryPolicy
    from transforms.live_rules import LiveRules

    for url in args.alert_url:
        try:
            check_url(url)
        except ValueError as error:
            raise SetupError(f"--alert_url: {error}") from None
    by = (
        rules.parse_rules("version: 1\n", "no rules")
        if args.rules is None
        else read_rules(args.rules, args.labels)
    )
    letters, broken = _read(args.output, args.target)
    letters = [one for one in letters if not is_too_old(one.alert, args.alert_max_age)]
    names = {letter.target for letter in letters}
    check_targets(target for name, target in by.alerting.targets.items() if name in names)
    if args.dry_run:
        _print_letters(letters)
        return _tell_broken(broken)
    known = {*by.alerting.targets, *map(target_name, args.alert_url)}
    office = PostOffice(args.output, LiveRules.of(by), args.alert_url, RetryPolicy(), at_once=1)
    came = _send_each(office, letters, known)
    _print_outcomes(came)
    still = any(one.outcome != "delivered" for outcomes in came.values() for one in outcomes)
    return max(_tell_broken(broken), int(still))


def _send_each(
    office: PostOffice, letters: Sequence[Letter], known: set[str]
) -> dict[str, list[Outcome]]:
    """Sends what waits: one target beside the other, the alerts of each one after the other."""
    from tqdm import tqdm

    from transforms.ledger import FAILED, Outcome

    of_target: dict[str, list[Letter]] = defaultdict(list)
    for letter in letters:
        of_target[letter.target].append(letter)

    waiting = ", ".join(f"{name} {len(letters)}" for name, letters in sorted(of_target.items()))
    if waiting:
        print(f"sending: {waiting}", file=sys.stderr, flush=True)
    bar = tqdm(total=len(letters), unit="alert", leave=False, disable=None)

    def send(name: str) -> list[Outcome]:
        came = []
        for letter in of_target[name]:
            bar.update()
            if name not in known:
                came.append(Outcome(name, FAILED, _NOT_TRIED, again_after=0))
                continue
            came += office.post(letter.alert, name).result()
            if came[-1].outcome == "delivered":
                office.ledger.forget(letter.alert, name)
        return came

    with bar, ThreadPoolExecutor(max(len(of_target), 1)) as targets:
        return dict(zip(of_target, targets.map(send, of_target), strict=True))


def _print_letters(letters: Sequence[Letter]) -> None:
    rows = [
        (
            one.alert.body["timestamp"],
            one.target,
            one.alert.body["id"] or "(digest)",
            one.alert.alert_id,
            one.detail,
        )
        for one in letters
    ]
    if rows:
        print(_table(("when", "target", "id", "alert", "why it waits"), *rows))
    print(f"{len(rows)} wait{'s' if len(rows) == 1 else ''}")


def _print_outcomes(came: dict[str, list[Outcome]]) -> None:
    rows = []
    for name, outcomes in sorted(came.items()):
        missing = [one for one in outcomes if one.outcome != "delivered"]
        refused = [one for one in missing if one.again_after is None]
        reasons = Counter(one.detail for one in missing)
        rows.append(
            (
                name,
                str(len(outcomes) - len(missing)),
                str(len(missing) - len(refused)),
                str(len(refused)),
                ", ".join(f"{reason} ({number})" for reason, number in reasons.most_common()),
            )
        )
    if not rows:
        print("nothing waits")
        return
    print(_table(("target", "delivered", "still failing", "refused", "why"), *rows))


def _table(*rows: Sequence[str]) -> str:
    return "\n".join(aligned(rows, left=len(rows[0])))


def _tell_broken(broken: Sequence[str]) -> int:
    for one in broken:
        print(f"beam_pipeline: passed over: {one}", file=sys.stderr)
    return 1 if broken else 0
