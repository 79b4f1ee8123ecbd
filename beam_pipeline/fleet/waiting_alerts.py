"""The commands `alerts list` and `alerts resend`: what waits in `alerts/_undelivered/`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tqdm import tqdm

import rules
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.console.tables import align
from beam_pipeline.fleet.marking import all_words
from beam_pipeline.inputs.preflight import check_output
from beam_pipeline.inputs.rule_files import read_rules, target_errors_as_setup_errors
from transforms.alerting.alerts import is_too_old
from transforms.alerting.delivery import AlertDispatcher, RetryPolicy, former_names
from transforms.alerting.ledger import FAILED, Ledger, Outcome, WaitingAlert, read_waiting_alert
from transforms.alerting.target_checks import check_alert_urls, check_console, check_targets
from transforms.alerting.target_clients import named_urls
from transforms.records.text import one_line
from transforms.runtime.live_rules import LiveRules
from transforms.storage.marks import Mark, by_alert, read_marks, standing

_READERS = 16
_NOTHING_WAITS = "nothing waits"
_NOT_TRIED = "not tried: neither --rules nor --alert_url names this target"


def list_or_resend(args: argparse.Namespace) -> int:
    """Runs a command; returns the exit code.

    Raises:
      SetupError: The set-up is wrong; nothing was sent.
    """
    check_output(args.output)
    if args.command == "list":
        waiting, broken = _read(args.output, args.target)
        marks, problems = _marks(args.output) if waiting else ({}, [])
        _print_waiting(waiting, marks)
        return _print_broken([*broken, *problems])
    return _resend(args)


def _marks(output: str) -> tuple[dict[str, list[Mark]], list[str]]:
    """Returns the marks that stand by their alerts, and a line for each file that is none."""
    try:
        marks, problems = read_marks(output)
    except OSError as error:
        return {}, [f"the marks can't be read: {one_line(error)}"]
    return by_alert(standing(marks)), [f"{uri}: {why}" for uri, why in problems]


def _read(
    output: str, target: str | None, urls: Sequence[str] = ()
) -> tuple[list[WaitingAlert], list[str]]:
    """Returns what waits, in the order of time; and a line for each file that is none of it."""

    def read(uri: str) -> WaitingAlert | str:
        try:
            waits = read_waiting_alert(uri)
            return replace(waits, target=ledger.current_name(waits.target))
        except Exception as error:  # Each store's client has its own kinds of error.
            return f"{uri}: {one_line(error)}"

    ledger = Ledger(output, former_names(urls))
    try:
        uris = list(ledger.waiting_uris())
    except Exception as error:  # As above.
        raise SetupError(f"--output {output}: can't be listed ({one_line(error)})") from None
    with ThreadPoolExecutor(_READERS) as readers:
        results = list(readers.map(read, uris))
    waiting = [result for result in results if not isinstance(result, str)]
    broken = sorted(result for result in results if isinstance(result, str))
    if target is not None:
        names = sorted({waiting_alert.target for waiting_alert in waiting})
        waiting = [waiting_alert for waiting_alert in waiting if waiting_alert.target == target]
        if not waiting and names:
            raise SetupError(
                f"--target {target}: nothing waits for it; there is something for "
                f"{', '.join(names)}"
            )
    return sorted(
        waiting, key=lambda waiting_alert: (waiting_alert.order, waiting_alert.target)
    ), broken


def _resend(args: argparse.Namespace) -> int:

    with target_errors_as_setup_errors():
        check_alert_urls(args.alert_url, sends_here=True)
    ruleset = (
        rules.parse_rules("version: 1\n", "no rules")
        if args.rules is None
        else read_rules(args.rules, args.labels)
    )
    waiting, broken = _read(args.output, args.target, args.alert_url)
    waiting = [
        waiting_alert
        for waiting_alert in waiting
        if not is_too_old(waiting_alert.alert, args.alert_max_age)
    ]
    names = {waiting_alert.target for waiting_alert in waiting}
    with target_errors_as_setup_errors():
        check_targets(target for name, target in ruleset.alerting.targets.items() if name in names)
        if names:
            check_console(ruleset.alerting.console)
    if args.dry_run:
        _print_waiting(waiting)
        return _print_broken(broken)
    known = {*ruleset.alerting.targets, *named_urls(args.alert_url)}
    dispatcher = AlertDispatcher(
        args.output, LiveRules.of(ruleset), args.alert_url, RetryPolicy(), max_concurrent=1
    )
    outcomes_by_target = _send_each(dispatcher, waiting, known)
    _print_outcomes(outcomes_by_target)
    is_failing = any(
        outcome.outcome != "delivered"
        for outcomes in outcomes_by_target.values()
        for outcome in outcomes
    )
    return max(_print_broken(broken), int(is_failing))


def _send_each(
    dispatcher: AlertDispatcher, waiting: Sequence[WaitingAlert], known: set[str]
) -> dict[str, list[Outcome]]:
    """Sends what waits: one target beside the other, the alerts of each one after the other."""

    alerts_by_target: dict[str, list[WaitingAlert]] = defaultdict(list)
    for waiting_alert in waiting:
        alerts_by_target[waiting_alert.target].append(waiting_alert)

    counts = ", ".join(f"{name} {len(alerts)}" for name, alerts in sorted(alerts_by_target.items()))
    if counts:
        print(f"sending: {counts}", file=sys.stderr, flush=True)
    bar = tqdm(total=len(waiting), unit="alert", leave=False, disable=None)

    def send(name: str) -> list[Outcome]:
        outcomes = []
        for waiting_alert in alerts_by_target[name]:
            bar.update()
            if name not in known:
                outcomes.append(Outcome(name, FAILED, _NOT_TRIED, again_after=0))
                continue
            outcomes += dispatcher.dispatch(waiting_alert.alert, name).result()
            if outcomes[-1].outcome == "delivered":
                dispatcher.ledger.remove_waiting(waiting_alert.alert, name)
        return outcomes

    with bar, ThreadPoolExecutor(max(len(alerts_by_target), 1)) as targets:
        return dict(zip(alerts_by_target, targets.map(send, alerts_by_target), strict=True))


def _print_waiting(
    waiting: Sequence[WaitingAlert], marks: Mapping[str, Sequence[Mark]] | None = None
) -> None:
    """Prints what waits; with a column of marks, if marks are given."""
    rows = [
        (
            waiting_alert.alert.body["timestamp"],
            waiting_alert.target,
            waiting_alert.alert.body["id"] or "(digest)",
            waiting_alert.alert.alert_id,
            *(() if marks is None else (all_words(marks.get(waiting_alert.alert.alert_id, ())),)),
            waiting_alert.detail,
        )
        for waiting_alert in waiting
    ]
    if not rows:
        print(_NOTHING_WAITS)
        return
    mark = () if marks is None else ("mark",)
    print(_table(("when", "target", "id", "alert", *mark, "why it waits"), *rows))
    print(f"{len(rows)} wait{'s' if len(rows) == 1 else ''}")


def _print_outcomes(outcomes_by_target: dict[str, list[Outcome]]) -> None:
    rows = []
    for name, outcomes in sorted(outcomes_by_target.items()):
        missing = [outcome for outcome in outcomes if outcome.outcome != "delivered"]
        refused = [outcome for outcome in missing if outcome.again_after is None]
        reasons = Counter(outcome.detail for outcome in missing)
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
        print(_NOTHING_WAITS)
        return
    print(_table(("target", "delivered", "still failing", "refused", "why"), *rows))


def _table(*rows: Sequence[str]) -> str:
    return "\n".join(align(rows, left=len(rows[0])))


def _print_broken(broken: Sequence[str]) -> int:
    for problem in broken:
        print(f"beam_pipeline: skipped: {problem}", file=sys.stderr)
    return 1 if broken else 0
