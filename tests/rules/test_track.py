"""The filter `track`: an object with a low score is a threat if it has moved; `unless_score`."""

import itertools
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import Check, History, explain
from rules.geometry import has_moved, iou
from rules.history import TRACKED_IMAGES
from tests.rules.final_json import final_json
from tests.rules.one_camera import (
    judge_all,
    make_detection,
    make_image,
    rejecting_filters,
    rules_of,
)
from tests.search import search

TRACK = "objects: {person: , car: }\ntrack: {min_score: 0.1, within: 3s}"


def person(x, conf=0.2, *, label="person", y=0.4, width=0.05, height=0.1):
    return make_detection(label, conf, (x, y, width, height))


def rejections(rules, images):
    return [rejecting_filters(verdict) for verdict in judge_all(rules, images)]


def walk(*places, start=0.0, step=1.0, conf=0.2):
    return [
        make_image(person(x, conf), at=start + step * number) for number, x in enumerate(places)
    ]


def test_a_sure_object_is_a_threat_at_once_and_another_one_once_it_has_moved():
    rules = rules_of(TRACK)
    assert rejections(rules, walk(0.4, conf=0.5)) == [[None]]
    assert rejections(rules, walk(0.4, 0.5, 0.6)) == [["track"], [None], [None]]
    assert rejections(rules_of("objects: {person: }"), walk(0.4, 0.5, 0.6)) == [["min_score"]] * 3


@pytest.mark.parametrize(("conf", "expected"), [(0.1, None), (0.0999, "min_score")])
def test_a_score_below_the_minimum_of_track_is_rejected(conf, expected):
    assert rejections(rules_of(TRACK), walk(0.4, 0.5, conf=conf))[-1] == [expected]


@pytest.mark.parametrize(("step", "expected"), [(3, None), (3.000001, "track")])
def test_the_earlier_image_is_not_older_than_within(step, expected):
    assert rejections(rules_of(TRACK), walk(0.4, 0.5, step=step))[-1] == [expected]


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        # A third of the width in common with the union is more than half: 0.05 wide.
        (0.4, "track"),
        (0.4166, "track"),  # IoU 0.0334 / 0.0666
        (0.4167, None),  # IoU 0.0333 / 0.0667
        (0.6, None),  # Two heights
        (0.6001, "track"),
    ],
)
def test_an_object_has_moved_out_of_its_place_and_at_most_two_heights(x, expected):
    assert rejections(rules_of(TRACK), walk(0.4, x))[-1] == [expected]


@pytest.mark.parametrize(
    ("height", "expected"), [(0.2, None), (0.2002, "track"), (0.05, None), (0.0499, "track")]
)
def test_an_object_does_not_change_its_size_more_than_twofold(height, expected):
    after = person(0.5, width=0.02, height=height)
    images = [make_image(person(0.4, width=0.02), at=0), make_image(after, at=1)]
    assert rejections(rules_of(TRACK), images)[-1] == [expected]


def test_distances_are_those_of_pixels():
    # In an image twice as wide as high, 0.15 of the width is three heights of 0.1.
    assert has_moved((0.4, 0.4, 0.05, 0.1), (0.55, 0.4, 0.05, 0.1), (1000, 1000))
    assert not has_moved((0.4, 0.4, 0.05, 0.1), (0.55, 0.4, 0.05, 0.1), (2000, 1000))
    assert not has_moved((0.4, 0.4, 0.05, 0.1), (0.4099, 0.4, 0.05, 0.1), (1000, 1000))
    assert has_moved((0.4, 0.4, 0.05, 0.1), (0.41, 0.4, 0.05, 0.1), (1000, 1000))


def test_another_label_is_another_object():
    images = [make_image(person(0.4, label="car"), at=0), make_image(person(0.5), at=1)]
    assert rejections(rules_of(TRACK), images)[-1] == ["track"]


