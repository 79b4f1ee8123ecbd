"""Simulates the detections of 20 cameras on one day, for a comparison of rules.

    python -m tests.rules.drawn_day [days] [seed of the first day]

The command prints the false alerts of plain thresholds and of the rules in ``drawn_day.yaml``, by
their true causes, and the number of intruders that each detects. The same seed draws the same day.

**The cameras.** Eight cameras show a business yard (``yard-``), with staff from 07:00 to 18:00;
eight show a drive with a street and a pavement behind (``drive-``), whose residents come and go
until late; four show the back of a building (``back-``), where nobody should be. Each shows a
parked car, sometimes a second one. A camera sends an image when something moves.

**Measured.** The detections of one object by YOLOX-nano at 416x416, the smallest of the models in
use, on 97 photographs, ten times each with different light (gain 0.5 to 1.25, gamma 0.8 to 1.3),
sensor noise, JPEG quality and up to 3 pixels of shift:

- `QUALITIES`: the spread of the score and of each edge of the box, and how often the object was
  missed, by its mean score.
- Vehicles with high scores kept their label; those below 0.7 had another label a third of the time.
- Of 30 persons with a fifth of the image's height or more, half scored above 0.84 and one below
  0.5; of 8 smaller ones, half were missed (`_person_score`).
- Of 42 photographs without a person, one had a person above 0.5 and four above 0.3. Here wind and
  rain alone cause phantoms (`_Day._weather`), but as many in all.

**Reported by users.** One visit of a cat in ten is detected as a person
(https://github.com/blakeblackshear/frigate/issues/137), and phantoms recur in one place
(https://github.com/blakeblackshear/frigate/issues/1743): here a third of them.

**Assumed.** The frequencies of people, cars, animals and weather (`_Day.draw`); that infrared
lowers a score by 0.1; and the intruders: one per camera, when nobody should be there, for 10 to
60 s with an image every 2 to 10 s. Three in ten start far away, small and mostly missed. Each has
its own mean score (0.72 in infrared, with a spread of 0.1), from which the images deviate by 0.08
with the pose; one image in twenty does not show the intruder, and in one in ten the intruder
crouches: a wide box with a score lower by 0.2. So any rules can miss an intruder.

The simulation omits objects that hide each other, moving cameras, and snow.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from rules import Detection, History, Image, Rules, load_rules, parse_rules

CAMERAS = tuple(
    f"{kind}-{number}"
    for kind, count in (("yard", 8), ("drive", 8), ("back", 4))
    for number in range(1, count + 1)
)
FULL = Path(__file__).with_name("drawn_day.yaml")
PLAIN = """\
version: 1
defaults:
  objects: {person: {min_score: 0.5}, car: {min_score: 0.5}, truck: {min_score: 0.5}}
  cooldown: 0s
