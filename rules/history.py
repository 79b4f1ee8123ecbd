"""The history of one camera, for the rules that look at more than one image.

Pass the same `History` for each image of a camera, in the order of capture time. An image that
arrives after a later one is judged by the images before it in capture time, except that later
images can confirm it too, and it does not change earlier verdicts.

A history is bounded: it keeps at most twice as many images as `repeats` can look back on, for each
label at most four times as many capture times as `confirm` requires, twice `TRACKED_IMAGES` images
for `track`, and the alerts that `rules.cooldown` keeps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rules.cooldown import PastAlert
from rules.effective import CameraRules, Repeats, Track
from rules.geometry import Bbox, has_moved, iou, is_same_object

TRACKED_IMAGES = 32
"""The number of earlier images on which `track` can look back."""


@dataclass
class PastImage:
    """An image that was judged, for `repeats` or `track`.

    Attributes:
        capture_time: Its capture time in microseconds since 1970.
        sha256: The hash of its bytes.
        sightings: The boxes of each label that can be a repeat, or can have moved.
    """

    capture_time: int
    sha256: str
    sightings: dict[str, tuple[Bbox, ...]]


@dataclass
class History:
    """The history of one camera; empty at first. It is plain data, which can be stored anywhere.

    Attributes:
        images: The images that `repeats` can look back on, in the order of capture time.
        candidates: For each label that needs confirmation, the capture times of its images, in the
            order of arrival, in microseconds since 1970.
        alerts: The alerts that may cover further images, in the order of their verdicts.
        newest: The newest capture time, in microseconds since 1970.
        tracked: The images that `track` can look back on, in the order of capture time.
        kept_until: Until when whoever stores it keeps it, in microseconds since 1970; 0 if unknown.
    """

    images: list[PastImage] = field(default_factory=list)
    candidates: dict[str, list[int]] = field(default_factory=dict)
    alerts: list[PastAlert] = field(default_factory=list)
    newest: int = 0
    tracked: list[PastImage] = field(default_factory=list)
    kept_until: int = 0

    def count_occurrences(self, label: str, box: Bbox, capture_time: int, repeats: Repeats) -> int:
        """Counts the earlier images with a label in the same place, up to ``occurrences``.

        Looks back from the newest image before `capture_time`, as far as ``within`` and until the
        object is absent from ``forget_after`` consecutive images.
        """
        earliest = capture_time - repeats.within_microseconds
        occurrences = absences = 0
        for image in _before(self.images, capture_time):
            if image.capture_time < earliest:
                break
            sightings = image.sightings.get(label, ())
            if any(iou(box, sighting) >= repeats.iou for sighting in sightings):
                occurrences, absences = occurrences + 1, 0
                if occurrences == repeats.occurrences:
                    break
            else:
                absences += 1
                if absences == repeats.forget_after:
                    break
        return occurrences

    def moved_since(
        self,
        label: str,
        box: Bbox,
        boxes: Sequence[Bbox],
        capture_time: int,
        track: Track,
        size: tuple[int, int],
    ) -> int | None:
        """Finds the newest earlier image from which an object has moved to its place.

        In that image, an object of the label was nearby, and none was in the place of `box`; in
        the present image, no object is where that one was. Two objects that stand still and are
        detected in turns look the same at first, but then one of them is detected again where it
        was. So an object has not moved if, within `Track.looks_back`, something was in its present
        place before something was in the earlier place, or at the same time.

        Args:
            label: The label.
            box: The box of the object.
            boxes: All boxes of the label in the present image.
            capture_time: The capture time of the present image.
            track: The settings.
            size: The width and height of the image in pixels.

        Returns:
            The microseconds since that image; None if there is none within ``within``.
        """
        earliest = capture_time - track.within_microseconds
        for image in _before(self.tracked, capture_time):
            if image.capture_time < earliest:
                break
            sightings = image.sightings.get(label, ())
            if any(is_same_object(box, sighting) for sighting in sightings):
                continue
            for sighting in sightings:
                stays = any(is_same_object(other, sighting) for other in boxes)
                if (
                    not stays
                    and has_moved(sighting, box, size)
                    and not self._both_stand(label, sighting, box, capture_time, track)
                ):
                    return capture_time - image.capture_time
        return None

    def _both_stand(
        self, label: str, before: Bbox, after: Bbox, capture_time: int, track: Track
    ) -> bool:
        """Returns whether something was in the place `after` before something was in the place
        `before`, or at the same time.

        A box that overlaps both places says nothing: it may be of an object on its way.
        """
        earliest = capture_time - track.looks_back_microseconds
        before_was_seen = False
        for image in _before(self.tracked, capture_time):
            if image.capture_time < earliest:
                break
            places = [
                (is_same_object(before, sighting), is_same_object(after, sighting))
                for sighting in image.sightings.get(label, ())
            ]
            before_was_seen = before_was_seen or (True, False) in places
            if before_was_seen and (False, True) in places:
                return True
        return False

    def count_candidates(self, label: str, capture_time: int, within_microseconds: int) -> int:
        """Counts the other images with a candidate of a label, at most that far away in time.

        If images arrive in order, all of them are earlier. Images that overtake each other still
        confirm each other: otherwise the job would miss an intruder whose images arrive out of
        order.
        """
        distances = (abs(time - capture_time) for time in self.candidates.get(label, ()))
        return sum(0 < distance <= within_microseconds for distance in distances)

    def add_image(
        self,
        image: PastImage,
        tracked: PastImage,
        candidates: Iterable[str],
        camera: CameraRules,
    ) -> None:
        """Adds an image that was judged.

        Args:
            image: The image with what can be a repeat. Of two images with the same capture time,
                the history keeps the one with the smaller sha256.
            tracked: The image with what can have moved.
            candidates: The labels that are threats once they are confirmed.
            camera: The rules of the camera, which bound the history.
        """
        capture_time = image.capture_time
        self.newest = max(self.newest, capture_time)
        if camera.repeats is not None:
            _add_sightings(self.images, image, camera.repeats.images_needed)
        else:
            self.images.clear()
        if camera.track is not None:
            _add_sightings(self.tracked, tracked, TRACKED_IMAGES)
        else:
            self.tracked.clear()
        if camera.confirm is None:
            self.candidates.clear()
            return
        for label in candidates:
            times = self.candidates.setdefault(label, [])
            if capture_time not in times:
                times.append(capture_time)
                _forget_candidates(times, 2 * camera.confirm.pictures)


def _before(images: list[PastImage], capture_time: int) -> Iterator[PastImage]:
    newest = bisect_left(images, capture_time, key=_capture_time) - 1
    for index in range(newest, -1, -1):
        yield images[index]


def _add_sightings(images: list[PastImage], image: PastImage, kept: int) -> None:
    """Adds an image, and forgets others: `kept` are kept, the newest.

    After a camera's clock was set back, all of these are later than each further image. So as
    many are kept of those that are older than them.
    """
    index = bisect_left(images, image.capture_time, key=_capture_time)
    if index < len(images) and images[index].capture_time == image.capture_time:
        if image.sha256 < images[index].sha256:
            images[index] = image
        return
    images.insert(index, image)
    if image is images[-1]:
        del images[:-kept]
    elif len(images) > 2 * kept:
        del images[index + 1 if index < kept else 0]


def _forget_candidates(times: list[int], kept: int) -> None:
    """Forgets the capture times that are neither among the last that arrived nor the newest.

    The newest ones alone would be of no use once a camera's clock was set back: each image after
    that is older. Twice as many as needed are kept, as some may be later than an image that arrives
    late.

    Args:
        times: The capture times, in the order of arrival.
        kept: How many of each kind are kept.
    """
    newest = set(sorted(times)[-kept:])
    times[:-kept] = [time for time in times[:-kept] if time in newest]


def _capture_time(image: PastImage) -> int:
    return image.capture_time
