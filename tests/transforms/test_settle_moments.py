"""One picture stands for each camera and moment of a stream, whichever order they come in."""

import hashlib
import json
from dataclasses import replace

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing import test_stream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import TimestampedValue

from tests.transforms.results import judged
from transforms.count_threats import StoreLate, event_time, tally
from transforms.settle_moments import (
    Duplicate,
    SettleMoments,
    Standing,
    TakeBack,
    _TakeBack,
)

NOW = event_time("2026-01-31T10:00:00Z").micros // 1_000_000
ALERT = [("person", "alert")]


def picture(name, sha256, threats=ALERT, *, second=0, stream_time=None):
    one = judged("hall", f"2026-01-31T10:00:{second:02}Z", threats, file=name)
    image = replace(one.image, sha256=sha256 * 64, stream_time=stream_time)
    return replace(one, image=image)


def settled(events, **expected):
    """Runs pictures and watermarks (seconds after 10:00) through; compares what is named."""
    stream = test_stream.TestStream().advance_watermark_to(NOW)
    for event in events:
        if isinstance(event, int):
            stream = stream.advance_watermark_to(NOW + event)
        else:
            stream = stream.add_elements([TimestampedValue(event, NOW)])
    stream = stream.advance_watermark_to_infinity()
    with beam.Pipeline(
        runner=BundleBasedDirectRunner(), options=PipelineOptions(streaming=True)
    ) as pipeline:
        outputs = (
            pipeline
            | stream
            | beam.Map(lambda one: one)
            | SettleMoments(window_seconds=60, allowed_lateness_seconds=120)
        )
        shown = {
            "stands": lambda one: one.image.file,
            "counted": lambda one: (one.tally["images"], one.tally["alerts"]),
            "late": lambda one: one.image.file,
            "duplicate": lambda one: (one.stands.file, one.falls.file),
        }
        for tag, wanted in expected.items():
            found = outputs[tag] | f"Show {tag}" >> beam.Map(shown[tag])
            assert_that(found, equal_to(wanted), label=f"check {tag}")


def test_a_picture_stands_and_is_counted():
    settled(
        [picture("a.jpg", "1"), picture("b.jpg", "2", second=1)],
        stands=["a.jpg", "b.jpg"],
        counted=[(1, 1), (1, 1)],
        late=[],
        duplicate=[],
    )


def test_the_same_bytes_again_are_the_same_image():
    settled([picture("a.jpg", "1")] * 3, stands=["a.jpg"], counted=[(1, 1)], duplicate=[])


def test_of_two_the_smaller_hash_stands_where_it_comes_first():
    settled(
        [picture("a.jpg", "1"), picture("b.jpg", "2")],
        stands=["a.jpg"],
        counted=[(1, 1)],
        duplicate=[("a.jpg", "b.jpg")],
    )


def test_of_two_the_smaller_hash_stands_where_it_comes_second_and_takes_the_place():
    settled(
        [picture("b.jpg", "2"), picture("a.jpg", "1", [])],
        stands=["b.jpg", "a.jpg"],
        counted=[(1, 1), (-1, -1), (1, 0)],
        duplicate=[("a.jpg", "b.jpg")],
    )


def test_a_moment_is_forgotten_when_its_window_takes_no_more():
    settled([picture("a.jpg", "1"), 179, picture("b.jpg", "2")], stands=["a.jpg"])
    settled([picture("a.jpg", "1"), 181, picture("b.jpg", "2")], stands=["a.jpg", "b.jpg"])


@pytest.mark.parametrize(
    ("stream_time", "late"),
    [
        (None, []),
        ("2026-01-31T10:01:30Z", []),
        ("2026-01-31T10:02:59.999Z", []),
        ("2026-01-31T10:03:00Z", ["a.jpg"]),
        ("2027-01-31T10:03:00Z", ["a.jpg"]),
    ],
)
def test_a_picture_that_no_window_takes_is_judged_but_counted_apart(stream_time, late):
    settled(
        [picture("a.jpg", "1", stream_time=stream_time)],
        stands=["a.jpg"],
        counted=[] if late else [(1, 1)],
        late=late,
    )


def stored(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def standing(name, sha256, uri):
    return Standing(sha256, name, uri, 640, 480, None)


def taken_back(output, stands, falls):
    step = _TakeBack(str(output))
    return step.work(Duplicate("hall", "2026-01-31T10:00:00Z", stands, falls))


def files(folder):
    return {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()}


def test_what_was_written_for_the_picture_that_falls_is_taken_back(tmp_path):
    both = [f"{kind}/hall/{name}.json" for kind in ("detections", "final") for name in "ab"]
    stored(tmp_path, *both, "validated/hall/a.jpg", "validated/hall/b.jpg")
    fell = taken_back(
        tmp_path, standing("a.jpg", "1" * 64, "/in/a.jpg"), standing("b.jpg", "2" * 64, "/in/b.jpg")
    )
    assert files(tmp_path) == {
        *("detections/hall/a.json", "final/hall/a.json", "validated/hall/a.jpg")
    }
    assert (fell.reason, fell.file.uri, fell.sha256) == ("duplicate", "/in/b.jpg", "2" * 64)


def test_two_spellings_of_the_ending_share_one_verdict(tmp_path):
    stored(tmp_path, "final/hall/a.json", "detections/hall/a.json", "validated/hall/a.JPG")
    taken_back(
        tmp_path, standing("a.jpg", "1" * 64, "/in/a.jpg"), standing("a.JPG", "2" * 64, "/in/a.JPG")
    )
    assert files(tmp_path) == {"final/hall/a.json", "detections/hall/a.json"}


def test_the_bytes_of_the_one_that_stands_are_put_back_under_a_shared_name(tmp_path):
    stored(tmp_path, "in/one/a.jpg", "in/two/a.jpg", "out/validated/hall/a.jpg")
    good = (tmp_path / "in/one/a.jpg").read_bytes()
    kept = tmp_path / "out/validated/hall/a.jpg"
    one = standing("a.jpg", hashlib.sha256(good).hexdigest(), str(tmp_path / "in/one/a.jpg"))
    two = standing("a.jpg", "f" * 64, str(tmp_path / "in/two/a.jpg"))
    taken_back(tmp_path / "out", one, two)
    assert kept.read_bytes() == good
    taken_back(tmp_path / "out", replace(one, sha256="0" * 64), two)
    assert kept.read_bytes() == good  # Another picture is there now: nothing is known of it.
    taken_back(tmp_path / "out", replace(one, uri="/nowhere"), two)
    assert kept.read_bytes() == good


def test_a_late_picture_has_a_count_row_of_its_own(tmp_path):
    late = picture("hall_x.jpg", "1", second=59)
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        pipeline | beam.Create([late]) | StoreLate(str(tmp_path), window_seconds=60)
    assert json.loads((tmp_path / "late/hall/hall_x.json").read_text()) == {
        "file": "hall_x.jpg",
        "id": "hall",
        "window_start": "2026-01-31T10:00:00Z",
        "window_end": "2026-01-31T10:01:00Z",
        **tally(late),
        "by_label": {"person": 1},
    }


def test_taking_back_gives_what_the_invalid_store_takes(tmp_path):
    pair = Duplicate(
        *("hall", "2026-01-31T10:00:00Z"),
        standing("a.jpg", "1" * 64, "/in/a.jpg"),
        standing("b.jpg", "2" * 64, "/in/b.jpg"),
    )
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        fell = pipeline | beam.Create([pair]) | TakeBack(str(tmp_path))
        assert_that(fell | beam.Map(lambda one: one.file.name), equal_to(["b.jpg"]))
