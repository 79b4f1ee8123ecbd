import functools
import hashlib
import itertools
import threading
from dataclasses import replace

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp
from hypothesis import given
from hypothesis import strategies as st

import rules
from tests.search import search
from tests.transforms.convolutional_models import save_convolutional_detector
from tests.transforms.pictures import MOMENT
from tests.transforms.small_models import POISON, save_detector
from transforms.detect_objects import (
    DetectObjects,
    DetectorHandler,
    Model,
    PendingPrediction,
    PendingResult,
    _ReadPrediction,
    detected_or_failed,
    to_detections,
)
from transforms.models.detector import Detector, RawDetections, inspect_model
from transforms.models.labels import COCO
from transforms.models.model_files import ModelError, fetch_model
from transforms.models.tiling import merge
from transforms.records.images import ImageFile, ModelInfo, NamedFile, Tile, ValidImage
from transforms.runtime.counters import counted

NAN, INFINITY = float("nan"), float("inf")


def raw(*rows):
    """A model's output; each row a box (y_min, x_min, y_max, x_max), a score and a class."""
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    scores = np.array([row[1] for row in rows], np.float32)
    return RawDetections(boxes, scores, np.array([row[2] for row in rows], np.float32))


def detections(*rows, content=(1.0, 1.0), min_score_kept=0.05, labels=COCO):
    return to_detections(raw(*rows), content=content, labels=labels, min_score_kept=min_score_kept)


@pytest.mark.parametrize(
    ("box", "content", "bbox"),
    [
        pytest.param((0.2, 0.1, 0.5, 0.3), (1, 1), (0.1, 0.2, 0.2, 0.3), id="as it is"),
        pytest.param((0.2, 0.1, 0.5, 0.3), (1, 0.75), (0.1, 0.2667, 0.2, 0.4), id="wide"),
        pytest.param((0.2, 0.1, 0.5, 0.3), (0.5, 1), (0.2, 0.2, 0.4, 0.3), id="high"),
        pytest.param((0.5, 0.5, 0.9, 0.9), (1, 0.75), (0.5, 0.6667, 0.4, 0.3333), id="padding"),
        pytest.param((-0.5, -0.1, 1.5, 1.01), (1, 1), (0.0, 0.0, 1.0, 1.0), id="clipped"),
        pytest.param(
            (1 / 3, 1 / 7, 2 / 3, 6 / 7), (1, 1), (0.1429, 0.3333, 0.7142, 0.3334), id="rounded"
        ),
        pytest.param((-0.0, -0.0, 0.5, 0.5), (1, 1), (0.0, 0.0, 0.5, 0.5), id="minus zero"),
    ],
)
def test_a_box_is_mapped_from_the_letterbox_clipped_and_rounded(box, content, bbox):
    (detection,) = detections((box, 0.9, 1), content=content)
    assert detection.bbox == bbox
    assert "-" not in repr(detection.bbox)


@pytest.mark.parametrize(
    ("row", "content"),
    [
        pytest.param(((0.8, 0.1, 0.9, 0.3), 0.9, 1), (1, 0.75), id="below the picture"),
        pytest.param(((0.1, 0.6, 0.9, 0.9), 0.9, 1), (0.5, 1), id="beside the picture"),
        pytest.param(((0.2, 0.1, 0.2, 0.3), 0.9, 1), (1, 1), id="no height"),
        pytest.param(((0.2, 0.1, 0.5, 0.10004), 0.9, 1), (1, 1), id="no width once rounded"),
        pytest.param(((0.5, 0.1, 0.2, 0.3), 0.9, 1), (1, 1), id="upside down"),
        pytest.param(((NAN, 0.1, 0.5, 0.3), 0.9, 1), (1, 1), id="NaN in the box"),
        pytest.param(((0.2, 0.1, INFINITY, 0.3), 0.9, 1), (1, 1), id="infinity in the box"),
        pytest.param(((0.2, 0.1, 0.5, 0.3), NAN, 1), (1, 1), id="NaN score"),
        pytest.param(((0.2, 0.1, 0.5, 0.3), 0.9, NAN), (1, 1), id="NaN class"),
        pytest.param(((0.2, 0.1, 0.5, 0.3), 0.9, INFINITY), (1, 1), id="infinite class"),
        pytest.param(((0.2, 0.1, 0.5, 0.3), -0.2, 1), (1, 1), id="negative score"),
    ],
)
def test_detections_outside_the_image_are_dropped_alone(row, content):
    good = ((0.1, 0.1, 0.2, 0.2), 0.5, 1)
    result = detections(row, good, row, content=content, min_score_kept=0)
    assert [detection.conf for detection in result] == [0.5]


