"""What one camera has shown so far, for the rules that look at more than one picture.

Give the same `History` to each picture of a camera, in the order of time. A picture that comes
after a later one is judged by what was earlier than it, but that later ones may confirm it too, and
changes nothing that was judged before.

What is kept is bounded: of pictures as many as `repeats` can look back on, of each label that was
seen as many moments as `confirm` asks for, and of alerts the newest `MAX_ALERTS`.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rules.effective import CameraRules, Repeats
from rules.geometry import Bbox, iou

MAX_ALERTS = 100
MAX_COVERED = 1000


def alert_id(camera: str, timestamp: str, severity: str) -> str:
    """The same for the same event in every run: the first 32 hex digits of sha256 over id,
    canonical time and severity, joined by newlines."""
    event = "\n".join((camera, timestamp, severity))
    return hashlib.sha256(event.encode()).hexdigest()[:32]


@dataclass(order=True)
class _PastPicture:
    moment: int
    sha256: str = field(compare=False)
    sightings: dict[str, tuple[Bbox, ...]] = field(compare=False)


@dataclass(order=True)
class PastAlert:
    """An alert that was sent, and what it has covered since.

    Attributes:
        moment: when its picture was taken, in microseconds since 1970.
        alert_id: its id.
        labels: what it told of, and what the alerts told of in whose cooldown it came.
        covered: moments of the pictures that it covers, the newest `MAX_COVERED`.
        covered_before: how many more there were.
    """

    moment: int
    alert_id: str = field(compare=False)
    labels: frozenset[str] = field(compare=False)
    covered: list[int] = field(compare=False, default_factory=list)
    covered_before: int = field(compare=False, default=0)

    def cover(self, moment: int) -> int:
        """Adds a picture; its number in the incident, of which the alert's own is the first."""
        place = bisect_left(self.covered, moment)
        if self.covered[place : place + 1] != [moment]:
            self.covered.insert(place, moment)
        number = self.covered_before + place + 2
        if len(self.covered) > MAX_COVERED:
            del self.covered[0]
            self.covered_before += 1
        return number


class History:
    """What one camera has shown so far. Picklable; begin with an empty one."""

    def __init__(self) -> None:
        self._pictures: list[_PastPicture] = []
        self._candidates: dict[str, list[int]] = {}
        self._alerts: list[PastAlert] = []
        self._newest = 0

    @property
    def newest(self) -> int:
        """The newest moment, in microseconds since 1970."""
        return self._newest

    def times_seen(self, label: str, box: Bbox, moment: int, by: Repeats) -> int:
        """In how many earlier pictures a label was seen at a place, at most ``occurrences``.

        Looks back from the newest picture before `moment`, as far as ``within`` and until the
        object is missing from ``forget_after`` pictures in a row.
        """
        earliest = moment - by.within_microseconds
        seen = missed = 0
        for picture in self._before(moment):
            if picture.moment < earliest:
                break
            sightings = picture.sightings.get(label, ())
            if any(iou(box, other) >= by.iou for other in sightings):
                seen, missed = seen + 1, 0
                if seen == by.occurrences:
                    break
            else:
                missed += 1
                if missed == by.forget_after:
                    break
        return seen

    def _before(self, moment: int) -> Iterator[_PastPicture]:
        for place in range(bisect_left(self._pictures, moment, key=_moment) - 1, -1, -1):
            yield self._pictures[place]

    def pictures_with(self, label: str, moment: int, within_microseconds: int) -> int:
        """How many other pictures had a candidate of a label, no further in time than that.

        Where pictures come in order, all are earlier. Where one has overtaken another, they still
        confirm each other: else an intruder would be missed whose pictures come in disorder.
        """
        moments = self._candidates.get(label, [])
        first = bisect_left(moments, moment - within_microseconds)
        number = bisect_right(moments, moment + within_microseconds) - first
        return number - (moment in moments)

    def covering(self, moment: int, labels: frozenset[str], cooldown: int) -> PastAlert | None:
        """The alert in whose cooldown (in microseconds) a picture comes; None where there is none,
        or where the picture shows a label that it did not tell of."""
        alert = self._last_alert(moment, cooldown)
        return alert if alert is not None and labels <= alert.labels else None

    def _last_alert(self, moment: int, cooldown: int) -> PastAlert | None:
        place = bisect_left(self._alerts, moment, key=_moment) - 1
        if place < 0 or moment - self._alerts[place].moment >= cooldown:
            return None
        return self._alerts[place]

    def note_picture(
        self,
        moment: int,
        sha256: str,
        sightings: dict[str, tuple[Bbox, ...]],
        candidates: Iterable[str],
        camera: CameraRules,
    ) -> None:
        """Adds a picture that was judged.

        Args:
            moment: when it was taken, in microseconds since 1970.
            sha256: of its bytes. Of two pictures of one moment the smaller one stands, as in the
                job.
            sightings: the boxes of each label that may be a repeat.
            candidates: the labels that are a threat once they are confirmed.
            camera: the rules, which say how much is to be kept.
        """
        self._newest = max(self._newest, moment)
        if camera.repeats is not None:
            self._note_sightings(_PastPicture(moment, sha256, sightings))
            del self._pictures[: -camera.repeats.pictures_needed]
        else:
            self._pictures.clear()
        if camera.confirm is None:
            self._candidates.clear()
            return
        for label in candidates:
            moments = self._candidates.setdefault(label, [])
            if moment not in moments:
                insort(moments, moment)
                # Twice as many as are needed: some may be later than a picture that comes late.
                del moments[: -2 * camera.confirm.pictures]

    def _note_sightings(self, picture: _PastPicture) -> None:
        place = bisect_left(self._pictures, picture)
        if self._pictures[place : place + 1] == [picture]:
            if picture.sha256 < self._pictures[place].sha256:
                self._pictures[place] = picture
        else:
            self._pictures.insert(place, picture)

    def note_alert(self, moment: int, its_id: str, labels: frozenset[str], cooldown: int) -> None:
        """Adds an alert that is sent.

        Args:
            moment: when its picture was taken, in microseconds since 1970.
            its_id: its id.
            labels: what it tells of.
            cooldown: how long it covers further pictures, in microseconds.
        """
        earlier = self._last_alert(moment, cooldown)
        known = labels if earlier is None else labels | earlier.labels
        place = bisect_left(self._alerts, moment, key=_moment)
        if self._alerts[place : place + 1] == [PastAlert(moment, its_id, known)]:
            return  # The same picture once more.
        self._alerts.insert(place, PastAlert(moment, its_id, known))
        expired = bisect_left(self._alerts, self._newest - cooldown + 1, key=_moment)
        del self._alerts[: max(expired, len(self._alerts) - MAX_ALERTS)]


def _moment(one: _PastPicture | PastAlert) -> int:
    return one.moment