def test_an_object_that_was_there_already_has_not_moved():
    images = [make_image(person(0.4), person(0.5), at=0), make_image(person(0.5), at=1)]
    assert rejections(rules_of(TRACK), images)[-1] == ["track"]


def test_an_object_that_is_still_there_has_not_moved():
    images = [make_image(person(0.4), at=0), make_image(person(0.4), person(0.5), at=1)]
    assert rejections(rules_of(TRACK), images)[-1] == ["track", "track"]


def tall(x):
    return make_detection("person", 0.2, (x, 0.5, 0.05, 0.2))


def test_two_objects_that_are_detected_in_turns_have_moved_at_most_once():
    """At first, they look like one that moves; then one is detected again where it was."""
    rules = rules_of("objects: {person: }\ntrack: {}")
    turns = [make_image(tall(x), at=at) for at, x in enumerate((0.47, 0.4, 0.47, 0.4, 0.4))]
    assert rejections(rules, turns) == [["track"], [None], ["track"], ["track"], ["track"]]


def test_two_objects_that_were_detected_in_one_image_have_not_moved():
    shown = [(0.4, 0.5), (0.5,), (0.4,), (0.5,)]
    images = [make_image(*(person(x) for x in places), at=at) for at, places in enumerate(shown)]
    expected = [["track", "track"], ["track"], ["track"], ["track"]]
    assert rejections(rules_of(TRACK), images) == expected


@pytest.mark.parametrize(("pause", "expected"), [(6, "track"), (6.000001, None)])
def test_an_object_is_new_in_a_place_that_was_empty_for_three_times_within(pause, expected):
    images = [*walk(0.4), *walk(0.5, 0.4, start=pause, step=3)]
    assert rejections(rules_of(TRACK), images)[-1] == [expected]


@pytest.mark.parametrize(
    "places", [(0.4, 0.41, 0.415, 0.43), (0.4, 0.43, 0.415, 0.43), (0.4, 0.415, 0.4, 0.43)]
)
def test_a_box_between_two_places_does_not_say_that_an_object_stands_there(places):
    """A slow object overlaps its last place, and only its earlier one is out of its place."""
    assert rejections(rules_of(TRACK), walk(*places, step=0.5))[-1] == [None]


def test_scores_below_the_minimum_of_track_say_nothing_of_where_an_object_is():
    images = [make_image(person(0.4), at=0), make_image(person(0.4, 0.09), person(0.5), at=1)]
    assert rejections(rules_of(TRACK), images)[-1] == ["min_score", None]
    images = [make_image(person(0.4, 0.09), at=0), make_image(person(0.5), at=1)]
    assert rejections(rules_of(TRACK), images)[-1] == ["track"]


def test_any_image_within_the_time_can_show_where_the_object_was():
    images = [make_image(person(0.4), at=0), make_image(at=1), make_image(person(0.5), at=2)]
    verdict = judge_all(rules_of(TRACK), images)[-1]
    assert verdict.trace[0].checks == (
        Check("min_score", 0.2, 0.1, True),
        Check("track", 2.0, 3.0, True),
    )
    assert verdict.alerts


def test_a_label_can_be_exempt_and_a_layer_can_turn_track_off():
    exempt = rules_of(TRACK.replace("person: ,", "person: {track: false},"))
    assert rejections(exempt, walk(0.4, 0.5)) == [["min_score"]] * 2
    once = f"{TRACK}\ncooldown: 0s"
    off = rules_of(once.replace("{min_score: 0.1, within: 3s}", "{enabled: false}"))
    assert rejections(off, walk(0.4, 0.5)) == [["min_score"]] * 2
    assert not off.needs_history("hall")
    assert rules_of(once).needs_history("hall")
    assert rules_of(once).for_camera("hall").horizon.total_seconds() == 9


