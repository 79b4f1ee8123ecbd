"""A day of 20 cameras, drawn as detections: what a security company's rules have to tell apart.

    python -m tests.rules.drawn_day [days] [seed of the first]

prints how many false alerts plain thresholds and the rules of ``drawn_day.yaml`` give, by what
really was there, and how many intruders each finds. The same seed draws the same day.

**The cameras.** Eight look over a business yard (``yard-``), with staff from 07:00 to 18:00; eight
over a drive with a street and a pavement behind (``drive-``), whose residents come and go until
late; four at the back of a building (``back-``), where nobody should be. Before each stands a car,
at times another. A picture is taken when something moves.

**What was measured.** What a detector makes of one object, with YOLOX-nano at 416x416, the smallest
of the models in use, on 97 photographs, ten times each under other light (gain 0.5 to 1.25, gamma
0.8 to 1.3), sensor noise, JPEG quality and up to 3 pixels of shift:

- `QUALITIES`: the spread of the score and of each edge of the box, and how often the object was
  missed, by how clearly it is seen.
- Clear vehicles kept their label; those below 0.7 were called otherwise a third of the time.
- Of 30 persons that fill a fifth of the picture's height or more, half scored above 0.84 and one
  below 0.5; of 8 that fill less, half were missed (`_person_score`).
- Of 42 photographs without a person, one gave a person above 0.5 and four above 0.3. Here phantoms
  come in gusts of wind and rain alone (`_Day._weather`), but as many in all.

**What is told by users.** One visit of a cat in ten is taken for a person
(https://github.com/blakeblackshear/frigate/issues/137), and phantoms come again at one place
(https://github.com/blakeblackshear/frigate/issues/1743): here a third of them.

**What is assumed.** How often people, cars, animals and weather come by (`_Day.draw`); that
infrared costs 0.1 of a score; and the intruders: one a camera, when nobody should be there, for 10
to 60 s with a picture every 2 to 10 s. Three in ten begin far off, small and mostly missed. Each
has a clearness of its own (0.72 in infrared, with a spread of 0.1), about which the pictures vary
by 0.08 with the pose; one picture in twenty does not show the intruder, and in one in ten he
crouches: a wide box with 0.2 less. So any rules can miss one.

Left out are objects that hide each other, cameras that move, and snow.
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
"""

MIDNIGHT = datetime(2026, 1, 12, 23)
"""The day begins, in UTC: for cameras in Berlin a Tuesday in winter, dark from 17:00 to 08:00."""

INTRUDER = "intruder"

WIDTH, HEIGHT = 1280, 720

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Quality:
    """How steadily a detector sees an object.

    Attributes:
        least_score: of objects whose mean score is at least this.
        score: the standard deviation of the score.
        edge: that of each edge of the box, as a part of the box's width or height.
        missed: how often it is not seen at all.
    """

    least_score: float
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
    """Something that a detector may see.

    Attributes:
        label: what it would be called.
        box: where it is.
        score: its mean score.
        cause: what it really is.
        other: what it is called in a third of the pictures.
    """

    label: str
    box: Box
    score: float
    cause: str
    other: str | None = None


@dataclass(frozen=True)
class Parked:
    """A car that stands from one second of the day to another."""

    thing: Thing
    since: float
    until: float


@dataclass(frozen=True)
class Picture:
    """A picture with what it really shows.

    Attributes:
        image: as the detector saw it.
        causes: what each detection really is.
        is_incident: whether it was taken during the intrusion of its camera.
    """

    image: Image
    causes: tuple[str, ...]
    is_incident: bool


@dataclass
class Outcome:
    """What came of judging days by some rules.

    Attributes:
        pictures: how many were judged.
        false_alerts: alerts sent of which no threat is an intruder, by what the surest really is.
        incidents: the intrusions.
        found: those of which an alert was sent that shows the intruder, from their own pictures.
    """

    pictures: int = 0
    false_alerts: Counter[str] = field(default_factory=Counter)
    incidents: set[tuple[int, str]] = field(default_factory=set)
    found: set[tuple[int, str]] = field(default_factory=set)

    @property
    def recall(self) -> float:
        """The part of the intrusions that were found."""
        return len(self.found) / len(self.incidents)


def draw_day(seed: int) -> list[Picture]:
    """The pictures of a day, in the order of time."""
    return _Day(random.Random(seed)).draw()


