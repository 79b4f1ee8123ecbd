"""What the shadow rules would have alerted: records of a job, per camera, and how marks rate them.

The command `rules shadow` prints it, and the console shows it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import rules
from beam_pipeline.console.exceptions import CommandFailedError, SetupError
from beam_pipeline.console.tables import align, write_stdout
from beam_pipeline.evaluation.mark_facts import Facts, Key, facts_of
from beam_pipeline.inputs import paths
from beam_pipeline.inputs.preflight import check_output
from beam_pipeline.inputs.selection import print_problems, store_errors_as_failures, time_option
from rules.text import escaped
from transforms.records.text import one_line
from transforms.records.times import parse_time
from transforms.storage import stores
from transforms.storage.archive import Problem
from transforms.storage.marks import read_marks
from transforms.storage.shadow_alerts import (
    BOTH,
    ONLY_RULES,
    ONLY_SHADOW,
    ShadowAlert,
    is_shadow_name,
    read_shadow_alert,
)

MOVED = "moved"
"""What `Compared.kind` calls an alert for an incident of which the other rule file has one too, of
another image."""

_AT_ONCE = 16
_SHOWN = 20
KINDS: Mapping[str, str] = {
    ONLY_SHADOW: "only by the shadow rules",
    ONLY_RULES: "only by the rules",
    MOVED: "by both, of another image of the incident",
    BOTH: "by both",
}
"""Each kind in words."""


@dataclass(frozen=True)
class Compared:
    """An image of which one rule file or both have an alert.

    Attributes:
      alert: The record.
      kind: One of `KINDS`.
      is_right: Whether marks say that the alert is right; None if they do not say it.
    """

    alert: ShadowAlert
    kind: str
    is_right: bool | None

    @property
    def is_moved_by_shadow(self) -> bool:
        """Whether the alert is that of the shadow rules, and that of the rules is another one."""
        return self.kind == MOVED and self.alert.difference == ONLY_SHADOW


@dataclass
class Numbers:
    """How many alerts there are of one kind.

    Attributes:
      alerts: All of them; of those that are moved, the alerts of the rules.
      right: Those that are marked right.
      false: Those that are marked false.
    """

    alerts: int = 0
    right: int = 0
    false: int = 0

    def add(self, is_right: bool | None) -> None:
        """Counts an alert."""
        self.alerts += 1
        self.right += is_right is True
        self.false += is_right is False


@dataclass
class CameraComparison:
    """The alerts of one camera by both rule files.

    Attributes:
      id: The camera.
      kinds: The numbers of each kind.
    """

    id: str
    kinds: dict[str, Numbers] = field(default_factory=lambda: {kind: Numbers() for kind in KINDS})

    @property
    def by_rules(self) -> int:
        """The alerts of the rules."""
        return sum(self.kinds[kind].alerts for kind in (BOTH, MOVED, ONLY_RULES))

    @property
    def by_shadow(self) -> int:
        """The alerts that the shadow rules would have sent."""
        return sum(self.kinds[kind].alerts for kind in (BOTH, MOVED, ONLY_SHADOW))


@dataclass(frozen=True)
class Comparison:
    """What one version of the shadow rules has said.

    Attributes:
      version: The version; None if there is no record.
      versions: All versions of which there are records, the newest first.
      cameras: The cameras, sorted by id.
      compared: Each image, the newest first.
    """

    version: str | None
    versions: tuple[str, ...]
    cameras: tuple[CameraComparison, ...]
    compared: tuple[Compared, ...]


def versions_of(alerts: Iterable[ShadowAlert]) -> tuple[str, ...]:
    """Returns the versions of the shadow rules in records: that of the newest image first."""
    newest: dict[str, tuple[str, str]] = {}
    for alert in alerts:
        version = alert.shadow.rules_version
        newest[version] = max(newest.get(version, ("", "")), _order(alert))
    return tuple(sorted(newest, key=lambda version: (newest[version], version), reverse=True))


def _order(alert: ShadowAlert) -> tuple[str, str]:
    return parse_time(alert.timestamp).isoformat(timespec="microseconds"), alert.id


def compare_alerts(
    alerts: Sequence[ShadowAlert], facts: Mapping[Key, Facts], version: str | None = None
) -> Comparison:
    """Compares the alerts of both rule files.

    Args:
      alerts: The records.
      facts: What marks say of each image.
      version: The version of the shadow rules; None for that of the newest image.
    """
    versions = versions_of(alerts)
    version = version if version is not None else next(iter(versions), None)
    chosen = [alert for alert in alerts if alert.shadow.rules_version == version]
    by_capture_time: dict[Key, list[ShadowAlert]] = {}
    for alert in chosen:
        by_capture_time.setdefault((alert.id, alert.timestamp), []).append(alert)
    joined = sorted((_joined(some) for some in by_capture_time.values()), key=_order)
    moved = _moved(joined)
    cameras: dict[str, CameraComparison] = {}
    compared = []
    for alert in joined:
        camera = cameras.setdefault(alert.id, CameraComparison(alert.id))
        kind = MOVED if alert.alert_id in moved else alert.difference
        one = Compared(alert, kind, _is_right(alert, facts.get((alert.id, alert.timestamp))))
        if not one.is_moved_by_shadow:
            camera.kinds[kind].add(one.is_right)
        compared.append(one)
    return Comparison(
        version,
        versions,
        tuple(cameras[id] for id in sorted(cameras)),
        tuple(reversed(compared)),
    )


def _joined(alerts: list[ShadowAlert]) -> ShadowAlert:
    """Returns one record for all images of a capture time, which have one alert together."""
    alerts.sort(key=lambda alert: (alert.difference != BOTH, alert.sha256))
    kinds = {alert.difference for alert in alerts}
    if len(kinds) == 1 or BOTH in kinds:
        return alerts[0]
    return replace(alerts[0], difference=BOTH, why=())


def _moved(alerts: Sequence[ShadowAlert]) -> set[str]:
    """Returns the alerts that have a counterpart: one alert of each rule file for one incident.

    One of them is covered by the incident that the other begins, in the eyes of the rule file that
    does not send it.

    Args:
      alerts: The alerts of all cameras, in the order of capture time.
    """
    by_id = {alert.alert_id: alert for alert in alerts}
    moved: set[str] = set()
    for alert in alerts:
        other = alert.shadow if alert.difference == ONLY_RULES else alert.rules
        if alert.difference == BOTH or other.suppressed_by is None or alert.alert_id in moved:
            continue
        begins = by_id.get(other.suppressed_by)
        if begins is None or begins.alert_id in moved:
            continue
        if begins.difference not in (BOTH, alert.difference):
            moved |= {alert.alert_id, begins.alert_id}
    return moved


def _is_right(alert: ShadowAlert, facts: Facts | None) -> bool | None:
    sides = [side for side in (alert.rules, alert.shadow) if side.alerts]
    labels = {
        threat.label for side in sides for threat in side.threats if threat.severity == "alert"
    }
    return None if facts is None else facts.is_right(labels)


def read_shadow_alerts(output: str) -> tuple[list[ShadowAlert], list[Problem]]:
    """Reads all records of an output; returns those that can't be read too, with the reason.

    Raises:
      OSError: The store can't be listed.
    """
    base = stores.shadow_alerts_folder(output)
    uris = sorted(
        file.path for file in stores.list_one_deep(base) if _is_record(file.path[len(base) :])
    )

    def read(uri: str) -> ShadowAlert | Problem | None:
        try:
            return read_shadow_alert(uri)
        except FileNotFoundError:  # `prune` has deleted it meanwhile.
            return None
        except (OSError, ValueError) as error:
            return uri, one_line(error)

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="shadow") as pool:
        results = list(pool.map(read, uris))
    return (
        [result for result in results if isinstance(result, ShadowAlert)],
        [result for result in results if isinstance(result, tuple)],
    )


def _is_record(path: str) -> bool:
    """Returns whether a path below the folder of records is that of one."""
    camera, _, name = path.strip("/").partition("/")
    return rules.is_camera_id(camera) and is_shadow_name(name)


def print_shadow(args: argparse.Namespace) -> int:
    """Runs the command `rules shadow`; returns the exit code.

    Raises:
      SetupError: There is no such output, camera or version.
      CommandFailedError: The store failed, or a mark can't be read.
    """
    since, until = time_option("--since", args.since), time_option("--until", args.until)
    output = paths.absolute("--output", args.output)
    check_output(output)
    with store_errors_as_failures():
        alerts, problems = read_shadow_alerts(output)
        marks, unread = read_marks(output)
    if unread:
        uri, why = unread[0]
        raise CommandFailedError(f"failed: {uri}: {why}; correct the file, or move it away")
    if args.version is not None and args.version not in versions_of(alerts):
        known = ", ".join(versions_of(alerts)) or "none"
        raise SetupError(
            f"--version {escaped(args.version[:40])}: no record is of this version; there are: "
            f"{known}"
        )
    version = args.version or next(iter(versions_of(alerts)), None)
    chosen = [
        alert
        for alert in alerts
        if (not args.ids or alert.id in args.ids)
        and (since is None or parse_time(alert.timestamp) >= since)
        and (until is None or parse_time(alert.timestamp) < until)
    ]
    comparison = replace(
        compare_alerts(chosen, facts_of(marks), version), versions=versions_of(alerts)
    )
    if args.format == "json":
        write_stdout(json.dumps(to_json(comparison), indent=2) + "\n")
    elif comparison.compared:
        write_stdout(_table(comparison, output))
    if not comparison.compared:
        print(
            "no alert of the rules or of the shadow rules is recorded; a job with --shadow_rules "
            "FILE records them",
            file=sys.stderr,
        )
    print_problems(problems, "they were left out")
    return int(bool(problems))


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Makes the JSON that the command prints."""
    return {
        "shadow_version": comparison.version,
        "versions": list(comparison.versions),
        "cameras": [
            {
                "id": camera.id,
                "rules": camera.by_rules,
                "shadow": camera.by_shadow,
                **{kind: vars(numbers) for kind, numbers in camera.kinds.items()},
            }
            for camera in comparison.cameras
        ],
        "differences": [
            {**one.alert.to_json(), "kind": one.kind, "is_right": one.is_right}
            for one in comparison.compared
            if one.kind in (ONLY_RULES, ONLY_SHADOW)
        ],
    }


