"""Compares the verdicts on an archive, old or new ones, with what is known to be in its images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import rules
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.evaluation.metrics import BoxedImage, EvaluatedImage
from beam_pipeline.evaluation.truth import TrueImage, Truth, alerting_rules, real_threats
from beam_pipeline.inputs.selection import Selection
from rules import alert_id
from rules.schedule import local_time
from transforms.backtest import has_other_tiles, look_back
from transforms.records.file_names import InvalidNameError, parse_name
from transforms.records.images import DetectedImage
from transforms.records.text import printable
from transforms.records.times import parse_time
from transforms.storage.archive import Archive, ArchivedImage

_SHOWN = 3


@dataclass
class Comparison:
    """Images with truth, and what was left out.

    Attributes:
      images: Those that count, of each camera together and in order of time.
      boxes: What is in them and what was found, where the truth has boxes.
      without_truth: How many images the truth does not name.
      without_verdict: How many `final/` does not hold, or not in order.
      disarmed: How many show what would be a threat if their camera were armed.
      refused: Cameras whose images are refused by strict rules.
      not_in_archive: Images that the truth names and the archive does not have.
      supposed: Cameras and labels that are supposed to be threats, as `final/` does not show it.
      versions: Of the rules by which `final/` was judged.
      other_tiles: How many images the model has not looked at by the tiles of the rules that judge.
    """

    images: list[EvaluatedImage] = field(default_factory=list)
    boxes: list[BoxedImage] = field(default_factory=list)
    without_truth: int = 0
    without_verdict: int = 0
    disarmed: int = 0
    refused: list[str] = field(default_factory=list)
    not_in_archive: list[str] = field(default_factory=list)
    supposed: set[tuple[str, str]] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    other_tiles: int = 0

    def notes(self) -> list[str]:
        """Returns what a person must know to read the numbers, a line each."""
        lines = []
        if self.not_in_archive:
            lines.append(
                f"{len(self.not_in_archive)} images of the truth are not in the archive: "
                f"{first_names(self.not_in_archive)}"
            )
        if self.without_truth:
            lines.append(f"{self.without_truth} images without truth are left out")
        if self.without_verdict:
            lines.append(f"{self.without_verdict} images without a verdict are left out")
        if self.disarmed:
            lines.append(
                f"{self.disarmed} images with what would be a threat were taken while their "
                "camera was disarmed: no threats"
            )
        if self.refused:
            lines.append(refused_note(self.refused))
        if self.supposed:
            assumed = sorted(f"{label} on {id}" for id, label in self.supposed)
            lines.append(
                f"final/ does not say whether alerts are wanted for {first_names(assumed)}: "
                "treated as threats; give --rules FILE --verdicts final to say"
            )
        if self.other_tiles:
            lines.append(other_tiles_note(self.other_tiles))
        if len(self.versions) > 1:
            lines.append(
                f"final/ was judged by several rule files: {first_names(sorted(self.versions))}"
            )
        return lines


def compare(
    chosen: Selection, truth: Truth, *, ruleset: rules.Rules | None, rejudge: bool
) -> Comparison:
    """Compares verdicts with the truth, camera by camera in order of time.

    Args:
      chosen: Which images count. Those shortly before are judged too, as rules may look back.
      truth: What is there.
      ruleset: The rules by which a label is a threat; None to gather them from `final/`.
      rejudge: Whether `ruleset` judges, too; if not, the verdicts are those of `final/`.

    Raises:
      SetupError: The truth names no image of the archive, or none that counts.
      OSError: A store can't be reached any more.
    """
    result = Comparison()
    missing = set(truth.images)
    for id in chosen.ids:
        if rejudge and ruleset is not None and ruleset.strict_ids and not ruleset.has_camera(id):
            result.refused.append(id)
            missing -= {archived.image.stored_name for archived in _images(chosen, id, ruleset)}
        else:
            _Camera(chosen, truth, id, ruleset, rejudge=rejudge).compare(result, missing)
    result.not_in_archive = sorted(name for name in missing if _is_selected(chosen, name))
    if len(missing) == len(truth.images):
        raise SetupError(
            f"{truth.source}: names no selected image of the archive, but "
            f"{first_names(sorted(missing))}; write file names as of hall_20260131T235959Z.jpg"
        )
    if not result.images:
        raise SetupError(f"{truth.source}: names no image that counts: {'; '.join(result.notes())}")
    return result


def _images(chosen: Selection, id: str, ruleset: rules.Rules | None) -> Iterator[ArchivedImage]:
    return chosen.archive.images(id, earliest(chosen, ruleset, id), chosen.until)


class _Camera:
    """The verdicts on one camera's images beside the truth.

    Args:
      chosen: As for `compare`, like the others.
      truth: The same.
      id: The camera.
      ruleset: The same.
      rejudge: The same.
    """

    def __init__(
        self,
        chosen: Selection,
        truth: Truth,
        id: str,
        ruleset: rules.Rules | None,
        *,
        rejudge: bool,
    ) -> None:
        self._chosen = chosen
        self._truth = truth
        self._id = id
        self._judge = ruleset if rejudge else None
        self._rules = None if ruleset is None else ruleset.for_camera(id)
        self._final = _FinalRules()
        self._uncounted_alerts: dict[str, str] = {}
        """The capture times of the alerts whose images are not counted, by the alerts' ids."""

    def compare(self, result: Comparison, missing: set[str]) -> None:
        """Adds the camera to a result, and takes its images from those that are missing."""
        rows = list(self._rows(result, missing))
        if self._rules is None:
            result.supposed |= {
                (self._id, label)
                for _, true_image, _ in rows
                for label in true_image.counts
                if self._final.is_silent(label)
            }
        for image, true_image, alerted in rows:
            self._add(result, image, true_image, alerted)

    def _rows(
        self, result: Comparison, missing: set[str]
    ) -> Iterator[tuple[DetectedImage, TrueImage, AlertedLabels]]:
        """Yields the images that count, with what is there and what was judged."""
        history = rules.History()
        for archived in _images(self._chosen, self._id, self._judge):
            image = archived.image
            missing.discard(image.stored_name)
            if self._judge is None:
                alerted = self._alerted_in_final(archived, result)
            else:
                alerted = alerted_by_verdict(self._judge.judge(image.for_rules(), history))
            counts = is_in_period(self._chosen, parse_time(image.timestamp))
            true_image = self._truth.images.get(image.stored_name)
            if alerted is not None and alerted.is_sent and (true_image is None or not counts):
                sent_id = alert_id(self._id, image.timestamp, "alert")
                self._uncounted_alerts[sent_id] = image.timestamp
            if not counts:
                continue
            if true_image is None:
                result.without_truth += 1
            elif alerted is None:
                result.without_verdict += 1
            else:
                if self._judge is not None:
                    result.other_tiles += has_other_tiles(image, self._rules)
                yield image, true_image, alerted

    def _alerted_in_final(
        self, archived: ArchivedImage, result: Comparison
    ) -> AlertedLabels | None:
        if archived.threat is None:
            return None
        alerted = None
        try:
            alerted = alerted_in_json(archived.threat)
            self._final.note(archived.threat)
            result.versions.add(str(archived.threat["rules_version"]))
        except (KeyError, TypeError, AttributeError) as error:
            problem = f"final/: no valid 'threat': {error!r}"
            self._chosen.archive.problems.append((archived.image.uri, problem))
        return alerted

    def _add(
        self,
        result: Comparison,
        image: DetectedImage,
        true_image: TrueImage,
        alerted: AlertedLabels,
    ) -> None:
        wanted: Mapping[str, str | None]
        if self._rules is None:
            wanted, looked_for = self._final.wanted(true_image), self._final.looked_for
            disarmed = alerted.disarmed
        else:
            wanted, looked_for = real_threats(true_image, self._rules), alerting_rules(self._rules)
            disarmed = not is_armed(self._rules, image.timestamp)
        if wanted and disarmed:
            result.disarmed += 1
            wanted = {}
        result.images.append(
            EvaluatedImage(
                self._id,
                image.timestamp,
                wanted,
                alerted.alerted,
                alerted.suppressed_by,
                looked_for,
                self._uncounted_alerts.get(alerted.suppressed_by or ""),
            )
        )
        if true_image.boxes is not None and true_image.size is not None:
            result.boxes.append(BoxedImage(true_image.size, true_image.boxes, image.detections))