@pytest.mark.parametrize(
    ("score", "least", "conf"),
    [
        (0.05, 0.05, 0.05),
        (0.04996, 0.05, 0.05),  # Rounded first, decided then.
        (0.04994, 0.05, None),
        (0.0, 0.0, 0.0),
        (0.123456, 0.05, 0.1235),
        (1.0, 1.0, 1.0),
        (1.00001, 0.05, 1.0),
        (1.7, 0.05, 1.0),
    ],
)
def test_a_score_is_rounded_before_it_is_compared(score, least, conf):
    result = detections(((0.2, 0.1, 0.5, 0.3), score, 1), min_score_kept=least)
    assert [detection.conf for detection in result] == ([] if conf is None else [conf])


def test_the_highest_score_comes_first_and_ties_have_one_order():
    rows = [
        ((0.2, 0.1, 0.5, 0.3), 0.5, 3),
        ((0.2, 0.1, 0.5, 0.3), 0.5, 1),
        ((0.1, 0.1, 0.5, 0.3), 0.5, 1),
        ((0.2, 0.1, 0.5, 0.3), 0.9, 10),
        ((0.2, 0.1, 0.5, 0.3), 0.5, 10),
    ]
    result = detections(*rows)
    assert [(detection.conf, detection.category, detection.bbox[1]) for detection in result] == [
        (0.9, "10", 0.2),
        (0.5, "1", 0.1),
        (0.5, "1", 0.2),
        (0.5, "3", 0.2),
        (0.5, "10", 0.2),
    ]
    assert detections(*rows[::-1]) == result


@pytest.mark.parametrize(
    ("number", "label"), [(1, "person"), (90, "toothbrush"), (12, "class 12"), (0, "class 0")]
)
def test_a_class_without_a_name_is_called_by_its_number(number, label):
    (detection,) = detections(((0.2, 0.1, 0.5, 0.3), 0.9, number))
    assert (detection.category, detection.label) == (str(number), label)


def valid(name, shade, *, known=None, content=(1.0, 1.0)):
    """A valid image of one colour; the detectors see `shade / 255` as a score of class 3."""
    data = f"bytes of {name}".encode()
    return ValidImage(
        named=NamedFile(ImageFile(f"/in/cam_{name}.jpg", len(data)), "cam", MOMENT),
        sha256=hashlib.sha256(data).hexdigest(),
        width=200,
        height=160,
        data=data,
        pixels=None if known is not None else np.full((8, 8, 3), shade, np.uint8),
        brightness=round(shade / 255, 4),
        sharpness=0.0312,
        content=content,
        known=known,
    )


def model_at(path):
    files = fetch_model(str(path))
    return Model(str(path), files.info, inspect_model(files.path), {1: "person", 3: "car"})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_at(save_detector(tmp_path_factory.mktemp("tiny") / "tiny", size=(8, 8)))


def detect(run_pipeline, model, images, **options):
    def build(pipeline):
        outputs = pipeline | beam.Create(images) | DetectObjects(model, **options)
        return {tag: outputs[tag] for tag in ("detected", "kept", "invalid")}

    return run_pipeline(build)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_each_image_gets_its_own_detections_in_any_batch(run_pipeline, model, batch_size):
    images = [valid(str(shade), shade) for shade in range(20, 220, 20)]
    _, results = detect(run_pipeline, model, images, batch_size=batch_size)
    assert {
        image.file: [(detection.label, detection.conf) for detection in image.detections]
        for image in results["detected"]
    } == {
        f"cam_{shade}.jpg": sorted(
            [("person", 0.9), ("car", round(shade / 255, 4))], key=lambda detection: -detection[1]
        )
        for shade in range(20, 220, 20)
    }
    assert sorted(image.data for image, _ in results["kept"]) == sorted(
        image.data for image in images
    )
    assert results["invalid"] == []


