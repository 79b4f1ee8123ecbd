"""Precision, recall and false alerts on tables worked by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.evaluation import metrics
from beam_pipeline.evaluation.metrics import BoxedImage, EvaluatedImage, EvaluationTally
from beam_pipeline.evaluation.truth import TrueBox
from rules import Detection, alert_id
from tests.search import search

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


# Six stays half an hour apart, of which the cooldown lets one alert through.
STAYS = [
    image(f"2026-01-31T{10 + minute // 60}:{minute % 60:02d}:00Z", "person", "person")
    if minute == 0
    else image(
        f"2026-01-31T{10 + minute // 60}:{minute % 60:02d}:00Z",
        "person",
        "person",
        covered_by=at(0),
    )
    for minute in (0, 30, 60, 90, 120, 150)
]


def test_an_incident_that_a_cooldown_hides_is_covered_and_not_caught() -> None:
    tally = metrics.total(STAYS, GAP)
    assert (tally.incidents, tally.incidents_caught, tally.incidents_covered) == (6, 1, 5)
    assert tally.recall_of_incidents == 1 / 6
    assert tally.recall_covered == 1.0
    for groups in (metrics.by_id, metrics.by_label, metrics.by_rule):
        counts = {
            name: (group.incidents, group.incidents_caught, group.incidents_covered)
            for name, group in groups(STAYS, GAP).items()
        }
        assert set(counts.values()) - {(0, 0, 0)} == {(6, 1, 5)}


@pytest.mark.parametrize(
    ("covered_since", "caught", "seconds"),
    [
        (None, 0, ()),
        (at(14), 0, ()),
        (at(15), 1, (0.0,)),
        (at(21), 1, (60.0,)),
    ],
    ids=["unknown", "before the gap", "the gap before", "within"],
)
def test_an_alert_without_truth_belongs_to_the_incident_that_it_touches(
    covered_since: str | None, caught: int, seconds: tuple[float, ...]
) -> None:
    images = [
        EvaluatedImage(
            "hall",
            time,
            {"person": PERSON},
            frozenset({("person", PERSON)}),
            "00112233445566778899aabbccddeeff",
            frozenset(RULE.items()),
            covered_since,
        )
        for time in (at(20), at(22))
    ]
    tally = metrics.total(images, GAP)
    assert (tally.incidents, tally.incidents_caught, tally.incidents_covered) == (
        1,
        caught,
        1 - caught,
    )
    assert tally.first_alerts == seconds


def test_the_time_to_the_first_alert_of_an_incident() -> None:
    images = [
        *(image(at(0), "person"), image(at(2), "person", "person"), image(at(3), "person")),
        *(image(at(20), "person", "person"), image(at(21), "person", "person")),
        *(image(at(40), "person", "car"), image(at(43), "person", "person")),
        image(at(55), "person"),
    ]
    tally = metrics.total(images, GAP)
    assert (tally.incidents, tally.incidents_caught) == (4, 3)
    assert tally.first_alerts == (0.0, 120.0, 180.0)
    assert (tally.first_alert_median, tally.first_alert_p95) == (120.0, 180.0)
    assert tally.to_json()["first_alert_seconds"] == {"median": 120.0, "p95": 180.0}
    none = metrics.total(images[-1:], GAP)
    assert none.to_json()["first_alert_seconds"] == {"median": None, "p95": None}


def test_95_of_100_first_alerts_are_within_the_95th() -> None:
    tally = replace(metrics.total([], GAP), first_alerts=tuple(map(float, range(1, 101))))
    assert tally.first_alert_p95 == 95.0


def test_a_false_label_counts_though_a_right_one_stands_in_the_same_alert() -> None:
    images = [
        image(at(0), "person", "person car"),
        image(at(10), "person", "person car"),
        image(at(11), "person", "person car", covered_by=at(10)),
        image(at(20), "", "car"),
        image(at(30), "car person", "car person"),
    ]
    tally = metrics.total(images, GAP)
    assert (tally.alerts, tally.false_alerts, tally.labels, tally.false_labels) == (4, 1, 7, 3)
    labels = metrics.by_label(images, GAP)
    assert (labels["car"].labels, labels["car"].false_labels) == (4, 3)
    assert (labels["person"].labels, labels["person"].false_labels) == (3, 0)
    rules = metrics.by_rule(images, GAP)
    assert (rules[CAR].labels, rules[CAR].false_labels) == (4, 3)


_IMAGES = st.lists(
    st.tuples(
        st.integers(0, 59),
        st.sets(st.sampled_from(["person", "car"])),
        st.sets(st.sampled_from(["person", "car"])),
        st.booleans(),
    ),
    unique_by=lambda one: one[0],
    max_size=12,
)


@pytest.mark.search
@search(500)
@given(_IMAGES, st.integers(1, 20))
def test_no_incident_is_caught_without_an_alert_of_its_own(
    drawn: list[tuple[int, set[str], set[str], bool]], gap: int
) -> None:
    images: list[EvaluatedImage] = []
    sent: str | None = None
    for minute, wanted, alerted, covered in sorted(drawn, key=lambda one: one[0]):
        covered_by = sent if covered and alerted else None
        words = " ".join(sorted(wanted)), " ".join(sorted(alerted))
        images.append(image(at(minute), *words, covered_by=covered_by))
        if alerted and covered_by is None:
            sent = at(minute)
    tally = metrics.total(images, timedelta(minutes=gap))
    assert tally.incidents_caught <= tally.caught <= tally.alerts
    assert tally.incidents_caught + tally.incidents_covered <= tally.incidents
    assert len(tally.first_alerts) == tally.incidents_caught
    assert all(0 <= seconds < 3600 for seconds in tally.first_alerts)
    assert tally.false_alerts <= tally.false_labels <= tally.labels
    by_label = metrics.by_label(images, timedelta(minutes=gap)).values()
    assert tally.labels == sum(label.labels for label in by_label)
    assert tally.false_labels == sum(label.false_labels for label in by_label)


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