def earliest(chosen: Selection, ruleset: rules.Rules | None, id: str) -> datetime | None:
    """Returns the time from which a camera's images are to be judged for those that count;
    None for the first there is.

    Args:
      chosen: Which images count.
      ruleset: The rules; None where nothing is judged.
      id: The camera.
    """
    since = chosen.since
    if since is None or ruleset is None:
        return since
    return since - min(look_back(ruleset, id), since - datetime.min.replace(tzinfo=since.tzinfo))


def refused_note(cameras: Sequence[str]) -> str:
    """Returns the note that strict rules refuse all images of some cameras."""
    names = first_names(cameras)
    return f"the rules are strict and refuse all images of {names}: left out"


def other_tiles_note(number: int) -> str:
    """Returns the note that so many images were detected with other tiles."""
    return (
        f"{number} images were detected with other tiles than these rules have: run the job with "
        "these rules to see what their tiles find"
    )


def is_in_period(chosen: Selection, capture_time: datetime) -> bool:
    """Returns whether an image of this time counts."""
    return (chosen.since is None or capture_time >= chosen.since) and (
        chosen.until is None or capture_time < chosen.until
    )


def is_armed(camera: rules.CameraRules, timestamp: str) -> bool:
    """Returns whether a camera is armed at a canonical time."""
    schedule = camera.schedule
    return schedule is None or schedule.is_armed(
        local_time(parse_time(timestamp), camera.local_zone)
    )