def judge_days(rules: Rules, days: list[list[Picture]]) -> Outcome:
    """Judge days by rules; each camera begins each day with an empty history."""
    outcome = Outcome()
    for number, day in enumerate(days):
        histories = {camera: History() for camera in CAMERAS}
        for picture in day:
            verdict = rules.judge(picture.image, histories[picture.image.id])
            outcome.pictures += 1
            if picture.is_incident:
                outcome.incidents.add((number, picture.image.id))
            if not verdict.alerts:
                continue
            surest = sorted(verdict.threats, key=lambda threat: -threat.conf)
            causes = [picture.causes[threat.detection] for threat in surest]
            if INTRUDER not in causes:
                outcome.false_alerts[causes[0]] += 1
            else:
                outcome.found.add((number, picture.image.id))
    return outcome


def load_plain() -> Rules:
    """Thresholds alone."""
    return parse_rules(PLAIN, "plain.yaml")


def load_full() -> Rules:
    """The rules of ``drawn_day.yaml``."""
    return load_rules(FULL)


def detect(thing: Thing, rng: random.Random) -> tuple[Detection, str] | None:
    """What the detector makes of a thing, with what it really is; None where it sees nothing of at
    least 0.05."""
    quality = next(one for one in QUALITIES if thing.score >= one.least_score)
    score = round(min(0.97, rng.gauss(thing.score, quality.score)), 4)
    if score < 0.05 or rng.random() < quality.missed:
        return None
    left, top, width, height = thing.box
    x_min, x_max = (_edge(rng, edge, quality.edge * width) for edge in (left, left + width))
    y_min, y_max = (_edge(rng, edge, quality.edge * height) for edge in (top, top + height))
    if x_min >= x_max or y_min >= y_max:
        return None
    label = thing.other if thing.other and rng.random() < 1 / 3 else thing.label
    box = (x_min, y_min, round(x_max - x_min, 4), round(y_max - y_min, 4))
    return Detection(CATEGORIES[label], label, score, box), thing.cause


def _edge(rng: random.Random, place: float, spread: float) -> float:
    return round(min(1.0, max(0.0, rng.gauss(place, spread))), 4)


