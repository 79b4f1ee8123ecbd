"""The command `tune`: proposes scores and areas from a truth file, and proves them on later ones.

Each label that raises the alert is tuned on its own, for all cameras of a profile together or for
each camera. What is proposed is found on the earlier part of each camera's pictures; what it is
worth is told by the later part, which nothing was tuned on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from beam_pipeline import archive_job, counts
from beam_pipeline.errors import SetupError
from beam_pipeline.evaluation.evaluate import (
    HEADER,
    add_shared_arguments,
    open_inputs,
    ruled,
    share_text,
    tally_cells,
)
from transforms.times import parse_time

if TYPE_CHECKING:
    import rules
    from beam_pipeline.archive_job import Selection
    from beam_pipeline.evaluation.metrics import Picture, Tally
    from beam_pipeline.evaluation.rule_edits import Edit
    from beam_pipeline.evaluation.tuning import Cases, Measured, Values
    from transforms.archive import ArchivedImage, Problem
    from transforms.records import DetectedImage

_TUNED = ("min_score", "min_area", "max_area")
_CURVE_STEP = 5  # Of `tuning.SCORES`: a line each 0.05.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command ``tune``."""
    add_shared_arguments(parser)
    parser.add_argument("--rules", required=True, metavar="FILE", help="the rule file to improve")
    parser.add_argument(
        "--min_recall",
        type=_above_0,
        default=0.98,
        metavar="SHARE",
        help="the least recall, above 0 to 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--recall_of",
        choices=("pictures", "incidents"),
        default="pictures",
        help="what recall counts: pictures with a threat, or incidents (see --incident_gap), of "
        "which one picture must raise the alert (default: %(default)s)",
    )
    parser.add_argument(
        "--per",
        choices=("profile", "camera"),
        default="profile",
        help="values for all cameras of a profile together, or for each camera "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--holdout",
        type=_below_1,
        default=0.3,
        metavar="SHARE",
        help="the part of each camera's pictures with truth, the latest of them, on which nothing "
        "is tuned and which tells what the proposal is worth; 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--write",
        metavar="FILE",
        help="write the rules with what is proposed, and the truth supports, to a new file, "
        "comments kept; nothing is written without it",
    )
    parser.add_argument(
        "--write_guesses",
        action="store_true",
        help="write proposals too that are marked TOO FEW or NOT HELD, or that no later picture "
        "proves",
    )
    parser.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help="table to read, json for a program (default: %(default)s)",
    )


def _above_0(text: str) -> float:
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def _below_1(text: str) -> float:
    value = _number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 0 and below 1")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


class _Kept:
    """An archive whose pictures were read once."""

    has_verdicts = True

    def __init__(self, images: Mapping[str, Sequence[ArchivedImage]]) -> None:
        self.ids = frozenset(images)
        self._images = images

    def images(
        self, id: str, since: datetime | None, until: datetime | None, problems: list[Problem]
    ) -> Iterator[tuple[DetectedImage, dict[str, Any] | None]]:
        """The pictures of one camera, all that were read."""
        return ((one.image, one.threat) for one in self._images[id])


def _kept(chosen: Selection, by: rules.Rules) -> Selection:
    """The same pictures, which are looked at again and again, in memory."""
    from beam_pipeline.evaluation.beside_truth import earliest
    from transforms.archive import Archive

    images = {
        id: list(chosen.archive.images(id, earliest(chosen, by, id), chosen.until))
        for id in chosen.ids
    }
    return replace(chosen, archive=Archive(chosen.archive.uris, (_Kept(images),)))


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


