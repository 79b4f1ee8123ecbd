"""The command `tune`: proposes scores and areas from a truth file, and tests them on later images.

Each label that raises the alert is tuned on its own, for all cameras of a profile together or for
each camera. The search uses the earlier part of each camera's images. The later part, which
the search does not use, shows how good the proposal is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import rules
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.console.tables import write_stdout
from beam_pipeline.evaluation import marked, metrics
from beam_pipeline.evaluation.comparison import Comparison, absent_cameras, compare, earliest
from beam_pipeline.evaluation.evaluate import (
    HEADER,
    open_inputs,
    share_text,
    tally_cells,
    with_header_rule,
)
from beam_pipeline.evaluation.marked import (
    MarkedComparison,
    MarkedTruth,
    MarkTally,
    compare_marks,
)
from beam_pipeline.evaluation.metrics import EvaluatedImage, EvaluationTally, wilson
from beam_pipeline.evaluation.rule_edits import Edit, apply_edits
from beam_pipeline.evaluation.truth import Truth
from beam_pipeline.evaluation.tuning import (
    SCORES,
    Case,
    Cases,
    Measured,
    Values,
    best_recall,
    propose,
    threats_needed,
    with_label_only,
)
from beam_pipeline.inputs import paths, selection
from beam_pipeline.inputs.rule_files import load_labels, load_rules, read_file
from beam_pipeline.inputs.selection import Selection
from transforms.records.images import DetectedImage
from transforms.records.times import parse_time
from transforms.storage import stores
from transforms.storage.archive import Archive, ArchivedImage, Problem

_TUNED = ("min_score", "min_area", "max_area")
_CURVE_STEP = 5  # Of `tuning.SCORES`: a line each 0.05.


class _InMemoryArchive:
    """An archive whose images were read once."""

    has_verdicts = True

    def __init__(self, images: Mapping[str, Sequence[ArchivedImage]]) -> None:
        self.ids = frozenset(images)
        self._images = images

    def images(
        self, id: str, since: datetime | None, until: datetime | None, problems: list[Problem]
    ) -> Iterator[tuple[DetectedImage, dict[str, Any] | None]]:
        """Returns the images of one camera, all that were read."""
        return ((archived.image, archived.threat) for archived in self._images[id])


def _load_images(chosen: Selection, ruleset: rules.Rules) -> Selection:
    """Returns the same images, which are read again and again, in memory."""

    images = {
        id: list(chosen.archive.images(id, earliest(chosen, ruleset, id), chosen.until))
        for id in chosen.ids
    }
    return replace(chosen, archive=Archive(chosen.archive.uris, (_InMemoryArchive(images),)))


@dataclass(frozen=True)
class Group:
    """Cameras that get the same values for a label.

    Attributes:
      name: For a person, e.g. ``profile outdoor``.
      label: The label.
      layers: Where the values go in the rule file.
      ids: The cameras, of those with truth.
    """

    name: str
    label: str
    layers: tuple[tuple[str, ...], ...]
    ids: tuple[str, ...]


def groups(
    ruleset: rules.Rules, ids: Sequence[str], per: str, shown: Mapping[str, Collection[str]]
) -> list[Group]:
    """Returns which cameras are tuned together, for each label that raises the alert.

    Per profile: the cameras of each profile; those without one, whose values go into the defaults,
    or to each of them where profiles would inherit them; and on its own each camera that has values
    of its own. A camera that is the only one of its group with truth of a label is on its own, too:
    what is right for one camera need not be right for others.

    Args:
      ruleset: The rules.
      ids: The cameras with truth.
      per: ``profile`` or ``camera``.
      shown: For each label the cameras of which the truth has an image that shows it.
    """
    has_profiles = any(camera.profile is not None for camera in ruleset.by_camera.values())
    ids_by_group: dict[tuple[str, str], list[str]] = {}
    for id in ids:
        camera = ruleset.for_camera(id)
        for label, rule in camera.objects.items():
            if rule.severity != "alert":
                continue
            if per == "camera" or _has_own_values(ruleset, id, label):
                name = f"camera {id}"
            elif camera.profile is not None:
                name = f"profile {camera.profile}"
            else:
                name = "no profile"
            ids_by_group.setdefault((name, label), []).append(id)
    _set_apart(ids_by_group, shown)

    def layers(name: str, group_ids: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        if name.startswith("profile "):
            return (("profiles", name.removeprefix("profile ")),)
        if name == "no profile" and not has_profiles:
            return (("defaults",),)
        return tuple(("cameras", id) for id in group_ids)

    return [
        Group(name, label, layers(name, group_ids), tuple(group_ids))
        for (name, label), group_ids in sorted(ids_by_group.items())
        if group_ids
    ]


def _set_apart(
    ids_by_group: dict[tuple[str, str], list[str]], shown: Mapping[str, Collection[str]]
) -> None:
    """Sets the cameras apart that are the only ones of their group with truth of its label."""
    for (name, label), group_ids in list(ids_by_group.items()):
        with_label = [id for id in group_ids if id in shown.get(label, ())]
        if len(with_label) == 1:
            ids_by_group[name, label] = [id for id in group_ids if id not in with_label]
            ids_by_group[f"camera {with_label[0]}", label] = with_label


def _cameras_by_label(images: Iterable[EvaluatedImage]) -> dict[str, set[str]]:
    cameras: dict[str, set[str]] = {}
    for image in images:
        for label in image.wanted:
            cameras.setdefault(label, set()).add(image.id)
    return cameras


@dataclass(frozen=True)
class Proposal:
    """What was found for a group.

    Attributes:
      group: The group.
      cases: What was measured.
      proposed: The values; the present ones where nothing is better, None where none keeps recall.
    """

    group: Group
    cases: Cases
    proposed: Values | None

    @property
    def changes(self) -> dict[str, float]:
        """The values that differ from what holds."""
        return {
            name: value
            for name in _TUNED
            if (value := getattr(self.proposed, name, None)) is not None
            and value != getattr(self.cases.now, name)
        }

    def is_supported(self, min_recall: float, holdout: float) -> bool:
        """Returns whether the truth is enough to believe it, and the later images bear it out."""
        return self.proposed is not None and not _warnings(self, min_recall, holdout)

    @property
    def edits(self) -> list[Edit]:
        """The edits of the rule file that apply them."""

        changes = self.changes
        return [Edit(layer, self.group.label, changes) for layer in self.group.layers if changes]


def tune(args: argparse.Namespace) -> int:
    """Prints, and writes on request, what the arguments ask for; returns the exit code.

    Raises:
      SetupError: What a person must correct, in one line; nothing has been printed then.
      CommandFailedError: A store can't be reached any more.
    """
    chosen, truth = open_inputs(args)
    archive, labels = chosen.archive, frozenset(load_labels(args.labels).values())
    content = read_file(args.rules, "--rules")
    ruleset = load_rules(content, args.rules, labels)
    target = None if args.write is None else _new_file(args.write)
    with selection.store_errors_as_failures():
        loaded = _load_images(chosen, ruleset)
    comparison = _compare(loaded, truth, ruleset)
    starts = later_starts(comparison.images, args.holdout)
    shown = _cameras_by_label(comparison.images)
    proposals = []
    for group in groups(ruleset, list(starts), args.per, shown):
        cases = _cases(group, ruleset, loaded, comparison.images, starts)
        if args.recall_of == "incidents":
            cases = replace(cases, gap=args.incident_gap)
        proposals.append(Proposal(group, cases, _propose(cases, args.min_recall)))
    edits = [edit for proposal in proposals for edit in proposal.edits]
    text = apply_edits(content.decode("utf-8-sig"), edits).encode() if edits else content
    proposed_rules = load_rules(text, f"{args.rules} with the proposals", labels)
    comparisons = {"now": comparison}
    if edits:
        comparisons["proposed"] = _compare(loaded, truth, proposed_rules)
    tallies = _tallies(comparisons, starts, args)
    render = _json if args.format == "json" else _table
    write_stdout(render(proposals, tallies, args))
    notes = [
        *comparison.notes(),
        *absent_cameras(ruleset, archive),
        *_zone_only_notes(ruleset, comparison.images),
        *_alone_notes(ruleset, proposals, args.per),
        *(_score_notes(proposals) if isinstance(truth, MarkedTruth) else ()),
    ]
    for line in notes:
        print(line, file=sys.stderr)
    selection.print_problems(archive.problems, "evaluate --format json lists all")
    if target is not None:
        left_out = [
            proposal
            for proposal in proposals
            if proposal.edits
            and not (args.write_guesses or proposal.is_supported(args.min_recall, args.holdout))
        ]
        written = [
            edit for proposal in proposals if proposal not in left_out for edit in proposal.edits
        ]
        if written:
            text = apply_edits(content.decode("utf-8-sig"), written).encode()
            load_rules(text, f"{args.rules} with the proposals", labels)
            with selection.store_errors_as_failures():
                stores.write_bytes(target, text)
        print(f"written to {target}" if written else "nothing to write", file=sys.stderr)
        if left_out:
            names = ", ".join(
                f"{proposal.group.label} of {proposal.group.name}" for proposal in left_out
            )
            print(
                f"left out, as the truth does not support it: {names}; --write_guesses writes all",
                file=sys.stderr,
            )
    return 0


def _compare(
    loaded: Selection, truth: Truth | MarkedTruth, ruleset: rules.Rules
) -> Comparison | MarkedComparison:
    if isinstance(truth, MarkedTruth):
        return compare_marks(loaded, truth, ruleset=ruleset, rejudge=True)
    return compare(loaded, truth, ruleset=ruleset, rejudge=True)


def _tallies(
    comparisons: Mapping[str, Comparison | MarkedComparison],
    starts: Mapping[str, datetime | None],
    args: argparse.Namespace,
) -> dict[str, EvaluationTally | MarkTally]:
    """Returns what all rules together do, by name; with marks also to the images without any."""
    tallies: dict[str, EvaluationTally | MarkTally] = {}
    for name, comparison in comparisons.items():
        if isinstance(comparison, MarkedComparison):
            tallies[name] = marked.tally(comparison.rows)
        else:
            tallies[name] = metrics.total(comparison.images, args.incident_gap)
    for name, comparison in comparisons.items() if args.holdout else ():
        if isinstance(comparison, Comparison):
            later = [image for image in comparison.images if _is_later(image, starts)]
            tallies[f"{name}, later"] = metrics.total(later, args.incident_gap)
    return tallies


def later_starts(images: Sequence[EvaluatedImage], holdout: float) -> dict[str, datetime | None]:
    """Returns when the later part of each camera's images begins, by camera; None where it has
    none.

    Args:
      images: Those with truth, of each camera together and in order of time.
      holdout: Which part of them is the later, 0 to less than 1; rounded down.
    """
    times: dict[str, list[datetime]] = {}
    for image in images:
        times.setdefault(image.id, []).append(parse_time(image.timestamp))
    starts: dict[str, datetime | None] = {}
    for id, own_times in times.items():
        number = int(len(own_times) * holdout + 1e-9)
        starts[id] = own_times[-number] if number else None
    return starts


def _is_later(image: EvaluatedImage | rules.Image, starts: Mapping[str, datetime | None]) -> bool:
    start = starts[image.id]
    return start is not None and parse_time(image.timestamp) >= start


def _cases(
    group: Group,
    ruleset: rules.Rules,
    loaded: Selection,
    evaluated: Sequence[EvaluatedImage],
    starts: Mapping[str, datetime | None],
) -> Cases:

    is_threat = {
        (image.id, image.timestamp): group.label in image.wanted
        for image in evaluated
        if image.known is None or group.label in image.known
    }
    cases = []
    for id in group.ids:
        images = [
            with_label_only(archived.image.for_rules(), group.label)
            for archived in loaded.archive.images(id)
            if ruleset.needs_history(id) or (id, archived.image.timestamp) in is_threat
        ]
        cases.append(
            Case(
                ruleset.for_camera(id),
                images,
                [is_threat.get((id, image.timestamp)) for image in images],
                [_is_later(image, starts) for image in images],
            )
        )
    return Cases(group.label, cases)


def _propose(cases: Cases, min_recall: float) -> Values | None:

    # Without images that show no threat the lowest score would be the best.
    if not cases.measure(cases.now).others:
        return None
    areas = cases.areas_to_try(min_recall)
    reachable = best_recall(cases.measure, areas)
    if not reachable:
        return None
    return propose(cases.measure, cases.now, areas, min(min_recall, reachable))


def _zone_only_notes(ruleset: rules.Rules, images: Sequence[EvaluatedImage]) -> list[str]:
    untuned = sorted(
        {
            f"{label} on {image.id}"
            for image in images
            for label, _ in image.looked_for
            if label not in ruleset.for_camera(image.id).objects
        }
    )
    return [f"not tuned, as only zones name it: {', '.join(untuned)}"] if untuned else []


def _alone_notes(ruleset: rules.Rules, proposals: Sequence[Proposal], per: str) -> list[str]:
    alone = [
        f"{proposal.group.label} of {proposal.group.ids[0]}"
        for proposal in proposals
        if per == "profile"
        and proposal.group.name.startswith("camera ")
        and not _has_own_values(ruleset, proposal.group.ids[0], proposal.group.label)
    ]
    if not alone:
        return []
    return [
        "proposed for one camera and not for its profile or the defaults, as no other camera there "
        f"has truth of the label: {', '.join(alone)}"
    ]


def _score_notes(proposals: Sequence[Proposal]) -> list[str]:
    """Returns which scores would silence false alerts where no right one is marked."""
    lines = []
    for proposal in proposals:
        cases = proposal.cases
        now = cases.measure(cases.now)
        if now.threats or not now.false_alerts:
            continue
        silent = (
            score
            for score in SCORES
            if score > cases.now.min_score
            and not cases.measure(replace(cases.now, min_score=score)).false_alerts
        )
        score = next(silent, None)
        if score is not None:
            lines.append(
                f"min_score {score:g} would silence the {now.false_alerts} false alerts for "
                f"{proposal.group.label}, {proposal.group.name}; no right one is marked there, so "
                "what it would miss is unknown: mark some, and see `backtest`"
            )
    return lines


def _has_own_values(ruleset: rules.Rules, id: str, label: str) -> bool:
    rule = ruleset.for_camera(id).objects[label]
    return any(rule.origin(name).startswith("cameras.") for name in _TUNED)


def _new_file(path: str) -> str:

    file = paths.writable_file("--write", path)
    try:
        stores.read_bytes(file, at_most=1)
    except FileNotFoundError:
        return file
    except OSError:
        pass  # It is there, if not for us to read.
    raise SetupError(f"--write {path}: exists already; give the name of a new file")


# Printing


def _warnings(proposal: Proposal, min_recall: float, holdout: float) -> list[str]:

    cases, label = proposal.cases, proposal.group.label
    measured = cases.measure(proposal.proposed or cases.now)
    if not measured.threats:
        return [
            f"the truth has no image here that is to raise the alert for {label}: nothing is "
            "proposed"
        ]
    if not measured.others:
        return [
            f"the truth has no image without {label} here, so false alerts can't be measured: "
            "nothing is proposed"
        ]
    lines = []
    needed = threats_needed(min_recall)
    if measured.threats < needed:
        lines.append(
            f"TOO FEW: {measured.threats} with {label} can't support a recall of {min_recall:g}; "
            + (
                "no number can"
                if needed == float("inf")
                else f"at least {needed:g} are needed for one to be missed"
            )
        )
    if proposal.proposed is None:
        lines.append(
            f"no values keep a recall of {min_recall:g}: the detector and the other filters leave "
            f"none of {measured.threats}; nothing is proposed"
        )
        return lines
    if not measured.keeps(min_recall):
        lines.append(
            f"OUT OF REACH: no values keep a recall of {min_recall:g}, as the detector and the "
            f"other filters leave at most {measured.caught} of {measured.threats}; values that "
            "keep these are proposed"
        )
    later = cases.measure(proposal.proposed, later=True)
    if later.threats and not later.keeps(min(min_recall, measured.recall or 0.0)):
        lines.append(f"NOT HELD: on the later images {later.caught} of {later.threats} are caught")
    if holdout and not later.threats:
        lines.append(f"the later images have no {label}: nothing proves the proposal")
    return lines


def _measured_values(proposal: Proposal) -> dict[str, tuple[Values, bool]]:
    """Returns what is measured of a proposal: by name the values, and whether on the later part."""
    lines: dict[str, tuple[Values, bool]] = {}
    values = {"now": proposal.cases.now, "proposed": proposal.proposed}
    has_later = any(any(case.is_later) for case in proposal.cases.cases)
    for name, values_tried in values.items():
        if values_tried is None:
            continue
        lines[name] = values_tried, False
        if has_later:
            lines[f"{name}, later"] = values_tried, True
    return lines


def _curve(proposal: Proposal) -> list[tuple[Values, Measured]]:
    """Returns the results of other scores with the proposed areas, and of the proposal itself."""

    middle = proposal.proposed or proposal.cases.now
    points: list[tuple[Values, Measured]] = []
    for score in sorted({*SCORES[::_CURVE_STEP], middle.min_score}):
        values = replace(middle, min_score=score)
        points.append((values, proposal.cases.measure(values)))
        if score >= middle.min_score and not (points[-1][1].caught or points[-1][1].false_alerts):
            break  # Higher scores let nothing through either.
    return points


def _table(
    proposals: Sequence[Proposal],
    tallies: Mapping[str, EvaluationTally | MarkTally],
    args: argparse.Namespace,
) -> str:
    blocks = []
    for proposal in proposals:
        cases = proposal.cases
        lines = [
            f"{proposal.group.label}, {proposal.group.name} ({', '.join(proposal.group.ids)})\n"
        ]
        warnings = _warnings(proposal, args.min_recall, args.holdout)
        if cases.measure(cases.now).threats:
            rows = [
                (
                    name,
                    *(_value(getattr(values, key)) for key in _TUNED),
                    *_cells(cases.measure(values, later=later)),
                )
                for name, (values, later) in _measured_values(proposal).items()
            ]
            lines.append(with_header_rule([("", *_TUNED, *_MEASURED), *rows]))
            curve = [
                (
                    f"{values.min_score:.2f}" + (" *" if values == proposal.proposed else ""),
                    *_cells(measured),
                )
                for values, measured in _curve(proposal)
            ]
            lines.append(with_header_rule([("min_score", *_MEASURED), *curve]))
        blocks.append("\n".join([*lines, *(f"{line}\n" for line in warnings)]))
    header: tuple[str, ...] = HEADER
    together = []
    for name, tally in tallies.items():
        if isinstance(tally, MarkTally):
            header = marked.HEADER
            together.append((name, *tally.cells()))
        else:
            together.append((name, *tally_cells(tally)))
    blocks.append(f"all rules together\n\n{with_header_rule([('', *header), *together])}")
    return "\n".join(blocks)


_MEASURED = ("threats", "recall", "false alerts", "/camera/day")


def _cells(measured: Measured) -> tuple[str, ...]:

    rate = measured.false_per_camera_day
    return (
        f"{measured.threats:,}",
        share_text(measured.recall, wilson(measured.caught, measured.threats)),
        f"{measured.false_alerts:,}",
        "-" if rate is None else f"{rate:,.2f}",
    )


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _json(
    proposals: Sequence[Proposal],
    tallies: Mapping[str, EvaluationTally | MarkTally],
    args: argparse.Namespace,
) -> str:
    def measured_json(values: Values, measured: Measured) -> dict[str, Any]:
        return {**asdict(values), **asdict(measured), "recall": measured.recall}

    document = {
        "min_recall": args.min_recall,
        "recall_of": args.recall_of,
        "holdout": args.holdout,
        "proposals": [
            {
                "group": proposal.group.name,
                "label": proposal.group.label,
                "ids": proposal.group.ids,
                "changes": proposal.changes,
                "measured": {
                    name: measured_json(values, proposal.cases.measure(values, later=later))
                    for name, (values, later) in _measured_values(proposal).items()
                },
                "curve": [measured_json(*point) for point in _curve(proposal)],
                "warnings": _warnings(proposal, args.min_recall, args.holdout),
            }
            for proposal in proposals
        ],
        "together": {name: tally.to_json() for name, tally in tallies.items()},
    }
    return json.dumps(document, indent=2) + "\n"