"""

MIDNIGHT = datetime(2026, 1, 12, 23)
"""The start of the day in UTC: in Berlin, a Tuesday in winter, dark from 17:00 to 08:00."""

INTRUDER = "intruder"

WIDTH, HEIGHT = 1280, 720

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Quality:
    """The noise of a detector.

    Attributes:
        min_score: The minimum mean score of the objects with this noise.
        score: The standard deviation of the score.
        edge: The standard deviation of each edge of the box, as a fraction of its width or height.
        missed: The fraction of images in which the detector misses the object.
    """

    min_score: float
    score: float
    edge: float
    missed: float


QUALITIES = (
    Quality(0.7, score=0.014, edge=0.018, missed=0.002),
    Quality(0.5, score=0.05, edge=0.03, missed=0.01),
    Quality(-1.0, score=0.08, edge=0.04, missed=0.06),
)

CATEGORIES = {"person": "1", "car": "3", "truck": "8", "bench": "15", "cat": "17", "dog": "18"}


@dataclass(frozen=True)
class Thing:
    """An object that a detector can detect.

    Attributes:
        label: Its usual label.
        box: Its box.
        score: Its mean score.
        cause: What it really is.
        other_label: Its label in a third of the images; None for the usual one.
    """

    label: str
    box: Box
    score: float
    cause: str
    other_label: str | None = None


@dataclass(frozen=True)
class Parked:
    """A car that is parked from one second of the day to another."""

    thing: Thing
    since: float
    until: float


@dataclass(frozen=True)
class DrawnImage:
    """An image with its detections and their true causes.

    Attributes:
        image: The image with its detections.
        causes: What each detection really is.
        is_incident: Whether it is an image of the intrusion of its camera.
    """

    image: Image
    causes: tuple[str, ...]
    is_incident: bool


@dataclass
class Outcome:
    """The results of rules on simulated days.

    Attributes:
        images: The number of images.
        false_alerts: The number of alerts without an intruder among the threats, by the cause of
            the threat with the highest score.
        incidents: The intrusions.
        detected: The intrusions with an alert that shows the intruder, from their own images.
    """

    images: int = 0
    false_alerts: Counter[str] = field(default_factory=Counter)
    incidents: set[tuple[int, str]] = field(default_factory=set)
    detected: set[tuple[int, str]] = field(default_factory=set)

    @property
    def recall(self) -> float:
        """The fraction of the intrusions that were detected."""
        return len(self.detected) / len(self.incidents)


def draw_day(seed: int) -> list[DrawnImage]:
    """Draws the images of a day, in the order of capture time."""
    return _Day(random.Random(seed)).draw()


def judge_days(rules: Rules, days: list[list[DrawnImage]]) -> Outcome:
    """Judges days by rules; each camera starts each day with an empty history."""
    outcome = Outcome()
    for number, day in enumerate(days):
        histories = {camera: History() for camera in CAMERAS}
        for drawn in day:
            verdict = rules.judge(drawn.image, histories[drawn.image.id])
            outcome.images += 1
            if drawn.is_incident:
                outcome.incidents.add((number, drawn.image.id))
            if not verdict.alerts:
                continue
            by_score = sorted(verdict.threats, key=lambda threat: -threat.conf)
            causes = [drawn.causes[threat.detection] for threat in by_score]
            if INTRUDER not in causes:
                outcome.false_alerts[causes[0]] += 1
            else:
                outcome.detected.add((number, drawn.image.id))
    return outcome


def load_plain() -> Rules:
    """Returns rules with thresholds alone."""
    return parse_rules(PLAIN, "plain.yaml")


def load_full() -> Rules:
    """Returns the rules of ``drawn_day.yaml``."""
    return load_rules(FULL)


def detect(thing: Thing, rng: random.Random) -> tuple[Detection, str] | None:
    """Draws the detection of an object, with its cause; None for a score below 0.05 or a miss."""
    quality = next(quality for quality in QUALITIES if thing.score >= quality.min_score)
    score = round(min(0.97, rng.gauss(thing.score, quality.score)), 4)
    if score < 0.05 or rng.random() < quality.missed:
        return None
    left, top, width, height = thing.box
    x_min, x_max = (_edge(rng, edge, quality.edge * width) for edge in (left, left + width))
    y_min, y_max = (_edge(rng, edge, quality.edge * height) for edge in (top, top + height))
    if x_min >= x_max or y_min >= y_max:
        return None
    label = thing.other_label if thing.other_label and rng.random() < 1 / 3 else thing.label
    box = (x_min, y_min, round(x_max - x_min, 4), round(y_max - y_min, 4))
    return Detection(CATEGORIES[label], label, score, box), thing.cause


def _edge(rng: random.Random, mean: float, spread: float) -> float:
    return round(min(1.0, max(0.0, rng.gauss(mean, spread))), 4)


class _Day:
    """Draws one day. Times are seconds since midnight."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._images: dict[tuple[str, int], DrawnImage] = {}
        self._parked: dict[str, list[Parked]] = {camera: [] for camera in CAMERAS}
        self._wind = {camera: [self._span(0, 24, 1.5) for _ in range(3)] for camera in CAMERAS}
        self._rain = [self._span(0, 6, 1.5), self._span(18, 24, 1.5)]

    def draw(self) -> list[DrawnImage]:
        for camera in CAMERAS:
            self._park(camera)
        for camera in CAMERAS:
            self._intrude(camera)
        for camera in CAMERAS:
            kind = camera.partition("-")[0]
            self._weather(camera)
            self._times(camera, 6, 0, 24, self._animal)
            self._times(camera, 10, 0, 24, self._nothing)
            self._times(camera, 0.2, 18, 31, self._people)
            if kind == "yard":
                self._times(camera, 60, 7, 18, self._people)
                self._times(camera, 10, 7, 18, self._driving)
            if kind == "drive":
                self._times(camera, 8, 6.5, 22.5, self._people)
                self._times(camera, 0.3, 22.5, 24, self._people)
            if kind != "back":
                self._times(camera, 50, 6, 23, self._street_car)
                self._times(camera, 5, 23, 30, self._street_car)
                self._times(camera, 24, 7, 22, self._passer_by)
                self._times(camera, 2, 22, 31, self._passer_by)
        return sorted(
            self._images.values(), key=lambda drawn: (drawn.image.timestamp, drawn.image.id)
        )

    # The objects

    def _park(self, camera: str) -> None:
        """Parks at least one car, and others that arrive and depart."""
        kind = camera.partition("-")[0]
        hours = self._rng.uniform
        if kind == "yard":
            stays = [(0.0, 24.0), (hours(6.8, 9), hours(16, 19)), (hours(9, 12), hours(13, 17))]
        elif kind == "drive":
            stays = [(0.0, hours(7, 9)), (hours(16, 18.5), 24.0)]
        else:
            stays = [(0.0, hours(8, 16)), (hours(17, 20), 24.0)]
        for index, (since, until) in enumerate(stays):
            bottom = 0.55 + 0.1 * index + self._rng.uniform(-0.02, 0.02)
            car = self._car(0.2 + 0.25 * index, bottom, 0.24, "parked car")
            self._parked[camera].append(Parked(car, since * 3600, until * 3600))
            for hour, arrives in ((since, True), (until, False)):
                if 0 < hour < 24:
                    self._arrive_or_depart(camera, car, hour * 3600, arrives)

    def _arrive_or_depart(self, camera: str, car: Thing, second: float, arrives: bool) -> None:
        for step in (3, 2, 1):
            x, y, width, height = car.box
            box = (x + 0.12 * step, y + 0.03 * step, width, height)
            moving = replace(car, box=box, cause="arriving or departing car")
            self._capture(camera, second + (-4 if arrives else 4) * step, [moving])

    def _car(self, x: float, bottom: float, height: float, cause: str) -> Thing:
        height *= self._rng.uniform(0.8, 1.2)
        width = height * self._rng.uniform(1.6, 2.2) * HEIGHT / WIDTH
        score = self._rng.choice([0.85, 0.8, 0.7, 0.6, 0.5])
        other_label = "truck" if score < 0.7 else None
        return Thing("car", (x, bottom - height, width, height), score, cause, other_label)

    def _person(self, x: float, bottom: float, score: float, cause: str, crouches: bool) -> Thing:
        """Draws a person, by distance: 1/8 of the image's height in the street, half nearby."""
        height = max(0.08, 0.13 + 0.75 * (bottom - 0.35)) * self._rng.uniform(0.88, 1.12)
        ratio = min(0.6, max(0.25, self._rng.gauss(0.4, 0.07)))
        if crouches:
            height, ratio, score = height * 0.55, self._rng.uniform(0.7, 1.2), score - 0.2
        width = height * ratio * HEIGHT / WIDTH
        score = _person_score(height, score)
        return Thing("person", (x - width / 2, bottom - height, width, height), score, cause)

    def _walk(
        self,
        camera: str,
        start: float,
        offsets: list[float],
        cause: str,
        mean: float,
        first: float,
        last: float,
        is_incident: bool = False,
    ) -> None:
        """Captures a person who walks from one side of the scene to another.

        Args:
            camera: The id of the camera.
            start: The start of the walk.
            offsets: The capture times after the start.
            cause: The cause of the detections.
            mean: The mean score.
            first: The lower edge of the first box.
            last: The lower edge of the last box.
            is_incident: Whether the person is the intruder.
        """
        begin, end = self._rng.uniform(0.05, 0.95), self._rng.uniform(0.05, 0.95)
        for index, offset in enumerate(offsets):
            way = index / max(1, len(offsets) - 1)
            crouches = is_incident and self._rng.random() < 0.1
            score = self._rng.gauss(mean, 0.08) - (0.1 if _is_dark(start + offset) else 0)
            person = self._person(
                begin + (end - begin) * way, first + (last - first) * way, score, cause, crouches
            )
            hidden = self._rng.random() < 0.05
            self._capture(camera, start + offset, [] if hidden else [person], is_incident)

    # The events

    def _intrude(self, camera: str) -> None:
        kind = camera.partition("-")[0]
        hour = {
            "yard": lambda: self._rng.uniform(18, 31) % 24,
            "drive": lambda: self._rng.uniform(22.6, 29.9) % 24,
            "back": lambda: self._rng.uniform(0, 24),
        }[kind]()
        length, offsets = self._rng.uniform(10, 60), [0.0]
        while (offset := offsets[-1] + self._rng.uniform(2, 10)) <= length:
            offsets.append(offset)
        first, last = self._rng.uniform(0.38, 0.6), self._rng.uniform(0.5, 0.95)
        mean = min(0.93, self._rng.gauss(0.82, 0.1))
        self._walk(camera, min(hour, 23.97) * 3600, offsets, INTRUDER, mean, first, last, True)

    def _people(self, camera: str, start: float) -> None:
        """Captures staff or residents."""
        offsets = [4.0 * number for number in range(self._rng.randint(1, 4))]
        first, last = self._rng.uniform(0.4, 0.95), self._rng.uniform(0.4, 0.95)
        self._walk(camera, start, offsets, "staff or resident", 0.82, first, last)

    def _passer_by(self, camera: str, start: float) -> None:
        offsets = [5.0 * number for number in range(self._rng.randint(1, 3))]
        self._walk(camera, start, offsets, "passer-by in the street", 0.82, 0.36, 0.36)

    def _driving(self, camera: str, start: float) -> None:
        for step in range(self._rng.randint(1, 3)):
            bottom = self._rng.uniform(0.55, 0.9)
            car = self._car(self._rng.uniform(0, 0.7), bottom, 0.28, "car driving in the yard")
            self._capture(camera, start + 3 * step, [car])

    def _street_car(self, camera: str, start: float) -> None:
        for step in range(self._rng.randint(1, 2)):
            car = self._car(self._rng.uniform(0, 0.85), 0.35, 0.1, "car in the street")
            self._capture(camera, start + 2 * step, [car])

    def _animal(self, camera: str, start: float) -> None:
        """Captures a cat or dog, which is detected as a person in one visit of ten."""
        label, is_person = self._rng.choice(["cat", "dog"]), self._rng.random() < 0.1
        bottom = self._rng.uniform(0.45, 0.95)
        for step in range(self._rng.randint(1, 4)):
            height = (0.13 + 0.75 * (bottom - 0.35)) * self._rng.uniform(0.22, 0.35)
            width = height * self._rng.uniform(0.6, 2.0) * HEIGHT / WIDTH
            box = (self._rng.uniform(0.05, 0.85), bottom - height, width, height)
            score = self._rng.gauss(0.55, 0.12)
            thing = Thing("person" if is_person else label, box, score, "animal")
            self._capture(camera, start + 3 * step, [thing])

    def _nothing(self, camera: str, start: float) -> None:
        """Captures headlights, a cloud or a leaf, without any object."""
        self._capture(camera, start, [])

    def _weather(self, camera: str) -> None:
        """Captures moving branches or rain: every 5 to 15 minutes a gust of 1 to 6 images.

        A phantom in one image is usually in the next one too.
        """
        spans = [(span, "shadow or branch") for span in self._wind[camera]]
        spans += [(span, "rain or insect") for span in self._rain]
        for (since, until), cause in spans:
            start = since + self._rng.uniform(0, 360)
            while start < until:
                phantom: Thing | None = None
                for number in range(self._rng.randint(1, 6)):
                    if phantom is None or self._rng.random() >= 0.6:
                        phantom = self._phantom(cause) if self._rng.random() < 0.3 else None
                    things = [] if phantom is None else [phantom]
                    self._capture(camera, start + 5 * number, things)
                start += self._rng.uniform(300, 900)

    # The detections

    def _capture(
        self, camera: str, start: float, things: list[Thing], is_incident: bool = False
    ) -> None:
        """Adds an image of some objects and of the parked cars and a bench."""
        second = int(start)
        while (camera, second) in self._images:
            second += 1
        if not 0 <= second < 24 * 3600:
            return
        visible = [*things]
        for parked in self._parked[camera]:
            if parked.since <= second < parked.until:
                score = parked.thing.score - (0.1 if _is_dark(second) else 0)
                visible.append(replace(parked.thing, score=score))
        visible.append(Thing("bench", (0.05, 0.6, 0.1, 0.08), 0.2, "bench"))
        detected = [
            detection for thing in visible if (detection := detect(thing, self._rng)) is not None
        ]
        detected.sort(key=lambda detection: -detection[0].conf)
        utc = MIDNIGHT + timedelta(seconds=second)
        light = self._rng.uniform(0.03, 0.15) if _is_dark(second) else self._rng.uniform(0.3, 0.6)
        self._images[camera, second] = DrawnImage(
            image=Image(
                id=camera,
                timestamp=f"{utc.isoformat()}Z",
                width=WIDTH,
                height=HEIGHT,
                detections=tuple(detection for detection, _ in detected),
                brightness=round(light, 4),
            ),
            causes=tuple(cause for _, cause in detected),
            is_incident=is_incident,
        )

    def _phantom(self, cause: str) -> Thing:
        """Draws a phantom: a third at the post on the right, the others tall, tiny or a blob."""
        score = self._rng.gauss(0.33, 0.12)
        if self._rng.random() < 1 / 3:
            return Thing("person", (0.92, 0.3, 0.04, 0.3), score, f"{cause}, at the post")
        shape = self._rng.choice(["thin", "tiny", "blob"])
        height, ratio = {
            "thin": (self._rng.uniform(0.15, 0.5), self._rng.uniform(0.1, 0.3)),
            "tiny": (self._rng.uniform(0.03, 0.08), self._rng.uniform(0.3, 0.6)),
            "blob": (self._rng.uniform(0.08, 0.3), self._rng.uniform(0.4, 1.3)),
        }[shape]
        bottom = self._rng.uniform(max(0.3, height), 1)
        width = height * ratio * HEIGHT / WIDTH
        return Thing(
            "person",
            (self._rng.uniform(0, 1 - width), bottom - height, width, height),
            score,
            cause,
        )

    def _times(
        self,
        camera: str,
        number: float,
        since: float,
        until: float,
        happens: Callable[[str, float], None],
    ) -> None:
        """Draws about so many events between two hours; hours past 24 wrap around."""
        whole = int(number) + (self._rng.random() < number % 1)
        for _ in range(whole):
            happens(camera, self._rng.uniform(since, until) % 24 * 3600)

    def _span(self, since: float, until: float, hours: float) -> tuple[float, float]:
        start = self._rng.uniform(since, until - hours)
        return start * 3600, (start + hours) * 3600