def groups(by: rules.Rules, ids: Sequence[str], per: str) -> list[Group]:
    """Which cameras are tuned together, for each label that raises the alert.

    Per profile: the cameras of each profile; those without one, whose values go into the defaults,
    or to each of them where profiles would inherit them; and on its own each camera that has values
    of its own.
    """
    has_profiles = any(camera.profile is not None for camera in by.by_camera.values())
    found: dict[tuple[str, str], list[str]] = {}
    for id in ids:
        camera = by.for_camera(id)
        for label, rule in camera.objects.items():
            if rule.severity != "alert":
                continue
            its_own = any(rule.origin(name).startswith("cameras.") for name in _TUNED)
            if per == "camera" or its_own:
                name = f"camera {id}"
            elif camera.profile is not None:
                name = f"profile {camera.profile}"
            else:
                name = "no profile"
            found.setdefault((name, label), []).append(id)

    def layers(name: str, its: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        if name.startswith("profile "):
            return (("profiles", name.removeprefix("profile ")),)
        if name == "no profile" and not has_profiles:
            return (("defaults",),)
        return tuple(("cameras", id) for id in its)

    return [
        Group(name, label, layers(name, its), tuple(its))
        for (name, label), its in sorted(found.items())
    ]


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
        """Whether the truth is enough to believe it, and the later pictures bear it out."""
        return self.proposed is not None and not _warnings(self, min_recall, holdout)

    @property
    def edits(self) -> list[Edit]:
        """What makes them hold."""
        from beam_pipeline.evaluation.rule_edits import Edit

        changes = self.changes
        return [Edit(layer, self.group.label, changes) for layer in self.group.layers if changes]


def main(args: argparse.Namespace) -> int:
    """Prints, and writes where asked, what `args` (see `add_arguments`) asks for.

    Raises:
      SetupError: What a person must put right, in one line; nothing has been printed then.
      CommandFailed: A store can't be reached any more.
    """
    from beam_pipeline.evaluation import metrics
    from beam_pipeline.evaluation.beside_truth import absent_cameras, compare
    from beam_pipeline.evaluation.rule_edits import edited
    from beam_pipeline.job import load_labels, load_rules, read_file
    from transforms import stores

    chosen, truth = open_inputs(args)
    archive, labels = chosen.archive, frozenset(load_labels(args.labels).values())
    content = read_file(args.rules, "--rules")
    by = load_rules(content, args.rules, labels)
    target = None if args.write is None else _new_file(args.write)
    with archive_job.failing():
        kept = _kept(chosen, by)
    compared = compare(kept, truth, by=by, anew=True)
    starts = later_starts(compared.pictures, args.holdout)
    proposals = []
    for group in groups(by, list(starts), args.per):
        cases = _cases(group, by, kept, compared.pictures, starts)
        if args.recall_of == "incidents":
            cases = replace(cases, gap=args.incident_gap)
        proposals.append(Proposal(group, cases, _found(cases, args.min_recall)))
    edits = [edit for one in proposals for edit in one.edits]
    text = edited(content.decode("utf-8-sig"), edits).encode() if edits else content
    after = load_rules(text, f"{args.rules} with what is proposed", labels)
    together = {"now": compared.pictures}
    if edits:
        together["proposed"] = compare(kept, truth, by=after, anew=True).pictures
    if args.holdout:
        together |= {
            f"{name}, later": [one for one in pictures if _is_later(one, starts)]
            for name, pictures in together.items()
        }
    tallies = {
        name: metrics.total(pictures, args.incident_gap) for name, pictures in together.items()
    }
    render = _json if args.format == "json" else _table
    counts.write_stdout(render(proposals, tallies, args))
    notes = [
        *compared.notes(),
        *absent_cameras(by, archive),
        *_only_in_zones(by, compared.pictures),
    ]
    for line in notes:
        print(line, file=sys.stderr)
    archive_job.tell_problems(archive.problems, "evaluate --format json lists all")
    if target is not None:
        left_out = [
            one
            for one in proposals
            if one.edits
            and not (args.write_guesses or one.is_supported(args.min_recall, args.holdout))
        ]
        written = [edit for one in proposals if one not in left_out for edit in one.edits]
        if written:
            text = edited(content.decode("utf-8-sig"), written).encode()
            load_rules(text, f"{args.rules} with what is proposed", labels)
            with archive_job.failing():
                stores.write_bytes(target, text)
        print(f"written to {target}" if written else "nothing to write", file=sys.stderr)
        if left_out:
            names = ", ".join(f"{one.group.label} of {one.group.name}" for one in left_out)
            print(
                f"left out, as the truth does not support it: {names}; --write_guesses writes all",
                file=sys.stderr,
            )
    return 0


def later_starts(pictures: Sequence[Picture], holdout: float) -> dict[str, datetime | None]:
    """When the later part of each camera's pictures begins, by camera; None where it has none.

    Args:
      pictures: Those with truth, of each camera together and in order of time.
      holdout: Which part of them is the later, 0 to less than 1; rounded down.
    """
    moments: dict[str, list[datetime]] = {}
    for one in pictures:
        moments.setdefault(one.id, []).append(parse_time(one.timestamp))
    starts: dict[str, datetime | None] = {}
    for id, its in moments.items():
        number = int(len(its) * holdout + 1e-9)
        starts[id] = its[-number] if number else None
    return starts


def _is_later(picture: Picture | rules.Image, starts: Mapping[str, datetime | None]) -> bool:
    start = starts[picture.id]
    return start is not None and parse_time(picture.timestamp) >= start


def _cases(
    group: Group,
    by: rules.Rules,
    kept: Selection,
    pictures: Sequence[Picture],
    starts: Mapping[str, datetime | None],
) -> Cases:
    from beam_pipeline.evaluation.tuning import Case, Cases, of_label

    true = {(one.id, one.timestamp): group.label in one.wanted for one in pictures}
    cases = []
    for id in group.ids:
        images = [
            of_label(one.image.for_rules(), group.label)
            for one in kept.archive.images(id)
            if by.needs_history(id) or (id, one.image.timestamp) in true
        ]
        cases.append(
            Case(
                by.for_camera(id),
                images,
                [true.get((id, image.timestamp)) for image in images],
                [_is_later(image, starts) for image in images],
            )
        )
    return Cases(group.label, cases)


def _found(cases: Cases, min_recall: float) -> Values | None:
    from beam_pipeline.evaluation.tuning import propose

    # Without pictures that show no threat the lowest score would be the best.
    if not cases.measure(cases.now).others:
        return None
    return propose(cases.measure, cases.now, cases.areas_to_try(min_recall), min_recall)


def _only_in_zones(by: rules.Rules, pictures: Sequence[Picture]) -> list[str]:
    left = sorted(
        {
            f"{label} on {one.id}"
            for one in pictures
            for label, _ in one.looked_for
            if label not in by.for_camera(one.id).objects
        }
    )
    return [f"not tuned, as only zones name it: {', '.join(left)}"] if left else []


def _new_file(path: str) -> str:
    from transforms import stores

    file = archive_job.writable_file("--write", path)
    try:
        stores.read_bytes(file, at_most=1)
    except FileNotFoundError:
        return file
    except OSError:
        pass  # It is there, if not for us to read.
    raise SetupError(f"--write {path}: is there already; give the name of a new file")


# Printing


def _warnings(one: Proposal, min_recall: float, holdout: float) -> list[str]:
    from beam_pipeline.evaluation.tuning import SCORES, Values, threats_needed

    cases, label = one.cases, one.group.label
    measured = cases.measure(one.proposed or cases.now)
    if not measured.threats:
        return [
            f"the truth has no picture here that is to raise the alert for {label}: nothing is "
            "proposed"
        ]
    if not measured.others:
        return [
            f"the truth has no picture without {label} here, so that false alerts can't be told: "
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
    if one.proposed is None:
        most = cases.measure(Values(SCORES[0], None, None))
        lines.append(
            f"no values keep a recall of {min_recall:g}: the detector and the other filters leave "
            f"{most.caught} of {most.threats}; nothing is proposed"
        )
        return lines
    later = cases.measure(one.proposed, later=True)
    if later.threats and not later.keeps(min_recall):
        lines.append(
            f"NOT HELD: on the later pictures {later.caught} of {later.threats} are caught"
        )
    if holdout and not later.threats:
        lines.append(f"the later pictures have no {label}: nothing proves the proposal")
    return lines


def _lines_of(one: Proposal) -> dict[str, tuple[Values, bool]]:
    """What is measured of a proposal: by name the values, and whether on the later part."""
    lines: dict[str, tuple[Values, bool]] = {}
    values = {"now": one.cases.now, "proposed": one.proposed}
    has_later = any(any(case.is_later) for case in one.cases.cases)
    for name, tried in values.items():
        if tried is None:
            continue
        lines[name] = tried, False
        if has_later:
            lines[f"{name}, later"] = tried, True
    return lines


def _curve(one: Proposal) -> list[tuple[Values, Measured]]:
    """What comes of other scores with the areas that are proposed, and of the proposal itself."""
    from beam_pipeline.evaluation.tuning import SCORES

    middle = one.proposed or one.cases.now
    points: list[tuple[Values, Measured]] = []
    for score in sorted({*SCORES[::_CURVE_STEP], middle.min_score}):
        values = replace(middle, min_score=score)
        points.append((values, one.cases.measure(values)))
        if score >= middle.min_score and not (points[-1][1].caught or points[-1][1].false_alerts):
            break  # Higher scores let nothing through either.
    return points


def _table(
    proposals: Sequence[Proposal], tallies: Mapping[str, Tally], args: argparse.Namespace
) -> str:
    blocks = []
    for one in proposals:
        cases = one.cases
        lines = [f"{one.group.label}, {one.group.name} ({', '.join(one.group.ids)})\n"]
        warnings = _warnings(one, args.min_recall, args.holdout)
        if cases.measure(cases.now).threats:
            rows = [
                (
                    name,
                    *(_value(getattr(values, key)) for key in _TUNED),
                    *_cells(cases.measure(values, later=later)),
                )
                for name, (values, later) in _lines_of(one).items()
            ]
            lines.append(ruled([("", *_TUNED, *_MEASURED), *rows]))
            curve = [
                (
                    f"{values.min_score:.2f}" + (" *" if values == one.proposed else ""),
                    *_cells(measured),
                )
                for values, measured in _curve(one)
            ]
            lines.append(ruled([("min_score", *_MEASURED), *curve]))
        blocks.append("\n".join([*lines, *(f"{line}\n" for line in warnings)]))
    rows = [(name, *tally_cells(tally)) for name, tally in tallies.items()]
    blocks.append(f"all rules together\n\n{ruled([('', *HEADER), *rows])}")
    return "\n".join(blocks)


_MEASURED = ("threats", "recall", "false alerts", "/camera/day")


def _cells(measured: Measured) -> tuple[str, ...]:
    from beam_pipeline.evaluation.metrics import wilson

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
    proposals: Sequence[Proposal], tallies: Mapping[str, Tally], args: argparse.Namespace
) -> str:
    def measured_json(values: Values, measured: Measured) -> dict[str, Any]:
        return {**asdict(values), **asdict(measured), "recall": measured.recall}

    document = {
        "min_recall": args.min_recall,
        "recall_of": args.recall_of,
        "holdout": args.holdout,
        "proposals": [
            {
                "group": one.group.name,
                "label": one.group.label,
                "ids": one.group.ids,
                "changes": one.changes,
                "measured": {
                    name: measured_json(values, one.cases.measure(values, later=later))
                    for name, (values, later) in _lines_of(one).items()
                },
                "curve": [measured_json(*point) for point in _curve(one)],
                "warnings": _warnings(one, args.min_recall, args.holdout),
            }
            for one in proposals
        ],
        "together": {name: tally.to_json() for name, tally in tallies.items()},
    }
    return json.dumps(document, indent=2) + "\n"