def test_at_night_an_object_that_is_not_sure_must_have_moved():
    text = """
objects: {person: {min_score: 0.5, min_score_at_night: 0.8}}
night: {max_brightness: 0.5}
track:
"""
    for brightness, first in ((0.4, "track"), (0.6, None)):
        images = [
            make_image(person(x, 0.7), at=at, brightness=brightness)
            for at, x in enumerate((0.4, 0.5))
        ]
        assert rejections(rules_of(text), images) == [[first], [None]]
    images = [make_image(person(0.4, 0.8), at=0, brightness=0.4)]
    assert rejections(rules_of(text), images) == [[None]]


@pytest.mark.parametrize(
    ("brightness", "scores", "expected"),
    [
        (0.4, (0.3, 0.07), ["track", "min_score"]),
        (0.4, (0.3, 0.2), ["track", None]),
        (0.4, (0.3, 0.1999), ["track", "min_score"]),
        (0.6, (0.3, 0.07), [None, None]),
    ],
)
def test_at_night_an_object_below_the_minimum_of_track_is_not_tracked(brightness, scores, expected):
    text = """
objects: {person: {min_score: 0.05, min_score_at_night: 0.5}}
night: {max_brightness: 0.5}
track: {min_score: 0.2}
"""
    images = [
        make_image(person(x, conf), at=at, brightness=brightness)
        for at, (x, conf) in enumerate(zip((0.4, 0.5), scores, strict=True))
    ]
    assert rejections(rules_of(text), images) == [[rejected_by] for rejected_by in expected]


@pytest.mark.parametrize("sides", [(0, 0), (0.05, 0), (0, 0.1)])
@pytest.mark.parametrize("places", [(0.4, 0.4), (0.4, 0.45)])
def test_a_box_without_area_has_not_moved(places, sides):
    images = [
        make_image(make_detection("person", 0.2, (x, 0.5, *sides)), at=at)
        for at, x in enumerate(places)
    ]
    assert rejections(rules_of("objects: {person: }\ntrack: {}"), images) == [["track"]] * 2
    from_no_area = [images[0], make_image(person(0.42, y=0.5), at=1)]
    assert rejections(rules_of("objects: {person: }\ntrack: {}"), from_no_area)[-1] == ["track"]


@pytest.mark.parametrize(
    ("area", "rejected_by"),
    [
        ("mask: {m: {polygon: [[0, 0], [0.45, 0], [0.45, 1], [0, 1]]}}", "mask"),
        ("zones: {z: {polygon: [[0.45, 0], [1, 0], [1, 1], [0.45, 1]]}}", "zones"),
    ],
)
def test_an_object_can_have_moved_out_of_a_mask_or_into_a_zone(area, rejected_by):
    assert rejections(rules_of(f"{TRACK}\n{area}"), walk(0.4, 0.5)) == [[rejected_by], [None]]


def test_other_filters_apply_to_a_tracked_object():
    masked = rules_of(f"{TRACK}\nmask: {{m: {{polygon: [[0.45, 0], [1, 0], [1, 1], [0.45, 1]]}}}}")
    assert rejections(masked, walk(0.3, 0.4, 0.5)) == [["track"], [None], ["mask"]]
    small = rules_of(TRACK.replace("person: ,", "person: {min_area: 0.01},"))
    assert rejections(small, walk(0.4, 0.5)) == [["min_area"]] * 2
    confirmed = rules_of(f"{TRACK}\nconfirm: {{pictures: 2}}")
    assert rejections(confirmed, walk(0.4, 0.5, 0.6)) == [["track"], ["confirm"], [None]]


