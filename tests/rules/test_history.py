"""The filters that depend on earlier images: repeats and confirm; the bounds of a history."""

import itertools
import pickle
import random

import pytest

from rules import History, parse_rules
from tests.rules.one_camera import (
    BOX,
    judge_all,
    make_detection,
    make_image,
    rejecting_filters,
    rules_of,
)

CAR = make_detection("car")
MOVED = make_detection("car", bbox=(0.6, 0.4, 0.1, 0.2))
REPEATS = """
objects: {person: , car: }
repeats: {occurrences: 2, within: 1h, forget_after: 3}
"""


def rejections(rules, images):
    return [rejecting_filters(verdict) for verdict in judge_all(rules, images)]


def every_minute(*images):
    return [make_image(*detections, at=60 * number) for number, detections in enumerate(images)]


def test_an_object_in_the_same_place_in_enough_earlier_images_is_a_repeat():
    assert rejections(rules_of(REPEATS), every_minute([CAR], [CAR], [CAR], [CAR])) == [
        [None],
        [None],
        ["repeats"],
        ["repeats"],
    ]


def test_repeats_suppress_boxes_not_images():
    person = make_detection("person", bbox=(0.5, 0.4, 0.1, 0.3))
    verdict = judge_all(rules_of(REPEATS), every_minute([CAR], [CAR], [CAR, person, MOVED]))[-1]
    assert rejecting_filters(verdict) == ["repeats", None, None]
    assert verdict.alerts


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("person: ", [None, None, None]),
        ("person: {repeats: true}", [None, None, "repeats"]),
        ("person: {repeats: false}", [None, None, None]),
    ],
)
def test_persons_repeat_only_if_the_rules_say_so(settings, expected):
    rules = rules_of(f"objects: {{{settings}}}\nrepeats: {{occurrences: 2}}")
    assert rejections(rules, every_minute(*[[make_detection("person")]] * 3)) == [
        [rejected_by] for rejected_by in expected
    ]


def test_labels_are_compared_by_value_not_by_identity():
    """Labels from JSON are equal but not identical strings."""
    label = "".join(["per", "son"])
    rules = rules_of("objects: {person: }\nrepeats: {occurrences: 1}")
    assert rejections(rules, every_minute(*[[make_detection(label)]] * 2)) == [[None], [None]]


def test_another_label_in_the_same_place_is_no_repeat():
    rules = rules_of("objects: {car: , truck: }\nrepeats: {occurrences: 1}")
    assert rejections(rules, every_minute([CAR], [make_detection("truck")], [CAR])) == [
        [None],
        [None],
        ["repeats"],
    ]


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        # Half of the width in common, and the whole width in all
        ((0.4, 0.4, 0.05, 0.2), "repeats"),
        ((0.4, 0.4, 0.0499, 0.2), None),
    ],
)
def test_the_same_place_means_enough_intersection_over_union(bbox, expected):
    rules = rules_of("objects: {car: }\nrepeats: {occurrences: 1}")
    assert BOX == (0.4, 0.4, 0.1, 0.2)
    assert rejections(rules, every_minute([CAR], [make_detection("car", bbox=bbox)])) == [
        [None],
        [expected],
    ]


@pytest.mark.parametrize(("misses", "expected"), [(2, "repeats"), (3, None)])
def test_an_object_absent_from_enough_consecutive_images_counts_as_new(misses, expected):
    images = every_minute([CAR], [CAR], *[[]] * misses, [CAR])
    assert rejections(rules_of(REPEATS), images)[-1] == [expected]


OTHER_CAR = make_detection("car", bbox=(0.41, 0.42, 0.08, 0.18))  # IoU 0.72 with the first


@pytest.mark.parametrize(("free", "expected"), [(9, "repeats"), (10, None)])
def test_another_car_in_a_freed_bay_is_new_once_the_bay_was_free_for_ten_images(free, expected):
    rules = rules_of("objects: {car: }\nrepeats:")
    images = every_minute(*[[CAR]] * 4, *[[]] * free, [OTHER_CAR])
    assert rejections(rules, images)[-1] == [expected]