class _WithTimestamp(beam.DoFn):
    def process(self, element, timestamp=beam.DoFn.TimestampParam):
        image = element[1] if isinstance(element, tuple) else element
        yield image.file if hasattr(image, "detections") else image.file.name, timestamp


@pytest.mark.parametrize("tag", ["detected", "kept"])
def test_results_get_back_a_timestamp_that_event_time_has_reached(run_pipeline, model, tag):
    """Batches have the latest timestamp that there is, which Prism takes for the far future."""
    early, later = valid("1", 20), valid("2", 40)
    file = replace(later.named.file, stream_time="2026-01-31T12:00:00.5Z")
    later = replace(later, named=replace(later.named, file=file))

    def build(pipeline):
        outputs = (
            pipeline | beam.Create([early, later]) | DetectObjects(model, restores_timestamps=True)
        )
        return {"found": outputs[tag] | beam.ParDo(_WithTimestamp())}

    _, results = run_pipeline(build)
    at_noon = Timestamp.from_rfc3339("2026-01-31T12:00:00.5Z")
    assert sorted(results["found"]) == [("cam_1.jpg", MIN_TIMESTAMP), ("cam_2.jpg", at_noon)]


GRIDS = (None, rules.Tiles(2, 1, 0.0), rules.Tiles(3, 2, 0.2), rules.Tiles(1, 3, 0.5, 0.95))


@st.composite
def tiled_images(draw):
    """Images of cameras with different tiles, or none; each part has a shade of its own."""
    images = []
    for number in range(draw(st.integers(1, 7))):
        grid, camera = draw(st.sampled_from(list(enumerate("abcd"))))
        grid = GRIDS[grid]
        regions = grid.regions(640, 480) if grid else ()
        shades = draw(st.lists(st.integers(20, 255), min_size=7, max_size=7))
        known = draw(st.sampled_from([None, None, None, ()]))
        image = valid(f"{camera}{number}", shades[0], known=known)
        if image.known is None:
            image = replace(
                image,
                tiles=tuple(
                    Tile(
                        np.full((8, 8, 3), shade, np.uint8),
                        draw(st.sampled_from([(1.0, 1.0), (1.0, 0.75)])),
                        (x0 / 640, y0 / 480, x1 / 640, y1 / 480),
                        grid.min_score,
                    )
                    for shade, (x0, y0, x1, y1) in zip(shades[1:], regions, strict=False)
                ),
            )
        images.append(replace(image, tiling=grid and grid.name))
    return images


@functools.cache
def _loaded(source, threads, call_size):
    return DetectorHandler(model_at(source), threads=threads, call_size=call_size).load_model()


def detector_of(model, threads, call_size):
    return _loaded(model.source, threads, call_size)


def one_input_at_a_time(model, detector, image):
    """A slow twin: the model is given the image, then each tile, alone."""
    if image.known is not None:
        return image.known

    def look(pixels, content, region, min_score=0.05):
        (raw,) = detector.detect([pixels])
        labels = model.labels
        return to_detections(
            raw, content=content, labels=labels, min_score_kept=min_score, region=region
        )

    whole = look(image.pixels, image.content, (0.0, 0.0, 1.0, 1.0))
    if not image.tiles:
        return whole
    parts = [
        (tile.region, look(tile.pixels, tile.content, tile.region, tile.min_score))
        for tile in image.tiles
    ]
    return merge(whole, parts)


@pytest.mark.search
@search(60)
@given(
    tiled_images(),
    st.integers(1, 9),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([1, 2, 5]),
    st.randoms(use_true_random=False),
)
def test_batches_of_tiles_of_several_images_are_not_mixed_up(
    model, images, batch_size, threads, call_size, random
):
    """For any size of a batch, number of threads, images in a call, and order."""
    alone = detector_of(model, 1, 1)
    expected = {image.named.file.name: one_input_at_a_time(model, alone, image) for image in images}
    handler = DetectorHandler(model, batch_size=batch_size)
    detector = detector_of(model, threads, call_size)
    random.shuffle(images)
    found = {}
    for start in range(0, len(images), batch_size):
        for result in handler.run_inference(images[start : start + batch_size], detector):
            image = detected_or_failed(
                result.example,
                result.inference.result().prediction,
                model=model.info,
                labels=model.labels,
                min_score_kept=0.05,
            )
            found[image.file] = image.detections
    assert found == expected


