"""What looks at earlier pictures: repeats, confirmation and cooldown."""

import itertools
import pickle
import random

import pytest

from rules import History, alert_id, parse_rules
from rules.history import MAX_ALERTS, MAX_COVERED
from tests.rules.watching import BOX, found, judge_all, outcome, picture, rules_of

CAR = found("car")
MOVED = found("car", bbox=(0.6, 0.4, 0.1, 0.2))
REPEATS = """
objects: {person: , car: }
repeats: {occurrences: 2, within: 1h, forget_after: 3}
"""


def by(rules, pictures):
    return [outcome(verdict) for verdict in judge_all(rules, pictures)]


def every_minute(*seen):
    return [picture(*detections, at=60 * number) for number, detections in enumerate(seen)]


def test_what_was_at_the_same_place_in_enough_earlier_pictures_is_a_repeat():
    assert by(rules_of(REPEATS), every_minute([CAR], [CAR], [CAR], [CAR])) == [
        [None],
        [None],
        ["repeats"],
        ["repeats"],
    ]


def test_boxes_are_suppressed_not_pictures():
    person = found("person", bbox=(0.5, 0.4, 0.1, 0.3))
    verdict = judge_all(rules_of(REPEATS), every_minute([CAR], [CAR], [CAR, person, MOVED]))[-1]
    assert outcome(verdict) == ["repeats", None, None]
    assert verdict.alerts


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("person: ", [None, None, None]),
        ("person: {repeats: true}", [None, None, "repeats"]),
        ("person: {repeats: false}", [None, None, None]),
    ],
)
def test_persons_repeat_only_where_the_rules_say_so(settings, expected):
    rules = rules_of(f"objects: {{{settings}}}\nrepeats: {{occurrences: 2}}")
    assert by(rules, every_minute(*[[found("person")]] * 3)) == [[one] for one in expected]


def test_another_label_at_the_same_place_is_no_repeat():
    rules = rules_of("objects: {car: , truck: }\nrepeats: {occurrences: 1}")
    assert by(rules, every_minute([CAR], [found("truck")], [CAR])) == [
        [None],
        [None],
        ["repeats"],
    ]


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        # 85 of 100 parts of the width in common, and 100 in all
        ((0.4, 0.4, 0.085, 0.2), "repeats"),
        ((0.4, 0.4, 0.0849, 0.2), None),
    ],
)
def test_the_same_place_is_told_by_intersection_over_union(bbox, expected):
    rules = rules_of("objects: {car: }\nrepeats: {occurrences: 1}")
    assert BOX == (0.4, 0.4, 0.1, 0.2)
    assert by(rules, every_minute([CAR], [found("car", bbox=bbox)])) == [[None], [expected]]


@pytest.mark.parametrize(("misses", "expected"), [(2, "repeats"), (3, None)])
def test_what_is_missing_from_enough_pictures_in_a_row_counts_as_new(misses, expected):
    pictures = every_minute([CAR], [CAR], *[[]] * misses, [CAR])
    assert by(rules_of(REPEATS), pictures)[-1] == [expected]


@pytest.mark.parametrize(("seconds", "expected"), [(3600, "repeats"), (3601, None)])
def test_pictures_longer_ago_do_not_count(seconds, expected):
    pictures = [picture(CAR, at=0), picture(CAR, at=1), picture(CAR, at=seconds)]
    assert by(rules_of(REPEATS), pictures)[-1] == [expected]


@pytest.mark.parametrize(("conf", "expected"), [(0.25, "repeats"), (0.2499, None)])
def test_what_was_seen_less_surely_still_counts_down_to_a_score(conf, expected):
    rules = rules_of("objects: {car: }\nrepeats: {occurrences: 1}")
    pictures = every_minute([found("car", conf)], [CAR])
    assert by(rules, pictures) == [["min_score"], [expected]]


def test_repeats_do_not_count_for_min_count():
    rules = rules_of("objects: {car: {min_count: 2}}\nrepeats: {occurrences: 1}")
    assert by(rules, every_minute([CAR, MOVED], [CAR, found("car", bbox=(0, 0, 0.1, 0.1))])) == [
        [None, None],
        ["repeats", "min_count"],
    ]


CONFIRM = "objects: {person: , car: {confirm: false}}\nconfirm: {pictures: 3, within: 30s}"


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 10, 20], ["confirm", "confirm", None]),
        ([0, 10, 30], ["confirm", "confirm", None]),
        ([0, 10, 31], ["confirm", "confirm", "confirm"]),
        ([0, 10, 20, 31], ["confirm", "confirm", None, None]),
    ],
)
def test_a_threat_counts_when_its_label_was_seen_in_enough_pictures(times, expected):
    pictures = [picture(found("person"), at=at) for at in times]
    assert by(rules_of(CONFIRM), pictures) == [[one] for one in expected]