def test_it_is_explained_that_an_object_has_moved_or_not():
    rules, history = rules_of(TRACK), History()
    first, second = walk(0.4, 0.5, step=0.5, conf=0.3)
    assert (
        "person, score 0.3: no threat: its score is low, and no object of its label moved to its "
        "place within 3 s (rule defaults.objects.person)"
    ) in explain(final_json(rules, first, history))
    assert "(score 0.3, minimum 0.1; moved within 0.5 s)" in explain(
        final_json(rules, second, history)
    )


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((0.7,), [None]),
        ((0.6999,), ["confirm"]),
        ((0.5, 0.5), ["confirm", None]),
        ((0.7, 0.5), [None, None]),
        ((0.4, 0.5), ["min_score", "confirm"]),
    ],
)
def test_a_high_score_needs_no_confirmation(scores, expected):
    rules = rules_of("objects: {person: }\nconfirm: {unless_score: 0.7}")
    images = [make_image(person(0.4, conf), at=at) for at, conf in enumerate(scores)]
    assert rejections(rules, images) == [[rejected_by] for rejected_by in expected]


# Searches

places = st.integers(0, 12).map(lambda step: step / 20)
drawn_boxes = st.tuples(
    st.sampled_from(["person", "car"]),
    st.sampled_from([0.05, 0.1, 0.3, 0.6]),
    places,
    st.sampled_from([0.04, 0.1, 0.25]),
)
drawn_images = st.lists(
    st.tuples(st.integers(0, 40), st.lists(drawn_boxes, max_size=4)),
    min_size=1,
    max_size=8,
    unique_by=lambda one: one[0],
)


def drawn(image):
    half_seconds, boxes = image
    detections = [
        person(x, conf, label=label, width=size / 2, height=size) for label, conf, x, size in boxes
    ]
    return make_image(*detections, at=half_seconds / 2, sha256=f"{half_seconds:04}")


def both_stand(before, after, looked_back_on):
    """The definition again: the later place was taken before the earlier one, or with it."""

    def numbers(place, other):
        return [
            number
            for number, boxes in enumerate(looked_back_on)
            if any(iou(box, place) >= 0.5 > iou(box, other) for box in boxes)
        ]

    taken_before, taken_after = numbers(before, after), numbers(after, before)
    return bool(taken_before and taken_after) and min(taken_after) <= max(taken_before)


def may_have_moved(detection, image, earlier, looked_back_on):
    """The definition again, for boxes that are twice as high as wide, in a square image."""

    def of_label(other):
        boxes = [one for one in other.detections if one.label == detection.label]
        return [one.bbox for one in boxes if one.conf >= 0.1]

    for past in earlier:
        for box in of_label(past):
            mean = (box[3] + detection.bbox[3]) / 2
            middles = [one[0] + one[2] / 2 for one in (box, detection.bbox)]
            rise = (box[3] - detection.bbox[3]) / 2
            distance = ((middles[0] - middles[1]) ** 2 + rise**2) ** 0.5
            if (
                0.1 * mean - 1e-9 <= distance <= 2 * mean + 1e-9
                and 0.5 <= box[3] / detection.bbox[3] <= 2
                and all(iou(other, detection.bbox) < 0.5 for other in of_label(past))
                and all(iou(other, box) < 0.5 for other in of_label(image))
                and not both_stand(box, detection.bbox, [of_label(one) for one in looked_back_on])
            ):
                return True
    return False


@pytest.mark.search
@search(500)
@given(drawn_images, st.randoms(use_true_random=False))
def test_in_any_order_a_low_score_counts_only_if_the_object_has_moved(images, order):
    arrived, history, rules = [drawn(image) for image in images], History(), rules_of(TRACK)
    order.shuffle(arrived)
    for number, image in enumerate(arrived):
        verdict = rules.judge(image, history)
        earlier = [past for past in arrived[:number] if 0 < seconds_between(past, image) <= 3]
        looked_back_on = sorted(
            (past for past in arrived[:number] if 0 < seconds_between(past, image) <= 9),
            key=lambda past: past.sha256,
        )
        for detection, rejected_by in zip(
            image.detections, rejecting_filters(verdict), strict=True
        ):
            if detection.conf >= 0.5:
                assert rejected_by is None
            elif detection.conf < 0.1:
                assert rejected_by == "min_score"
            elif may_have_moved(detection, image, earlier, looked_back_on):
                assert rejected_by is None
            else:
                assert rejected_by == "track"


