"""What marks say of an image: which labels it shows, which it does not, and what is unknown.

Marks are no truth file. They speak of the labels that an alert names, and of what somebody missed;
of all else in the image, and of all other images, they say nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from transforms.storage.marks import FALSE, MISSED, RIGHT, Box, Mark, standing

Key = tuple[str, str]
"""A camera and a canonical capture time."""


@dataclass(frozen=True)
class Facts:
    """What is known of one image.

    Attributes:
      present: The labels that it shows, each with the boxes that are known.
      absent: The labels that it does not show.
      some_of: Of each of these groups it shows at least one label, and which is unknown: an alert
        that names several was marked right as a whole.
      disputed: The labels on which people contradict each other; nothing is known of them.
      named: The labels that the alert names.
      unboxed: The labels that it shows and of which at least one object has no known box.
    """

    present: Mapping[str, tuple[Box, ...]]
    absent: frozenset[str]
    some_of: tuple[frozenset[str], ...] = ()
    disputed: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    unboxed: frozenset[str] = frozenset()

    @property
    def says_something(self) -> bool:
        """Whether anything is known."""
        return bool(self.present or self.absent or self.some_of)

    @property
    def is_threat(self) -> bool:
        """Whether it is known to show something that the alert is to be raised for."""
        return bool(self.present or self.some_of)

    @property
    def is_complete(self) -> bool:
        """Whether it is known of each label that the alert names."""
        return self.says_something and self.named <= {*self.present, *self.absent}

    def is_right(self, labels: Iterable[str]) -> bool | None:
        """Returns whether an alert for labels is right; None if that is unknown.

        It is right if one of its labels is there, and false if none is.
        """
        alerted = frozenset(labels)
        if alerted & self.present.keys() or any(group <= alerted for group in self.some_of):
            return True
        return False if alerted <= self.absent else None


def facts_of(marks: Iterable[Mark]) -> dict[Key, Facts]:
    """Returns what is known of each image that has a mark.

    Args:
      marks: All marks, the oldest first.
    """
    by_image: dict[Key, list[Mark]] = {}
    for mark in standing(marks):
        by_image.setdefault((mark.id, mark.timestamp), []).append(mark)
    return {key: _facts(image_marks) for key, image_marks in by_image.items()}


def _facts(marks: list[Mark]) -> Facts:
    """Returns what is known by the marks that stand of one image.

    A mark is a claim: `false` that none of its labels is there, `right` and `missed` that at least
    one of them is. Of labels that are claimed in vain, as all of them are denied, nothing is known.
    """
    denied = {label for mark in marks if mark.mark == FALSE for label in _labels(mark, marks)}
    claims = [_labels(mark, marks) for mark in marks if mark.mark in (RIGHT, MISSED)]
    disputed = frozenset(label for claim in claims if claim <= denied for label in claim)
    absent = frozenset(denied - disputed)
    left = {claim - absent for claim in claims if not claim & disputed}
    present = {label for claim in left if len(claim) == 1 for label in claim}
    some_of = sorted((claim for claim in left if claim and not claim & present), key=sorted)
    return Facts(
        {label: tuple(filter(None, _known_boxes(label, marks))) for label in sorted(present)},
        absent,
        tuple(some_of),
        disputed,
        frozenset(threat.label for mark in marks for threat in mark.threats),
        frozenset(label for label in present if None in _known_boxes(label, marks)),
    )


def _labels(mark: Mark, marks: list[Mark]) -> frozenset[str]:
    """Returns the labels that a mark is about; one of the whole alert is not about those that the
    same person has marked apart."""
    if mark.label is not None:
        return frozenset((mark.label,))
    named = {threat.label for threat in mark.threats}
    own = [
        other
        for other in marks
        if (other.alert_id, other.by) == (mark.alert_id, mark.by) and other.label is not None
    ]
    if mark.mark == FALSE:
        return frozenset(named - {str(other.label) for other in own})
    # A right label leaves it open which of the others are right too, and does not contradict it.
    return frozenset(named - {str(other.label) for other in own if other.mark == FALSE})


def _known_boxes(label: str, marks: list[Mark]) -> list[Box | None]:
    """Returns the boxes of a label: those of the alert, if it is right, and those of what it
    missed; None for an object without one."""
    return [*_boxes(label, marks)] or [None]


def _boxes(label: str, marks: list[Mark]) -> Iterator[Box | None]:
    is_right = any(mark.mark == RIGHT and label in _labels(mark, marks) for mark in marks)
    newest = {mark.alert_id: mark.threats for mark in marks}
    for threat in (threat for threats in newest.values() for threat in threats if is_right):
        if threat.label == label:
            yield threat.bbox
    for mark in marks:
        if mark.mark == MISSED and mark.label == label:
            yield from mark.bboxes or (None,)