def test_a_label_may_go_unconfirmed_and_one_alone_confirms_no_other():
    pictures = [picture(found("person"), CAR, at=at) for at in (0, 10)]
    pictures.append(picture(found("person", 0.4), at=20))
    assert by(rules_of(CONFIRM), pictures) == [
        ["confirm", None],
        ["confirm", None],
        ["min_score"],
    ]


def test_two_in_one_picture_are_one_sighting():
    pictures = [picture(found("person"), found("person"), at=at) for at in (0, 10, 20)]
    assert by(rules_of(CONFIRM), pictures)[:2] == [["confirm"] * 2] * 2


COOLDOWN = "objects: {person: , car: , dog: {severity: detection}}\ncooldown: 5m"


def incidents(rules, pictures):
    return [(one.suppressed_by, one.incident_number) for one in judge_all(rules, pictures)]


def alert_at(seconds):
    return alert_id("hall", picture(at=seconds).timestamp, "alert")


def test_after_an_alert_the_camera_is_quiet_and_what_is_held_back_is_numbered():
    pictures = [picture(found("person"), at=at) for at in (0, 60, 299, 300, 301)]
    assert incidents(rules_of(COOLDOWN), pictures) == [
        (None, 1),
        (alert_at(0), 2),
        (alert_at(0), 3),
        (None, 1),
        (alert_at(300), 2),
    ]


def test_what_is_held_back_is_a_threat_of_its_severity_all_the_same():
    verdict = judge_all(
        rules_of(COOLDOWN), [picture(found("person"), at=0), picture(found("person"), at=60)]
    )[1]
    assert (verdict.is_threat, verdict.severity, verdict.alerts) == (True, "alert", False)


def test_a_new_label_is_told_and_covers_the_earlier_ones():
    pictures = [
        picture(found("person"), at=0),
        picture(found("person"), CAR, at=60),
        picture(found("person"), at=120),
        picture(CAR, at=180),
        picture(found("person"), at=350),
    ]
    assert incidents(rules_of(COOLDOWN), pictures) == [
        (None, 1),
        (None, 1),
        (alert_at(60), 2),
        (alert_at(60), 3),
        (alert_at(60), 4),
    ]


def test_a_threat_to_be_recorded_only_neither_starts_nor_needs_an_incident():
    dog = found("dog")
    pictures = [
        picture(dog, at=0),
        picture(found("person"), dog, at=1),
        picture(dog, at=2),
        picture(found("person"), dog, at=3),
    ]
    assert incidents(rules_of(COOLDOWN), pictures) == [
        (None, None),
        (None, 1),
        (None, None),
        (alert_at(1), 2),
    ]


def test_without_a_cooldown_each_alert_is_sent():
    pictures = [picture(found("person"), at=at) for at in (0, 1)]
    off = rules_of("objects: {person: }\ncooldown: 0s")
    assert incidents(off, pictures) == [(None, 1), (None, 1)]
    assert not off.needs_history("hall")


ALL = """
objects: {person: , car: , dog: {severity: detection}}
repeats: {occurrences: 2, within: 10m, forget_after: 3}
confirm: {pictures: 2, within: 1m}
cooldown: 2m
"""


def a_drawn_hour(seed):
    draw = random.Random(seed)
    labels = ("person", "car", "dog", "cat")
    return [
        picture(
            *(
                found(draw.choice(labels), draw.choice((0.2, 0.6, 0.9)), (x / 10, 0.4, 0.1, 0.2))
                for x in draw.sample(range(4), draw.randrange(4))
            ),
            at=at,
            sha256=f"{at:04}",
        )
        for at in sorted(draw.sample(range(3600), 200))
    ]


@pytest.mark.parametrize("seed", range(3))
def test_a_picture_that_comes_late_is_judged_by_those_that_came_and_are_earlier(seed):
    """As if they had come in order; and those that came before it keep their verdicts."""
    text = ALL.replace("forget_after: 3", "forget_after: 50")
    rules = rules_of(text.replace("confirm: {pictures: 2, within: 1m}", ""))
    pictures, draw = a_drawn_hour(seed), random.Random(seed)
    late = sorted(pictures, key=lambda one: pictures.index(one) + draw.uniform(0, 12))
    assert late != pictures
    history, in_time = History(), dict(zip(pictures, judge_all(rules, pictures), strict=True))
    differ = 0
    for number, image in enumerate(late):
        verdict = rules.judge(image, history)
        earlier = [one for one in late[:number] if one.timestamp < image.timestamp]
        in_order = History()
        for one in sorted(earlier, key=lambda one: one.timestamp)[-50:]:  # 10 minutes and more
            rules.judge(one, in_order)
        assert outcome(verdict) == outcome(rules.judge(image, in_order))
        differ += outcome(verdict) != outcome(in_time[image])
    assert differ  # Order matters, or the test shows nothing.