class _Day:
    """Draws one day. Times are seconds since midnight."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._pictures: dict[tuple[str, int], Picture] = {}
        self._parked: dict[str, list[Parked]] = {camera: [] for camera in CAMERAS}
        self._wind = {camera: [self._span(0, 24, 1.5) for _ in range(3)] for camera in CAMERAS}
        self._rain = [self._span(0, 6, 1.5), self._span(18, 24, 1.5)]

    def draw(self) -> list[Picture]:
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
            self._pictures.values(), key=lambda picture: (picture.image.timestamp, picture.image.id)
        )

    # What there is to see

    def _park(self, camera: str) -> None:
        """One car at least, and others that come and go."""
        kind = camera.partition("-")[0]
        hours = self._rng.uniform
        if kind == "yard":
            stays = [(0.0, 24.0), (hours(6.8, 9), hours(16, 19)), (hours(9, 12), hours(13, 17))]
        elif kind == "drive":
            stays = [(0.0, hours(7, 9)), (hours(16, 18.5), 24.0)]
        else:
            stays = [(0.0, hours(8, 16)), (hours(17, 20), 24.0)]
        for place, (since, until) in enumerate(stays):
            foot = 0.55 + 0.1 * place + self._rng.uniform(-0.02, 0.02)
            thing = self._car(0.2 + 0.25 * place, foot, 0.24, "parked car")
            self._parked[camera].append(Parked(thing, since * 3600, until * 3600))
            for hour, comes in ((since, True), (until, False)):
                if 0 < hour < 24:
                    self._come_or_go(camera, thing, hour * 3600, comes)

    def _come_or_go(self, camera: str, thing: Thing, moment: float, comes: bool) -> None:
        for step in (3, 2, 1):
            x, y, width, height = thing.box
            box = (x + 0.12 * step, y + 0.03 * step, width, height)
            moving = replace(thing, box=box, cause="car that comes or goes")
            self._shoot(camera, moment + (-4 if comes else 4) * step, [moving])

    def _car(self, x: float, foot: float, height: float, cause: str) -> Thing:
        height *= self._rng.uniform(0.8, 1.2)
        width = height * self._rng.uniform(1.6, 2.2) * HEIGHT / WIDTH
        score = self._rng.choice([0.85, 0.8, 0.7, 0.6, 0.5])
        other = "truck" if score < 0.7 else None
        return Thing("car", (x, foot - height, width, height), score, cause, other)

    def _person(self, x: float, foot: float, score: float, cause: str, crouches: bool) -> Thing:
        """Larger the nearer: an eighth of the picture's height in the street, half in front."""
        height = max(0.08, 0.13 + 0.75 * (foot - 0.35)) * self._rng.uniform(0.88, 1.12)
        ratio = min(0.6, max(0.25, self._rng.gauss(0.4, 0.07)))
        if crouches:
            height, ratio, score = height * 0.55, self._rng.uniform(0.7, 1.2), score - 0.2
        width = height * ratio * HEIGHT / WIDTH
        score = _person_score(height, score)
        return Thing("person", (x - width / 2, foot - height, width, height), score, cause)

    def _walk(
        self,
        camera: str,
        start: float,
        moments: list[float],
        cause: str,
        mean: float,
        first: float,
        last: float,
        is_incident: bool = False,
    ) -> None:
        """A person from one end of the scene to another, in pictures at some moments."""
        begin, end = self._rng.uniform(0.05, 0.95), self._rng.uniform(0.05, 0.95)
        for number, moment in enumerate(moments):
            way = number / max(1, len(moments) - 1)
            crouches = is_incident and self._rng.random() < 0.1
            score = self._rng.gauss(mean, 0.08) - (0.1 if _is_dark(start + moment) else 0)
            person = self._person(
                begin + (end - begin) * way, first + (last - first) * way, score, cause, crouches
            )
            hidden = self._rng.random() < 0.05
            self._shoot(camera, start + moment, [] if hidden else [person], is_incident)

    # What happens

    def _intrude(self, camera: str) -> None:
        kind = camera.partition("-")[0]
        hour = {
            "yard": lambda: self._rng.uniform(18, 31) % 24,
            "drive": lambda: self._rng.uniform(22.6, 29.9) % 24,
            "back": lambda: self._rng.uniform(0, 24),
        }[kind]()
        length, moments = self._rng.uniform(10, 60), [0.0]
        while (moment := moments[-1] + self._rng.uniform(2, 10)) <= length:
            moments.append(moment)
        first, last = self._rng.uniform(0.38, 0.6), self._rng.uniform(0.5, 0.95)
        mean = min(0.93, self._rng.gauss(0.82, 0.1))
        self._walk(camera, min(hour, 23.97) * 3600, moments, INTRUDER, mean, first, last, True)

    def _people(self, camera: str, start: float) -> None:
        """Staff or residents, who belong there."""
        moments = [4.0 * number for number in range(self._rng.randint(1, 4))]
        first, last = self._rng.uniform(0.4, 0.95), self._rng.uniform(0.4, 0.95)
        self._walk(camera, start, moments, "person who belongs there", 0.82, first, last)

    def _passer_by(self, camera: str, start: float) -> None:
        moments = [5.0 * number for number in range(self._rng.randint(1, 3))]
        self._walk(camera, start, moments, "passer-by in the street", 0.82, 0.36, 0.36)

    def _driving(self, camera: str, start: float) -> None:
        for step in range(self._rng.randint(1, 3)):
            foot = self._rng.uniform(0.55, 0.9)
            car = self._car(self._rng.uniform(0, 0.7), foot, 0.28, "car that drives in the yard")
            self._shoot(camera, start + 3 * step, [car])

    def _street_car(self, camera: str, start: float) -> None:
        for step in range(self._rng.randint(1, 2)):
            car = self._car(self._rng.uniform(0, 0.85), 0.35, 0.1, "car in the street")
            self._shoot(camera, start + 2 * step, [car])

    def _animal(self, camera: str, start: float) -> None:
        """A cat or dog, which one visit in ten takes for a person."""
        label, is_person = self._rng.choice(["cat", "dog"]), self._rng.random() < 0.1
        foot = self._rng.uniform(0.45, 0.95)
        for step in range(self._rng.randint(1, 4)):
            height = (0.13 + 0.75 * (foot - 0.35)) * self._rng.uniform(0.22, 0.35)
            width = height * self._rng.uniform(0.6, 2.0) * HEIGHT / WIDTH
            box = (self._rng.uniform(0.05, 0.85), foot - height, width, height)
            score = self._rng.gauss(0.55, 0.12)
            thing = Thing("person" if is_person else label, box, score, "animal")
            self._shoot(camera, start + 3 * step, [thing])

    def _nothing(self, camera: str, start: float) -> None:
        """Headlights, a cloud, a leaf."""
        self._shoot(camera, start, [])

    def _weather(self, camera: str) -> None:
        """Branches or rain that move: every 5 to 15 minutes a gust of 1 to 6 pictures. A phantom of
        one picture is mostly there in the next as well."""
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
                    self._shoot(camera, start + 5 * number, things)
                start += self._rng.uniform(300, 900)

    # How it is seen

    def _shoot(
        self, camera: str, start: float, things: list[Thing], is_incident: bool = False
    ) -> None:
        """Take a picture of some things and of what else is there."""
        second = int(start)
        while (camera, second) in self._pictures:
            second += 1
        if not 0 <= second < 24 * 3600:
            return
        seen = [*things]
        for parked in self._parked[camera]:
            if parked.since <= second < parked.until:
                score = parked.thing.score - (0.1 if _is_dark(second) else 0)
                seen.append(replace(parked.thing, score=score))
        seen.append(Thing("bench", (0.05, 0.6, 0.1, 0.08), 0.2, "bench"))
        detected = [found for thing in seen if (found := detect(thing, self._rng)) is not None]
        detected.sort(key=lambda found: -found[0].conf)
        utc = MIDNIGHT + timedelta(seconds=second)
        light = self._rng.uniform(0.03, 0.15) if _is_dark(second) else self._rng.uniform(0.3, 0.6)
        self._pictures[camera, second] = Picture(
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
        """A third from the post at the right, the rest anywhere: tall and thin, tiny, or a blob."""
        score = self._rng.gauss(0.33, 0.12)
        if self._rng.random() < 1 / 3:
            return Thing("person", (0.92, 0.3, 0.04, 0.3), score, f"{cause}, at the post")
        shape = self._rng.choice(["thin", "tiny", "blob"])
        height, ratio = {
            "thin": (self._rng.uniform(0.15, 0.5), self._rng.uniform(0.1, 0.3)),
            "tiny": (self._rng.uniform(0.03, 0.08), self._rng.uniform(0.3, 0.6)),
            "blob": (self._rng.uniform(0.08, 0.3), self._rng.uniform(0.4, 1.3)),
        }[shape]
        foot = self._rng.uniform(max(0.3, height), 1)
        width = height * ratio * HEIGHT / WIDTH
        return Thing(
            "person", (self._rng.uniform(0, 1 - width), foot - height, width, height), score, cause
        )

    def _times(
        self,
        camera: str,
        number: float,
        since: float,
        until: float,
        happens: Callable[[str, float], None],
    ) -> None:
        """Something that happens about so often between two hours; past 24 those of the morning."""
        whole = int(number) + (self._rng.random() < number % 1)
        for _ in range(whole):
            happens(camera, self._rng.uniform(since, until) % 24 * 3600)

    def _span(self, since: float, until: float, hours: float) -> tuple[float, float]:
        start = self._rng.uniform(since, until - hours)
        return start * 3600, (start + hours) * 3600


def _is_dark(second: float) -> bool:
    return not 8 * 3600 <= second < 17 * 3600


def _person_score(height: float, score: float) -> float:
    """Below a fifth of the picture's height a person is seen by chance."""
    return score if height >= 0.2 else score - 0.45 * (0.2 - height) / 0.1


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.rules.drawn_day")
    parser.add_argument("days", type=int, nargs="?", default=1, help="how many days (1)")
    parser.add_argument("seed", type=int, nargs="?", default=1, help="of the first day (1)")
    given = parser.parse_args(arguments)
    days = [draw_day(given.seed + number) for number in range(given.days)]
    plain, full = (judge_days(rules, days) for rules in (load_plain(), load_full()))
    print(f"{'':34}{'plain':>10}{'full':>10}")
    print(f"{'pictures':34}{plain.pictures:>10}{full.pictures:>10}")
    print(f"{'false alerts':34}{plain.false_alerts.total():>10}{full.false_alerts.total():>10}")
    for cause, alerts in plain.false_alerts.most_common():
        print(f"  {cause:32}{alerts:>10}{full.false_alerts[cause]:>10}")
    print(
        f"{f'intruders found, of {len(full.incidents)}':34}"
        f"{len(plain.found):>10}{len(full.found):>10}"
    )
    print(f"{'recall':34}{plain.recall:>10.3f}{full.recall:>10.3f}")


if __name__ == "__main__":
    main()