def test_a_car_that_drives_into_a_bay_is_new_until_it_stands():
    rules = rules_of("objects: {car: }\nrepeats:")
    driving = [[make_detection("car", bbox=(x, 0.4, 0.1, 0.2))] for x in (0.1, 0.15, 0.2, 0.25)]
    images = every_minute(*[[CAR]] * 4, *driving, [OTHER_CAR])
    assert rejections(rules, images)[4:] == [[None]] * 4 + [["repeats"]]


@pytest.mark.parametrize(("seconds", "expected"), [(3600, "repeats"), (3601, None)])
def test_older_images_do_not_count_for_repeats(seconds, expected):
    images = [make_image(CAR, at=0), make_image(CAR, at=1), make_image(CAR, at=seconds)]
    assert rejections(rules_of(REPEATS), images)[-1] == [expected]


@pytest.mark.parametrize(("conf", "expected"), [(0.25, "repeats"), (0.2499, None)])
def test_earlier_detections_with_lower_scores_count_down_to_a_minimum(conf, expected):
    rules = rules_of("objects: {car: }\nrepeats: {occurrences: 1}")
    images = every_minute([make_detection("car", conf)], [CAR])
    assert rejections(rules, images) == [["min_score"], [expected]]


def test_repeats_do_not_count_for_min_count():
    rules = rules_of("objects: {car: {min_count: 2}}\nrepeats: {occurrences: 1}")
    assert rejections(
        rules, every_minute([CAR, MOVED], [CAR, make_detection("car", bbox=(0, 0, 0.1, 0.1))])
    ) == [
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
def test_a_threat_counts_once_enough_images_show_its_label(times, expected):
    images = [make_image(make_detection("person"), at=at) for at in times]
    assert rejections(rules_of(CONFIRM), images) == [[rejected_by] for rejected_by in expected]


def test_a_label_can_need_no_confirmation_and_labels_do_not_confirm_each_other():
    images = [make_image(make_detection("person"), CAR, at=at) for at in (0, 10)]
    images.append(make_image(make_detection("person", 0.4), at=20))
    assert rejections(rules_of(CONFIRM), images) == [
        ["confirm", None],
        ["confirm", None],
        ["min_score"],
    ]


def test_two_detections_in_one_image_count_once_for_confirm():
    images = [
        make_image(make_detection("person"), make_detection("person"), at=at) for at in (0, 10, 20)
    ]
    assert rejections(rules_of(CONFIRM), images)[:2] == [["confirm"] * 2] * 2


ALL = """
objects: {person: , car: , dog: {severity: detection}}
repeats: {occurrences: 2, within: 10m, forget_after: 3}
confirm: {pictures: 2, within: 1m}
cooldown: 2m
"""


def random_hour(seed):
    draw = random.Random(seed)
    labels = ("person", "car", "dog", "cat")
    return [
        make_image(
            *(
                make_detection(
                    draw.choice(labels), draw.choice((0.2, 0.6, 0.9)), (x / 10, 0.4, 0.1, 0.2)
                )
                for x in draw.sample(range(4), draw.randrange(4))
            ),
            at=at,
            sha256=f"{at:04}",
        )
        for at in sorted(draw.sample(range(3600), 200))
    ]


@pytest.mark.parametrize("seed", range(3))
def test_a_late_image_is_judged_by_the_earlier_images_that_have_arrived(seed):
    """The verdict is the same as if those images had arrived in order."""
    text = ALL.replace("forget_after: 3", "forget_after: 50")
    rules = rules_of(text.replace("confirm: {pictures: 2, within: 1m}", ""))
    images, draw = random_hour(seed), random.Random(seed)
    disordered = sorted(images, key=lambda image: images.index(image) + draw.uniform(0, 12))
    assert disordered != images
    history, in_time = History(), dict(zip(images, judge_all(rules, images), strict=True))
    differ = 0
    for number, image in enumerate(disordered):
        verdict = rules.judge(image, history)
        earlier = [past for past in disordered[:number] if past.timestamp < image.timestamp]
        in_order = History()
        last_ones = sorted(earlier, key=lambda past: past.timestamp)[-50:]  # 10 minutes and more.
        for past in last_ones:
            rules.judge(past, in_order)
        assert rejecting_filters(verdict) == rejecting_filters(rules.judge(image, in_order))
        differ += rejecting_filters(verdict) != rejecting_filters(in_time[image])
    assert differ  # Otherwise the order does not matter, and the test checks nothing.


@pytest.mark.parametrize("needed", [2, 3])
@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_images_of_an_intruder_confirm_each_other_in_any_order(needed, order):
    confirm = f"confirm: {{pictures: {needed}, within: 30s}}"
    rules = rules_of(f"objects: {{person: }}\n{confirm}\ncooldown: 0s")
    images = [make_image(make_detection("person"), at=10 * number) for number in order]
    apart = [make_image(make_detection("person"), at=at) for at in (1000, 1031)]
    alerts = [verdict.alerts for verdict in judge_all(rules, [*apart, *images])]
    assert alerts == [False] * (needed + 1) + [True] * (4 - needed)


@pytest.mark.parametrize("ahead_seconds", [300, 86_400, 56 * 365 * 86_400])
@pytest.mark.parametrize("images_ahead", [5, 6, 30])
def test_repeats_are_recognized_after_the_clock_of_the_camera_was_set_back(
    ahead_seconds, images_ahead
):
    rules = rules_of("objects: {car: }\nrepeats: {occurrences: 2, forget_after: 3}\ncooldown: 0s")
    ahead = [make_image(CAR, at=ahead_seconds + n) for n in range(images_ahead)]
    right = [make_image(CAR, at=n) for n in range(100)]
    again = [make_image(CAR, at=ahead_seconds + 100 + n) for n in range(10)]
    history = History()
    alerts = []
    for image in [*ahead, *right, *again]:
        alerts.append(rules.judge(image, history).alerts)
        assert len(history.images) <= 12
    expected = [True] * 2 + [False] * (images_ahead - 2) + [True] * 2 + [False] * 108
    assert alerts == expected


def test_images_that_arrive_late_do_not_displace_the_newest():
    rules = rules_of("objects: {car: }\nrepeats: {occurrences: 2, forget_after: 3}\ncooldown: 0s")
    now = [make_image(CAR, at=90_000 + n) for n in range(10)]
    backlog = [make_image(CAR, at=60 * n) for n in range(100)]
    verdicts = judge_all(rules, [*now, *backlog, make_image(CAR, at=90_100)])
    assert [verdict.alerts for verdict in verdicts[-101:]] == [True] * 2 + [False] * 99


@pytest.mark.parametrize("ahead_seconds", [300, 86_400, 56 * 365 * 86_400])
def test_images_confirm_each_other_after_the_clock_of_the_camera_was_set_back(ahead_seconds):
    rules = rules_of("objects: {person: }\nconfirm: {pictures: 2, within: 30s}\ncooldown: 0s")
    ahead = [make_image(make_detection("person"), at=ahead_seconds + 5 * n) for n in range(20)]
    right = [make_image(make_detection("person"), at=5 * n) for n in range(4)]
    again = [make_image(make_detection("person"), at=ahead_seconds + 200 + 5 * n) for n in range(4)]
    alerts = [verdict.alerts for verdict in judge_all(rules, [*ahead, *right, *again])]
    assert alerts == [False] + [True] * 19 + ([False] + [True] * 3) * 2


@pytest.mark.parametrize("late", [1, 4, 100])
def test_images_confirm_each_other_among_those_that_arrive_late(late):
    rules = rules_of("objects: {person: }\nconfirm: {pictures: 2, within: 30s}")
    backlog = [make_image(make_detection("person"), at=60 * n) for n in range(late)]
    now = [make_image(make_detection("person"), at=at) for at in (90_000, 90_010)]
    verdicts = judge_all(rules, [now[0], *backlog, now[1]])
    assert [verdict.alerts for verdict in verdicts] == [False] * (late + 1) + [True]


def test_the_capture_times_that_confirm_needs_are_bounded():
    rules = rules_of("objects: {person: }\nconfirm: {pictures: 3, within: 30s}")
    history, draw = History(), random.Random(1)
    for at in draw.sample(range(10_000), 500):
        rules.judge(make_image(make_detection("person"), at=at), history)
        assert len(history.candidates["person"]) <= 12


def test_in_any_order_a_repeat_has_enough_earlier_images():
    rules, images = rules_of(REPEATS), random_hour(1)
    shuffled = random.Random(2).sample(images, len(images))
    verdicts = judge_all(rules, shuffled)
    assert [len(rejecting_filters(verdict)) for verdict in verdicts] == [
        len(image.detections) for image in shuffled
    ]
    for number, (image, verdict) in enumerate(zip(shuffled, verdicts, strict=True)):
        for index, rejected_by in enumerate(rejecting_filters(verdict)):
            if rejected_by == "repeats":
                repeat = image.detections[index]
                earlier = [past for past in shuffled[:number] if past.timestamp < image.timestamp]
                occurrences = [
                    past
                    for past in earlier
                    if any(
                        (detection.label, detection.bbox) == (repeat.label, repeat.bbox)
                        for detection in past.detections
                    )
                ]
                assert len(occurrences) >= 2


def test_a_history_can_be_pickled_between_any_two_images():
    rules, images = rules_of(ALL), random_hour(3)
    expected = judge_all(rules, images)
    history, verdicts = History(), []
    for image in images:
        history = pickle.loads(pickle.dumps(history))
        verdicts.append(rules.judge(image, history))
    assert verdicts == expected
    assert {rejected_by for verdict in expected for rejected_by in rejecting_filters(verdict)} >= {
        None,
        "repeats",
        "confirm",
    }
    assert any(verdict.suppressed_by for verdict in expected)


def test_the_same_image_again_changes_nothing():
    rules, images = rules_of(ALL), random_hour(4)
    history, verdicts = History(), []
    for image in images:
        verdict = rules.judge(image, history)
        assert rules.judge(image, history) == verdict
        verdicts.append(verdict)
    assert verdicts == judge_all(rules, images)


def test_of_two_images_with_one_capture_time_the_history_keeps_the_smaller_sha256():
    rules = rules_of("objects: {car: }\nrepeats: {occurrences: 1}")
    with_car, without = make_image(CAR, at=0, sha256="b"), make_image(at=0, sha256="a")
    for order in ([with_car, without], [without, with_car]):
        assert rejections(rules, [*order, make_image(CAR, at=60)])[-1] == [None]


def test_the_size_of_a_history_is_bounded():
    rules, history = rules_of(ALL.replace("cooldown: 2m", "cooldown: 30d")), History()
    sizes = []
    for number in range(2_000):
        detections = [make_detection("person"), make_detection(f"label-{number}"), CAR]
        rules.judge(make_image(*detections, at=number), history)
        sizes.append(len(pickle.dumps(history)))
    assert max(sizes) == pytest.approx(sizes[1_050], rel=0.02)


def test_the_horizon_is_the_longest_time_of_any_rule():
    assert rules_of(ALL).for_camera("hall").horizon.total_seconds() == 600
    assert (
        rules_of("objects: {person: }\ncooldown: 5m").for_camera("hall").horizon.total_seconds()
        == 300
    )
    assert rules_of("objects: {car: }").for_camera("hall").horizon.total_seconds() == 1800
    off = rules_of("objects: {car: }\ncooldown: 0s")
    assert off.for_camera("hall").horizon.total_seconds() == 0


@pytest.mark.parametrize(
    ("camera", "needs_history"),
    [("{}", True), ("{repeats: {enabled: false}}", False), ("{repeats: {iou: 0.5}}", True)],
)
def test_a_layer_turns_off_a_filter_of_a_lower_layer(camera, needs_history):
    defaults = "{objects: {car: }, repeats: , cooldown: 0s}"
    text = f"version: 1\ndefaults: {defaults}\ncameras: {{hall: {camera}}}"
    rules = parse_rules(text, "rules.yaml")
    assert rules.needs_history("hall") is needs_history
    assert rules.any_needs_history