@pytest.mark.parametrize("needed", [2, 3])
@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_in_whatever_order_pictures_of_an_intruder_come_they_confirm_each_other(needed, order):
    rules = rules_of(f"objects: {{person: }}\nconfirm: {{pictures: {needed}, within: 30s}}")
    pictures = [picture(found("person"), at=10 * number) for number in order]
    apart = [picture(found("person"), at=at) for at in (1000, 1031)]
    alerts = [verdict.alerts for verdict in judge_all(rules, [*apart, *pictures])]
    assert alerts == [False] * (needed + 1) + [True] * (4 - needed)


def test_in_any_order_every_picture_gets_a_verdict_and_repeats_have_been_seen():
    rules, pictures = rules_of(REPEATS), a_drawn_hour(1)
    shuffled = random.Random(2).sample(pictures, len(pictures))
    verdicts = judge_all(rules, shuffled)
    assert [len(outcome(verdict)) for verdict in verdicts] == [
        len(image.detections) for image in shuffled
    ]
    for number, (image, verdict) in enumerate(zip(shuffled, verdicts, strict=True)):
        for index, why in enumerate(outcome(verdict)):
            if why == "repeats":
                same = image.detections[index]
                came = [one for one in shuffled[:number] if one.timestamp < image.timestamp]
                seen = [
                    one
                    for one in came
                    if any((x.label, x.bbox) == (same.label, same.bbox) for x in one.detections)
                ]
                assert len(seen) >= 2


def test_a_history_may_be_pickled_between_any_two_pictures():
    rules, pictures = rules_of(ALL), a_drawn_hour(3)
    straight = judge_all(rules, pictures)
    history, broken_off = History(), []
    for image in pictures:
        history = pickle.loads(pickle.dumps(history))
        broken_off.append(rules.judge(image, history))
    assert broken_off == straight
    assert {number for verdict in straight for number in outcome(verdict)} >= {
        None,
        "repeats",
        "confirm",
    }
    assert any(verdict.suppressed_by for verdict in straight)


def test_the_same_picture_once_more_changes_nothing():
    rules, pictures = rules_of(ALL), a_drawn_hour(4)
    history, twice = History(), []
    for image in pictures:
        first = rules.judge(image, history)
        assert rules.judge(image, history) == first
        twice.append(first)
    assert twice == judge_all(rules, pictures)


def test_of_two_pictures_of_one_moment_the_one_with_the_smaller_sha256_is_remembered():
    rules = rules_of("objects: {car: }\nrepeats: {occurrences: 1}")
    with_car, without = picture(CAR, at=0, sha256="b"), picture(at=0, sha256="a")
    for order in ([with_car, without], [without, with_car]):
        assert by(rules, [*order, picture(CAR, at=60)])[-1] == [None]


def test_what_is_kept_is_bounded():
    rules, history = rules_of(ALL.replace("cooldown: 2m", "cooldown: 30d")), History()
    sizes = []
    for number in range(2 * MAX_COVERED):
        detections = [found("person"), found(f"label-{number}"), CAR]
        rules.judge(picture(*detections, at=number), history)
        sizes.append(len(pickle.dumps(history)))
    assert max(sizes) == pytest.approx(sizes[MAX_COVERED + 50], rel=0.02)


def test_alerts_are_bounded_too():
    rules = rules_of(
        "objects: {" + ", ".join(f"l{n}: " for n in range(3 * MAX_ALERTS)) + "}\ncooldown: 30d"
    )
    history = History()
    sizes = []
    for number in range(3 * MAX_ALERTS):
        verdict = rules.judge(picture(found(f"l{number}"), at=number), history)
        assert verdict.alerts
        sizes.append(len(history._alerts))
    assert max(sizes) == MAX_ALERTS


def test_the_horizon_is_as_far_as_any_rule_looks_back():
    assert rules_of(ALL).for_camera("hall").horizon.total_seconds() == 600
    assert rules_of(COOLDOWN).for_camera("hall").horizon.total_seconds() == 300
    assert rules_of("objects: {car: }").for_camera("hall").horizon.total_seconds() == 0


@pytest.mark.parametrize(
    ("camera", "looks_back"),
    [("{}", True), ("{repeats: {enabled: false}}", False), ("{repeats: {iou: 0.5}}", True)],
)
def test_a_layer_turns_off_what_a_lower_one_has_turned_on(camera, looks_back):
    text = f"version: 1\ndefaults: {{objects: {{car: }}, repeats: }}\ncameras: {{hall: {camera}}}"
    rules = parse_rules(text, "rules.yaml")
    assert rules.needs_history("hall") is looks_back
    assert rules.looks_back