def total_of(comparison: Comparison) -> CameraComparison:
    """Returns the sums over all cameras."""
    total = CameraComparison("all")
    for camera in comparison.cameras:
        for kind, numbers in camera.kinds.items():
            of_all = total.kinds[kind]
            of_all.alerts += numbers.alerts
            of_all.right += numbers.right
            of_all.false += numbers.false
    return total


def _table(comparison: Comparison, output: str) -> str:
    header = ("camera", "rules", "shadow", "both", "moved", "only rules", "right", "false")
    rows = [(*header, "only shadow", "right", "false")]
    total = [total_of(comparison)] if len(comparison.cameras) > 1 else []
    for camera in (*comparison.cameras, *total):
        numbers = [camera.by_rules, camera.by_shadow]
        numbers += [camera.kinds[kind].alerts for kind in (BOTH, MOVED)]
        for kind in (ONLY_RULES, ONLY_SHADOW):
            numbers += vars(camera.kinds[kind]).values()
        rows.append((camera.id, *(f"{number:,}" for number in numbers)))  # type: ignore[arg-type]
    lines = [f"shadow rules version {comparison.version}, alerts:", *align(rows)]
    differences = [one for one in comparison.compared if one.kind in (ONLY_RULES, ONLY_SHADOW)]
    if differences:
        lines += ["", "the newest differences:"]
    for one in differences[:_SHOWN]:
        alert = one.alert
        mark = {True: ", marked right", False: ", marked false", None: ""}[one.is_right]
        lines.append(f"{alert.timestamp}  {alert.id}  {KINDS[one.kind]}{mark}")
        lines += [f"  {escaped(why)}" for why in alert.why]
        lines.append(f"  {stores.final_uri(output, alert.id, alert.image)}")
    if len(differences) > _SHOWN:
        lines.append(f"and {len(differences) - _SHOWN} more, which --format json prints")
    return "".join(f"{line}\n" for line in lines)