def absent_cameras(ruleset: rules.Rules, archive: Archive) -> list[str]:
    """Returns a line on cameras that the rules name and the archive does not have."""
    absent = [id for id in ruleset.cameras if id not in archive.ids]
    return [f"the archive has no images of {first_names(absent)}, which the rules name"] * bool(
        absent
    )


def _is_selected(chosen: Selection, name: str) -> bool:
    """Returns whether a missing image would count; one whose name is not valid would."""
    try:
        camera, capture_time = parse_name(name)
    except InvalidNameError:
        return True
    return (not chosen.by_id or camera in chosen.ids) and is_in_period(chosen, capture_time)


def first_names(names: Sequence[str]) -> str:
    """Returns the first names of many for a message, and how many more there are."""
    shown = ", ".join(map(printable, names[:_SHOWN]))
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


# The labels that a verdict alerts for


@dataclass(frozen=True)
class AlertedLabels:
    """The labels of a verdict's alert: see `beam_pipeline.evaluation.metrics.EvaluatedImage`.

    `disarmed`: something was rejected as the camera is not armed.
    """

    alerted: frozenset[tuple[str, str]]
    suppressed_by: str | None
    disarmed: bool = False

    @property
    def is_sent(self) -> bool:
        """Whether an alert is sent."""
        return bool(self.alerted) and self.suppressed_by is None


def alerted_by_verdict(verdict: rules.Verdict) -> AlertedLabels:
    """Returns the labels that a verdict alerts for."""
    return AlertedLabels(
        frozenset(
            (threat.label, threat.rule) for threat in verdict.threats if threat.severity == "alert"
        ),
        verdict.suppressed_by,
    )


def alerted_in_json(threat: Mapping[str, Any]) -> AlertedLabels:
    """Returns the labels that the `threat` object of an image JSON alerts for. Archives written
    before there were cooldowns do not mention them.
    """
    return AlertedLabels(
        frozenset(
            (str(entry["label"]), str(entry["rule"]))
            for entry in threat["threats"]
            if entry["severity"] == "alert"
        ),
        threat.get("suppressed_by"),
        any(entry["by"] == "schedule" for entry in threat["rejected"]),
    )


class _FinalRules:
    """What the verdicts of `final/` show of the rules of one camera.

    A label is wanted where it was a threat of severity ``alert``, and not where it was only one of
    severity ``detection``, is not listed or is ignored. A label without such a verdict
    is supposed to be wanted: to skip a threat that was always missed would be the worst of
    errors.
    """

    def __init__(self) -> None:
        self._wanted: dict[str, set[str]] = {}
        self._unwanted: set[str] = set()
        self._named: dict[str, str | None] = {}

    def note(self, threat: Mapping[str, Any]) -> None:
        """Adds one verdict."""
        for entry in threat["threats"]:
            if entry["severity"] == "alert":
                self._wanted.setdefault(entry["label"], set()).add(entry["rule"])
            else:
                self._unwanted.add(entry["label"])
        for entry in threat["rejected"]:
            if entry["by"] in ("objects", "severity"):
                self._unwanted.add(entry["label"])
            else:
                self._named.setdefault(entry["label"], entry["rule"])

    @property
    def looked_for(self) -> frozenset[tuple[str, str]]:
        """The labels for which there were alerts, with their rules."""
        return frozenset(
            (label, rule) for label, rule_names in self._wanted.items() for rule in rule_names
        )

    def is_silent(self, label: str) -> bool:
        """Returns whether no verdict shows if a label is wanted."""
        return label not in self._wanted and label not in self._unwanted

    def wanted(self, true: TrueImage) -> dict[str, str | None]:
        """Returns the real threats of an image, with their rules where they are known."""
        return {
            label: min(self._wanted[label]) if label in self._wanted else self._named.get(label)
            for label in true.counts
            if label in self._wanted or self.is_silent(label)
        }