def tiled(name, shades, min_score=0.0):
    """An image of the first shade whose two tiles have the others."""
    regions = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))
    tiles = tuple(
        Tile(np.full((8, 8, 3), shade, np.uint8), (1.0, 1.0), region, min_score)
        for shade, region in zip(shades[1:], regions, strict=True)
    )
    return replace(valid(name, shades[0]), tiles=tiles, tiling="tiles 2x1 overlap 0.0")


def test_what_tiles_show_is_mapped_into_the_image_and_cut_boxes_are_dropped(run_pipeline, model):
    """The boxes over a whole tile are cut by its inner border; that of the whole image is not."""
    info = replace(model.info, settings="0123456789ab")
    result, results = detect(
        run_pipeline, replace(model, info=info), [tiled("a", (102, 153, 204)), valid("b", 51)]
    )
    images = {image.file: image for image in results["detected"]}
    assert [(shape.label, shape.conf, shape.bbox) for shape in images["cam_a.jpg"].detections] == [
        ("person", 0.9, (0.1, 0.1, 0.2, 0.4)),
        ("person", 0.9, (0.2, 0.1, 0.4, 0.4)),
        ("person", 0.9, (0.6, 0.1, 0.2, 0.4)),
        ("car", 0.4, (0.0, 0.0, 1.0, 1.0)),
    ]
    assert images["cam_a.jpg"].model.settings == "8ac4a02a1b9d tiles 2x1 overlap 0.0"
    assert images["cam_b.jpg"].model.settings == "0123456789ab"
    assert all(image.tiles == () for image, _ in results["kept"])
    counts = {name: n for name, n in counted(result).items() if name.startswith("model.")}
    assert (counts["model.images"], counts["model.tiles"]) == (2, 2)


@pytest.mark.parametrize(("min_score", "number"), [(0.05, 4), (0.9, 4), (0.91, 2)])
def test_a_detection_in_a_tile_needs_the_score_of_the_tiles(run_pipeline, model, min_score, number):
    """That of the whole image does not, even if it is lower."""
    image = tiled("a", (102, 153, 204), min_score)
    _, results = detect(run_pipeline, model, [image])
    assert len(results["detected"][0].detections) == number


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_image_on_one_of_whose_tiles_the_model_fails_is_a_record(run_pipeline, tmp_path, place):
    poisoned = model_at(save_detector(tmp_path / "poisoned", size=(8, 8), poisoned=True))
    shades = [POISON if index == place else 100 for index in range(3)]
    images = [tiled("a", (51, 52, 53)), tiled("b", shades), tiled("c", (54, 55, 56))]
    _, results = detect(run_pipeline, poisoned, images, batch_size=3)
    assert sorted(image.file for image in results["detected"]) == ["cam_a.jpg", "cam_c.jpg"]
    (failed,) = results["invalid"]
    assert (failed.file.name, failed.reason) == ("cam_b.jpg", "inference_failed")


def test_the_object_data_says_which_image_and_which_model(run_pipeline, model):
    _, results = detect(run_pipeline, model, [valid("one", 51, content=(1.0, 0.75))])
    (image,) = results["detected"]
    assert image.to_json() == {
        "format_version": "1.0",
        "id": "cam",
        "timestamp": MOMENT,
        "file": "cam_one.jpg",
        "uri": "/in/cam_one.jpg",
        "sha256": hashlib.sha256(b"bytes of one").hexdigest(),
        "width": 200,
        "height": 160,
        "brightness": 0.2,
        "sharpness": 0.0312,
        "model": {
            "name": "tiny",
            "version": model.info.version,
            "settings": None,
            "runtime": "savedmodel",
        },
        "detections": [
            {"category": "1", "label": "person", "conf": 0.9, "bbox": [0.2, 0.1333, 0.4, 0.5334]},
            {"category": "3", "label": "car", "conf": 0.2, "bbox": [0.0, 0.0, 1.0, 1.0]},
        ],
    }