def _is_dark(second: float) -> bool:
    return not 8 * 3600 <= second < 17 * 3600


def _person_score(height: float, score: float) -> float:
    """Lowers the score of a person with less than a fifth of the image's height."""
    return score if height >= 0.2 else score - 0.45 * (0.2 - height) / 0.1


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.rules.drawn_day")
    parser.add_argument("days", type=int, nargs="?", default=1, help="how many days (1)")
    parser.add_argument("seed", type=int, nargs="?", default=1, help="of the first day (1)")
    options = parser.parse_args(arguments)
    days = [draw_day(options.seed + number) for number in range(options.days)]
    plain, full = (judge_days(rules, days) for rules in (load_plain(), load_full()))
    print(f"{'':34}{'plain':>10}{'full':>10}")
    print(f"{'images':34}{plain.images:>10}{full.images:>10}")
    print(f"{'false alerts':34}{plain.false_alerts.total():>10}{full.false_alerts.total():>10}")
    for cause, alerts in plain.false_alerts.most_common():
        print(f"  {cause:32}{alerts:>10}{full.false_alerts[cause]:>10}")
    print(
        f"{f'intruders detected, of {len(full.incidents)}':34}"
        f"{len(plain.detected):>10}{len(full.detected):>10}"
    )
    print(f"{'recall':34}{plain.recall:>10.3f}{full.recall:>10.3f}")


if __name__ == "__main__":
    main()