def are_apart(objects):
    boxes = [(x, 0.4, size / 2, size) for x, size in objects]
    return all(iou(*pair) < 0.25 for pair in itertools.combinations(boxes, 2))


def seconds_between(first, second):
    def seconds(image):
        hours, minutes, rest = image.timestamp.rstrip("Z").split("T")[1].split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(rest)

    return seconds(second) - seconds(first)


@pytest.mark.search
@search(500)
@given(
    st.lists(st.tuples(places, st.sampled_from([0.04, 0.1, 0.25])), min_size=1, max_size=3).filter(
        are_apart
    ),
    st.lists(st.sets(st.integers(0, 2)), min_size=1, max_size=10),
    st.randoms(use_true_random=False),
)
def test_an_object_that_stands_still_is_no_threat_again_once_its_neighbour_was_detected_again(
    objects, shown, jitter
):
    """Boxes fluctuate by a tenth of their size. Two objects next to each other, of which one is
    detected only before the other one, look like one that moves; in turns, they do not."""
    history, rules = History(), rules_of(TRACK)
    before: list[set[int]] = []
    for number, indexes in enumerate(shown):
        visible = indexes & set(range(len(objects)))
        detections = [
            person(
                round(objects[index][0] + jitter.uniform(-0.05, 0.05) * objects[index][1], 4),
                width=objects[index][1] / 2,
                height=objects[index][1],
            )
            for index in sorted(visible)
        ]
        verdict = rules.judge(make_image(*detections, at=number), history)
        for threat in verdict.threats:
            index = sorted(visible)[threat.detection]
            first = next((n for n, past in enumerate(before[-9:]) if index in past), 9)
            gone = {other for past in before[-3:] for other in past - visible}
            assert any(all(other not in past for past in before[-9:][first:]) for other in gone)
        before.append(visible)


@pytest.mark.search
@search(200)
@given(drawn_images)
def test_track_adds_threats_and_takes_none_away(images):
    in_order = sorted((drawn(image) for image in images), key=lambda image: image.sha256)
    without = judge_all(rules_of("objects: {person: , car: }"), in_order)
    with_track = judge_all(rules_of(TRACK), in_order)
    for plain, tracked in zip(without, with_track, strict=True):
        assert {one.detection for one in plain.threats} <= {
            one.detection for one in tracked.threats
        }


def test_the_history_of_track_is_bounded():
    rules, history, draw = rules_of(f"{TRACK}\ncooldown: 0s"), History(), random.Random(1)
    sizes = []
    for number in range(500):
        at = number if number % 7 else draw.randrange(500_000)
        rules.judge(make_image(person(draw.random() / 2), person(0.8), at=at / 10), history)
        sizes.append(len(pickle.dumps(history)))
        assert len(history.tracked) <= 2 * TRACKED_IMAGES
    assert TRACKED_IMAGES == 32
    assert max(sizes) < 8_000
    rules_of("objects: {person: }\ncooldown: 1h").judge(make_image(at=0), history)
    assert history.tracked == []


def test_an_object_is_tracked_after_the_clock_of_the_camera_was_set_back():
    ahead = walk(*[0.4] * 40, start=86_400, step=0.5)
    verdicts = judge_all(rules_of(TRACK), [*ahead, *walk(0.4, 0.5)])
    assert [verdict.alerts for verdict in verdicts] == [False] * 41 + [True]


def test_of_two_images_with_one_capture_time_track_keeps_the_smaller_sha256():
    shown, empty = make_image(person(0.4), at=0, sha256="b"), make_image(at=0, sha256="a")
    for order in ([shown, empty], [empty, shown]):
        assert rejections(rules_of(TRACK), [*order, make_image(person(0.5), at=1)])[-1] == ["track"]