def test_detections_below_the_score_kept_are_left_out(run_pipeline, model):
    _, results = detect(run_pipeline, model, [valid("one", 51)], min_score_kept=0.5)
    assert [detection.label for detection in results["detected"][0].detections] == ["person"]


def test_known_images_pass_by_the_model(run_pipeline, tmp_path):
    """Were they shown to it, the model would fail on them."""
    poisoned = model_at(save_detector(tmp_path / "poisoned", size=(8, 8), poisoned=True))
    known = (rules.Detection("1", "person", 0.7, (0.1, 0.1, 0.2, 0.2)),)
    images = [valid("a", POISON, known=known), valid("b", 51), valid("c", POISON, known=())]
    result, results = detect(run_pipeline, poisoned, images)
    detections = {image.file: image.detections for image in results["detected"]}
    assert detections["cam_a.jpg"] == known
    assert detections["cam_c.jpg"] == ()
    assert [shape.label for shape in detections["cam_b.jpg"]] == ["person", "car"]
    assert counted(result)["images.resumed"] == 2
    assert len(results["kept"]) == 3
    assert results["invalid"] == []


def test_an_image_on_which_the_model_fails_is_a_record_with_its_bytes(run_pipeline, tmp_path):
    poisoned = model_at(save_detector(tmp_path / "poisoned", size=(8, 8), poisoned=True))
    images = [valid("a", 51), valid("b", POISON), valid("c", 102)]
    _, results = detect(run_pipeline, poisoned, images, batch_size=3)
    assert sorted(image.file for image in results["detected"]) == ["cam_a.jpg", "cam_c.jpg"]
    assert sorted(
        (image.named.file.name, detected.file) for image, detected in results["kept"]
    ) == [
        ("cam_a.jpg", "cam_a.jpg"),
        ("cam_c.jpg", "cam_c.jpg"),
    ]
    (failed,) = results["invalid"]
    assert (failed.file.name, failed.reason) == ("cam_b.jpg", "inference_failed")
    assert "a poisoned image" in failed.detail
    assert "\n" not in failed.detail
    assert (failed.data, failed.sha256) == (images[1].data, images[1].sha256)
    assert (failed.size_bytes, failed.width, failed.height) == (len(images[1].data), 200, 160)


def test_batches_and_latencies_are_among_the_job_s_metrics(run_pipeline, model):
    images = [valid(str(shade), shade) for shade in range(10)]
    result, _ = detect(run_pipeline, model, images, batch_size=5)
    metrics = result.metrics().query(MetricsFilter().with_namespace("inference"))
    distributions = {metric.key.metric.name: metric.result for metric in metrics["distributions"]}
    sizes = distributions["inference_request_batch_size"]
    assert (sizes.sum, sizes.max) == (10, 5)
    assert distributions["inference_batch_latency_micro_secs"].count == sizes.count
    assert distributions["load_model_latency_milli_secs"].count >= 1
    counters = {metric.key.metric.name: metric.result for metric in metrics["counters"]}
    assert counters["num_inferences"] == 10


def test_batches_their_images_and_their_time_are_counters(run_pipeline, model, monkeypatch):
    """Prometheus shows 0 for Beam's distributions on Flink; images seen before are not counted.

    A batch lasts from the start of its first call to the end of its last one.
    """
    clock = itertools.count(10, 0.25)
    monkeypatch.setattr("transforms.models.detector.perf_counter", lambda: next(clock))
    images = [valid(str(shade), shade) for shade in range(8)]
    images += [valid("known", 9, known=()), valid("known too", 10, known=())]
    result, _ = detect(run_pipeline, model, images, batch_size=4, threads=1)
    counts = {name: n for name, n in counted(result).items() if name.startswith("model.")}
    assert counts == {"model.batches": 2, "model.images": 8, "model.microseconds": 3_500_000}


second_batch_began = threading.Event()


def note_second_batch(image):
    if image.named.file.name == "cam_4.jpg":
        second_batch_began.set()
    return image


