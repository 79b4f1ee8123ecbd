"""The pictures of an archive beside what is known to be in them, judged anew or as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import rules
from beam_pipeline.archive_job import Selection
from beam_pipeline.errors import SetupError
from beam_pipeline.evaluation.metrics import BoxedPicture, Picture
from beam_pipeline.evaluation.truth import TruePicture, Truth, alerting_rules, real_threats
from rules.schedule import local_time
from transforms.archive import Archive
from transforms.backtest import look_back
from transforms.parse_filename import InvalidName, parse_name
from transforms.records import DetectedImage
from transforms.text import printable
from transforms.times import parse_time

_SHOWN = 3


@dataclass
class Compared:
    """Pictures with truth, and what was left out.

    Attributes:
      pictures: Those that count, of each camera together and in order of time.
      boxes: What is in them and what was found, where the truth has boxes.
      without_truth: How many pictures the truth does not name.
      without_verdict: How many `final/` does not hold, or not in order.
      disarmed: How many show what would be a threat if their camera were armed.
      refused: Cameras whose pictures are refused by strict rules.
      not_there: Pictures that the truth names and the archive does not have.
      supposed: Cameras and labels that are taken for threats, as `final/` does not tell.
      versions: Of the rules by which `final/` was judged.
    """

    pictures: list[Picture] = field(default_factory=list)
    boxes: list[BoxedPicture] = field(default_factory=list)
    without_truth: int = 0
    without_verdict: int = 0
    disarmed: int = 0
    refused: list[str] = field(default_factory=list)
    not_there: list[str] = field(default_factory=list)
    supposed: set[tuple[str, str]] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)

    def notes(self) -> list[str]:
        """What a person must know to read the numbers, a line each."""
        lines = []
        if self.not_there:
            lines.append(
                f"{len(self.not_there)} pictures of the truth are not in the archive: "
                f"{_some(self.not_there)}"
            )
        if self.without_truth:
            lines.append(f"{self.without_truth} pictures without truth are left out")
        if self.without_verdict:
            lines.append(f"{self.without_verdict} pictures without a verdict are left out")
        if self.disarmed:
            lines.append(
                f"{self.disarmed} pictures with what would be a threat were taken while their "
                "camera was disarmed: no threats"
            )
        if self.refused:
            lines.append(
                f"the rules are strict and refuse all pictures of {_some(self.refused)}: left out"
            )
        if self.supposed:
            what = sorted(f"{label} on {id}" for id, label in self.supposed)
            lines.append(
                f"final/ does not say whether alerts are wanted for {_some(what)}: taken for "
                "threats; give --rules FILE --verdicts final to say"
            )
        if len(self.versions) > 1:
            lines.append(f"final/ was judged by several rule files: {_some(sorted(self.versions))}")
        return lines


def compare(chosen: Selection, truth: Truth, *, by: rules.Rules | None, anew: bool) -> Compared:
    """Puts verdicts beside the truth, camera by camera in order of time.

    Args:
      chosen: Which pictures count. Those shortly before are judged too, as rules may look back.
      truth: What is there.
      by: The rules by which a label is a threat; None to gather them from `final/`.
      anew: Whether `by` judges, too; if not, the verdicts are those of `final/`.

    Raises:
      SetupError: The truth names no picture of the archive, or none that counts.
      OSError: A store can't be reached any more.
    """
    result = Compared()
    unmet = set(truth.pictures)
    archive = chosen.archive
    for id in chosen.ids:
        refused = anew and by is not None and by.strict_ids and not by.knows(id)
        if refused:
            result.refused.append(id)
        camera = None if by is None else by.for_camera(id)
        history = rules.History()
        final = _FinalRules()
        rows: list[tuple[DetectedImage, TruePicture, Told]] = []
        for one in archive.images(id, earliest(chosen, by if anew else None, id), chosen.until):
            image = one.image
            unmet.discard(image.file)
            if refused:
                continue
            told = None
            if anew and by is not None:
                told = told_by(by.judge(image.for_rules(), history))
            elif one.threat is not None:
                try:
                    told = told_in(one.threat)
                    final.note(one.threat)
                    result.versions.add(str(one.threat["rules_version"]))
                except (KeyError, TypeError, AttributeError) as error:
                    archive.problems.append((image.uri, f"final/: no sound 'threat': {error!r}"))
            if not _counts(chosen, parse_time(image.timestamp)):
                continue
            true = truth.pictures.get(image.file)
            if true is None:
                result.without_truth += 1
            elif told is None:
                result.without_verdict += 1
            else:
                rows.append((image, true, told))
        if camera is None:
            result.supposed |= {
                (id, label)
                for _, true, _ in rows
                for label in true.counts
                if final.is_silent(label)
            }
        looked_for = final.looked_for if camera is None else alerting_rules(camera)
        for image, true, told in rows:
            wanted = final.wanted(true) if camera is None else real_threats(true, camera)
            disarmed = told.disarmed if camera is None else not is_armed(camera, image.timestamp)
            if wanted and disarmed:
                result.disarmed += 1
                wanted = {}
            result.pictures.append(
                Picture(id, image.timestamp, wanted, told.alerted, told.suppressed_by, looked_for)
            )
            if true.boxes is not None and true.size is not None:
                result.boxes.append(BoxedPicture(true.size, true.boxes, image.detections))
    result.not_there = sorted(name for name in unmet if _is_asked_for(chosen, name))
    if len(unmet) == len(truth.pictures):
        raise SetupError(
            f"{truth.source}: names no picture of the archive that is asked for, but "
            f"{_some(sorted(unmet))}; write file names as of hall_20260131T235959Z.jpg"
        )
    if not result.pictures:
        raise SetupError(
            f"{truth.source}: names no picture that counts: {'; '.join(result.notes())}"
        )
    return result


def earliest(chosen: Selection, by: rules.Rules | None, id: str) -> datetime | None:
    """The first moment of which a camera's pictures are to be judged for those that count; None for
    the first there is.

    Args:
      chosen: Which pictures count.
      by: The rules; None where nothing is judged.
      id: The camera.
    """
    since = chosen.since
    if since is None or by is None:
        return since
    return since - min(look_back(by, id), since - datetime.min.replace(tzinfo=since.tzinfo))


def _counts(chosen: Selection, moment: datetime) -> bool:
    return (chosen.since is None or moment >= chosen.since) and (
        chosen.until is None or moment < chosen.until
    )


def is_armed(camera: rules.CameraRules, timestamp: str) -> bool:
    """Whether a camera is armed at a canonical time."""
    schedule = camera.schedule
    return schedule is None or schedule.is_armed(local_time(parse_time(timestamp), camera.timezone))


def absent_cameras(by: rules.Rules, archive: Archive) -> list[str]:
    """A line on cameras that the rules name and the archive does not have."""
    absent = [id for id in by.cameras if id not in archive.ids]
    return [f"the archive has no pictures of {_some(absent)}, which the rules name"] * bool(absent)


def _is_asked_for(chosen: Selection, name: str) -> bool:
    """Whether a picture that is not there would count; one whose name tells nothing would."""
    try:
        camera, moment = parse_name(name)
    except InvalidName:
        return True
    return (not chosen.by_id or camera in chosen.ids) and _counts(chosen, moment)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(printable, names[:_SHOWN]))
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


# What a verdict tells


@dataclass(frozen=True)
class Told:
    """What a verdict tells of alerts: see `beam_pipeline.evaluation.metrics.Picture`.

    `disarmed`: something was rejected as the camera is not armed.
    """

    alerted: frozenset[tuple[str, str]]
    suppressed_by: str | None
    disarmed: bool = False


def told_by(verdict: rules.Verdict) -> Told:
    """What a verdict tells."""
    return Told(
        frozenset(
            (threat.label, threat.rule) for threat in verdict.threats if threat.severity == "alert"
        ),
        verdict.suppressed_by,
    )


def told_in(threat: Mapping[str, Any]) -> Told:
    """What the `threat` object of an image JSON tells. Archives written before there were cooldowns
    say nothing of them."""
    return Told(
        frozenset(
            (str(one["label"]), str(one["rule"]))
            for one in threat["threats"]
            if one["severity"] == "alert"
        ),
        threat.get("suppressed_by"),
        any(one["by"] == "schedule" for one in threat["rejected"]),
    )


class _FinalRules:
    """What the verdicts of `final/` tell of the rules of one camera.

    A label is wanted where it was a threat of severity ``alert``, and not where it was only one of
    severity ``detection``, is not listed or is ignored. One of which nothing of the kind is told is
    supposed to be wanted: to pass over a threat that was always missed would be the worst of
    errors.
    """

    def __init__(self) -> None:
        self._wanted: dict[str, set[str]] = {}
        self._unwanted: set[str] = set()
        self._named: dict[str, str | None] = {}

    def note(self, threat: Mapping[str, Any]) -> None:
        """Adds what one verdict tells."""
        for one in threat["threats"]:
            if one["severity"] == "alert":
                self._wanted.setdefault(one["label"], set()).add(one["rule"])
            else:
                self._unwanted.add(one["label"])
        for one in threat["rejected"]:
            if one["by"] in ("objects", "severity"):
                self._unwanted.add(one["label"])
            else:
                self._named.setdefault(one["label"], one["rule"])

    @property
    def looked_for(self) -> frozenset[tuple[str, str]]:
        """The labels for which there were alerts, with their rules."""
        return frozenset((label, rule) for label, by in self._wanted.items() for rule in by)

    def is_silent(self, label: str) -> bool:
        """Whether nothing is told of a label."""
        return label not in self._wanted and label not in self._unwanted

    def wanted(self, true: TruePicture) -> dict[str, str | None]:
        """The real threats of a picture, with their rules where they are known."""
        return {
            label: min(self._wanted[label]) if label in self._wanted else self._named.get(label)
            for label in true.counts
            if label in self._wanted or self.is_silent(label)
        }
