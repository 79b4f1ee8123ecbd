"""Precision, recall and false alerts on tables worked by hand."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from beam_pipeline.evaluation import metrics
from beam_pipeline.evaluation.metrics import BoxedImage, EvaluatedImage, EvaluationTally
from beam_pipeline.evaluation.truth import TrueBox
from rules import Detection, alert_id

PERSON, CAR = "profiles.yard.objects.person", "profiles.yard.objects.car"
RULE = {"person": PERSON, "car": CAR}
GAP = timedelta(minutes=5)


def at(minute: int, day: int = 31) -> str:
    return f"2026-01-{day:02d}T10:{minute:02d}:00Z"


def image(
    time: str,
    wanted: str = "",
    alerted: str = "",
    *,
    id: str = "hall",
    covered_by: str | None = None,
) -> EvaluatedImage:
    """An image: the labels that are threats in it, and those that its verdict alerts."""
    return EvaluatedImage(
        id,
        time,
        {label: RULE[label] for label in wanted.split()},
        frozenset((label, RULE[label]) for label in alerted.split()),
        None if covered_by is None else alert_id(id, covered_by, "alert"),
        frozenset(RULE.items()),
    )


def counted(tally: EvaluationTally) -> tuple[int, ...]:
    return (
        *(tally.images, tally.threats, tally.caught, tally.covered, tally.behind_false),
        *(tally.missed, tally.alerts, tally.false_alerts, tally.suppressed),
        *(tally.incidents, tally.incidents_caught),
    )


# A person is seen and then held back; a statue is taken for one, and hides a person behind its
# cooldown; a car drives by unseen, and a person is taken for a car.
HALL = [
    image(at(0), "person", "person"),
    image(at(1), "person", "person", covered_by=at(0)),
    image(at(2), "", "person", covered_by=at(0)),
    image(at(10), "", "person"),
    image(at(11), "person", "person", covered_by=at(10)),
    image(at(20), "car"),
    image(at(30), "person", "car"),
    image(at(40)),
]
GATE = [
    image(at(0, day=30), "person car", "car", id="gate"),
    image(at(0), "", "car", id="gate"),
]


def test_the_total_of_a_table_worked_by_hand() -> None:
    tally = metrics.total([*HALL, *GATE], GAP)
    #                      images, threats, caught, covered, behind_false,
    #                      missed, alerts, false, suppressed, incidents, caught
    assert counted(tally) == (10, 6, 2, 1, 1, 3, 5, 3, 3, 5, 2)
    assert tally.camera_days == 3
    assert tally.precision == 2 / 5
    assert tally.recall == 2 / 6
    assert tally.recall_covered == 3 / 6
    assert tally.recall_of_incidents == 2 / 5
    assert tally.false_per_camera_day == 1.0


def test_each_camera_is_counted_by_itself() -> None:
    tallies = metrics.by_id([*HALL, *GATE], GAP)
    assert list(tallies) == ["gate", "hall"]
    assert counted(tallies["gate"]) == (2, 1, 1, 0, 0, 0, 2, 1, 0, 1, 1)
    assert tallies["gate"].false_per_camera_day == 0.5
    assert counted(tallies["hall"]) == (8, 5, 1, 1, 1, 3, 3, 2, 3, 4, 1)


def test_a_label_is_counted_by_its_own_verdict_alone() -> None:
    tallies = metrics.by_label([*HALL, *GATE], GAP)
    # The car alert at the gate leaves the person beside it untold of.
    assert counted(tallies["person"]) == (10, 5, 1, 1, 1, 3, 2, 1, 3, 4, 1)
    assert counted(tallies["car"]) == (10, 2, 1, 0, 0, 1, 3, 2, 0, 2, 1)


def test_a_rule_is_counted_for_its_own_alerts_and_threats() -> None:
    zone = "cameras.hall.zones.door.objects.person"
    images = [
        EvaluatedImage(
            "hall", at(0), {"person": PERSON}, frozenset({("person", zone)}), None, frozenset()
        ),
        EvaluatedImage("hall", at(1), {}, frozenset({("person", zone)}), None, frozenset()),
        EvaluatedImage("hall", at(2), {"person": None}, frozenset(), None, frozenset()),
    ]
    tallies = metrics.by_rule(images, GAP)
    assert list(tallies) == [zone, PERSON]
    assert (tallies[zone].alerts, tallies[zone].right, tallies[zone].threats) == (2, 1, 0)
    assert (tallies[PERSON].alerts, tallies[PERSON].threats, tallies[PERSON].caught) == (0, 1, 1)


def test_a_camera_that_does_not_look_for_a_label_is_not_counted_for_it() -> None:
    blind = EvaluatedImage("gate", at(0), {}, frozenset(), None, frozenset())
    tally = metrics.by_label([*HALL, blind], GAP)["person"]
    assert tally.images == len(HALL)


def test_nothing_is_shared_out_where_there_is_nothing() -> None:
    tally = metrics.total([image(at(0))], GAP)
    assert tally.precision is None
    assert tally.recall is None
    assert tally.recall_covered is None
    assert tally.to_json()["precision_interval"] is None
    assert tally.false_per_camera_day == 0


@pytest.mark.parametrize(
    ("successes", "trials", "interval"),
    [
        (0, 10, (0.0, 0.2775)),
        (5, 10, (0.2366, 0.7634)),
        (10, 10, (0.7225, 1.0)),
        (81, 263, (0.2553, 0.3662)),  # Newcombe, Statistics in Medicine 17 (1998), table I
    ],
)
def test_wilsons_interval(successes: int, trials: int, interval: tuple[float, float]) -> None:
    assert metrics.wilson(successes, trials) == pytest.approx(interval, abs=5e-5)


def test_an_incident_ends_where_more_than_the_gap_passes() -> None:
    start = datetime(2026, 1, 31, tzinfo=timezone.utc)
    minutes = [0, 5, 10, 16, 16, 22]
    times = [start + timedelta(minutes=minute) for minute in minutes]
    assert metrics.incidents(times, GAP) == [0, 0, 0, 1, 1, 2]
    assert metrics.incidents([], GAP) == []


def box(x_min: float, label: str = "person", *, is_crowd: bool = False) -> TrueBox:
    return TrueBox(label, (x_min, 0.2, 0.1, 0.2), is_crowd)


def detected_box(x_min: float, conf: float, label: str = "person") -> Detection:
    return Detection("1", label, conf, (x_min, 0.2, 0.1, 0.2))


def test_average_precision_of_boxes_worked_by_hand() -> None:
    images = [
        BoxedImage(
            (640, 480),
            [box(0.1), box(0.5, "car")],
            [detected_box(0.1, 0.9), detected_box(0.8, 0.6)],
        ),
        BoxedImage((640, 480), [box(0.1), box(0.6, is_crowd=True)], [detected_box(0.6, 0.95)]),
        BoxedImage((320, 240), [], [detected_box(0.5, 0.5, "dog")]),
    ]
    result = metrics.average_precision(images)
    # Of two persons one is found, before any wrong box: precision 1 up to a recall of 0.5, which
    # are 51 of COCO's 101 points. What lies in a crowd is neither right nor wrong.
    assert result["person"] == metrics.AveragePrecision(2, round(51 / 101, 4), round(51 / 101, 4))
    assert result["car"] == metrics.AveragePrecision(1, 0.0, 0.0)
    assert list(result) == ["car", "person"]


def test_a_box_that_fits_badly_counts_at_low_overlap_only() -> None:
    # 0.1 wide, shifted by 0.025: IoU 0.075 / 0.125 = 0.6, so right at 0.50, 0.55 and 0.60.
    images = [BoxedImage((1000, 1000), [box(0.1)], [detected_box(0.1249, 0.9)])]
    assert metrics.average_precision(images)["person"] == metrics.AveragePrecision(1, 0.3, 1.0)