def test_the_model_processes_a_batch_while_the_next_one_is_gathered(
    run_pipeline, model, monkeypatch
):
    """Here the model does not begin before an image of the second batch has been gathered."""
    outputs_of = Detector._outputs

    def wait(detector, images):
        assert second_batch_began.wait(20)
        return outputs_of(detector, images)

    monkeypatch.setattr(Detector, "_outputs", wait)
    # Beam encodes some elements to estimate their size, which would wait for the model.
    monkeypatch.setattr(PendingPrediction, "__reduce__", None)
    images = [valid(str(shade), shade) for shade in range(80)]

    def build(pipeline):
        one_bundle = pipeline | beam.Create([images]) | beam.FlatMap(list)
        gathered = one_bundle | beam.Map(note_second_batch)
        return {"detected": (gathered | DetectObjects(model, batch_size=4)).detected}

    second_batch_began.clear()
    _, results = run_pipeline(build)
    assert len(results["detected"]) == 80


def test_a_bundle_that_fails_leaves_the_model_no_calls_for_the_next_attempt(model, monkeypatch):
    outputs_of, may_go_on, calls = Detector._outputs, threading.Event(), []

    def wait(detector, images):
        calls.append(len(images))
        assert may_go_on.wait(20)
        return outputs_of(detector, images)

    monkeypatch.setattr(Detector, "_outputs", wait)
    images = [valid(str(shade), shade) for shade in range(8)]
    detector = detector_of(model, 1, 1)
    handler = DetectorHandler(model)
    for _ in range(3):
        read = _ReadPrediction(model, 0.05, False, len(images))
        read.setup()
        read.start_bundle()
        for result in handler.run_inference(images, detector):
            assert not list(read.process(result, MIN_TIMESTAMP, None))
        read.teardown()
    may_go_on.set()
    assert all(detector.detect([images[0].pixels]))
    assert len(calls) == 2  # The one that had begun, and the last one.


@pytest.mark.parametrize("first", [0, 2])
def test_a_result_that_is_passed_to_another_process_is_finished(model, first):
    """A runner may put another process between the model and the next step."""
    images = [valid("a", 51), valid("known", 1, known=()), tiled("b", (102, 153, 204))]
    results = list(DetectorHandler(model).run_inference(images, detector_of(model, 2, 1)))
    coder = beam.coders.registry.get_coder(PendingResult)
    sent = coder.decode(coder.encode(results[first]))
    assert isinstance(sent, PendingResult)
    here, there = results[first].inference.result(), sent.inference.result()
    assert (here.microseconds, bool(here.microseconds)) == (there.microseconds, first == 2)
    for one, other in zip(here.prediction, there.prediction, strict=True):
        assert one.scores.tolist() == other.scores.tolist()
        assert one.boxes.tolist() == other.boxes.tolist()
    assert results[1].inference.result().prediction is None


def test_the_handler_says_how_many_bytes_a_batch_holds(model):
    handler = DetectorHandler(model)
    assert handler.get_num_bytes([valid("a", 1), valid("b", 2), valid("c", 3, known=())]) == 384
    assert handler.get_num_bytes([valid("a", 1), tiled("b", (1, 2, 3))]) == 768


def test_the_object_data_says_what_ran_the_model_on_the_machine_that_looked(run_pipeline, tmp_path):
    """Images that were known keep what the job was to look by, as they were seen so."""
    made = model_at(save_convolutional_detector(tmp_path / "net", size=(8, 8)))
    job = replace(made, info=replace(made.info, runtime="of the launcher"), asked_runtime="tflite")
    _, found = detect(run_pipeline, job, [valid("now", 51), valid("before", 9, known=())])
    assert {image.file: image.model.runtime for image in found["detected"]} == {
        "cam_now.jpg": "tflite",
        "cam_before.jpg": "of the launcher",
    }


def test_a_machine_that_finds_another_model_under_the_name_refuses_it(tmp_path):
    created = model_at(save_detector(tmp_path / "model", size=(8, 8)))
    (tmp_path / "model" / "added.txt").write_text("changed since")
    with pytest.raises(ModelError, match="changed since the job was started"):
        DetectorHandler(created).load_model()


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_no_images_is_refused(model, batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        DetectorHandler(model, batch_size=batch_size)


def test_a_model_s_info_is_read_from_its_files(model):
    assert model.info == ModelInfo("tiny", fetch_model(model.source).info.version)
