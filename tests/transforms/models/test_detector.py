import json

import numpy as np
import pytest

from tests.transforms.small_models import FOUND, POISON, save_detector, save_tflite_classifier
from transforms.detect_objects import to_detections
from transforms.images.jpeg import decode_letterboxed, read_header
from transforms.models.detector import Detector, ModelSpec, RawDetections, inspect_model
from transforms.models.labels import COCO
from transforms.models.model_files import ModelError

SAVED_MODEL = "yolox_nano_coco/saved_model"
TFLITE = "ssd_mobilenet_v1_coco_quant_tflite/detect.tflite"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A SavedModel of any batch and 8x8 pixels."""
    return str(save_detector(tmp_path_factory.mktemp("any") / "saved_model", size=(8, 8)))


def image_of(shade, size=(8, 8)):
    return np.full((size[1], size[0], 3), shade, np.uint8)


def assert_found(raw, shade):
    """Asserts the result of the tiny detectors: a fixed object, and the image's mean as a score."""
    assert isinstance(raw, RawDetections), raw
    assert raw.boxes.dtype == raw.scores.dtype == raw.classes.dtype == np.float32
    assert raw.boxes.shape == (2, 4)
    np.testing.assert_allclose(raw.boxes[0], FOUND[0])
    np.testing.assert_allclose(raw.scores, [FOUND[1], shade / 255], rtol=1e-5)
    np.testing.assert_array_equal(raw.classes, [1, 3])


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        pytest.param({}, (640, 640, None, None), id="free"),
        pytest.param({"batch": 1}, (640, 640, 1, None), id="one image"),
        pytest.param({"batch": 4, "size": (32, 24)}, (32, 24, 4, None), id="four images"),
        pytest.param({"size": (32, 24)}, (32, 24, None, None), id="fixed size"),
        pytest.param({"raw_classes": 91}, (640, 640, None, 90), id="class count"),
        pytest.param({"num_detections": False}, (640, 640, None, None), id="no num_detections"),
    ],
)
def test_the_input_of_a_saved_model_is_read_from_its_signature(tmp_path, created, expected):
    path = str(save_detector(tmp_path / "saved_model", **created))
    width, height, batch, classes = expected
    assert inspect_model(path) == ModelSpec(path, (width, height), batch, classes)


@pytest.mark.parametrize(
    ("config", "asked", "size"),
    [
        (None, None, (640, 640)),
        (None, 320, (320, 320)),
        ("image_resizer { fixed_shape_resizer { height: 300 width: 400 } }", None, (400, 300)),
        ("fixed_shape_resizer {\n height: 300\n width: 400\n}", 320, (320, 320)),
        (
            "keep_aspect_ratio_resizer {\n min_dimension: 800\n max_dimension: 1333\n"
            " pad_to_max_dimension: true\n}",
            None,
            (1333, 1333),
        ),
        ("model { ssd { num_classes: 90 } }", None, (640, 640)),
        ("", None, (640, 640)),
    ],
)
def test_a_free_size_is_taken_from_the_option_or_the_pipeline_config(
    tmp_path, saved_of_free_size, config, asked, size
):
    (tmp_path / "saved_model").symlink_to(saved_of_free_size)
    if config is not None:
        (tmp_path / "pipeline.config").write_text(config)
    assert inspect_model(str(tmp_path / "saved_model"), asked).input_size == size


@pytest.fixture(scope="module")
def saved_of_free_size(tmp_path_factory):
    return save_detector(tmp_path_factory.mktemp("free") / "saved_model")


def test_a_fixed_size_goes_before_the_option_and_the_config(tmp_path):
    (tmp_path / "pipeline.config").write_text("fixed_shape_resizer { height: 9 width: 9 }")
    path = str(save_detector(tmp_path / "saved_model", size=(8, 8)))
    assert inspect_model(path, 320).input_size == (8, 8)


@pytest.mark.parametrize(
    ("created", "message"),
    [
        ({"outputs": ["detection_boxes", "probabilities"]}, "lacks detection_classes, det"),
        ({"outputs": ["detection_boxes", "detection_classes"]}, "lacks detection_scores"),
        ({"dtype": "float32"}, "must take one tensor of uint8"),
        ({"channels": 1}, "must take one tensor of uint8"),
        ({"signature": "predict"}, "no signature 'serving_default'"),
    ],
)
def test_a_saved_model_that_is_no_detector_is_refused(tmp_path, created, message):
    assert_refused(str(save_detector(tmp_path / "saved_model", **created)), message)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("saved_model.pb", b"no model\n" * 9, "not a SavedModel that TensorFlow reads"),
        ("saved_model.pb", b"", "not a SavedModel to serve"),
        ("notes.txt", b"", "not a SavedModel that TensorFlow reads"),
    ],
)
def test_files_that_are_no_saved_model_are_refused(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    assert_refused(str(tmp_path), message)


@pytest.mark.parametrize("data", [b"a text\n" * 9, b"", b"TFL3" * 40, b"\0\0\0\0TFL3" + bytes(200)])
def test_files_that_are_no_tflite_model_are_refused(tmp_path, data):
    (tmp_path / "detect.tflite").write_bytes(data)
    assert_refused(str(tmp_path / "detect.tflite"), "not a model that TFLite reads")


@pytest.mark.parametrize("part", [0.0001, 0.1, 0.5, 0.7, 0.999])
def test_a_tflite_model_that_was_cut_short_is_refused(shared_models, tmp_path, part):
    """TFLite's own loader ends the process on it."""
    whole = (shared_models / TFLITE).read_bytes()
    (tmp_path / "detect.tflite").write_bytes(whole[: round(len(whole) * part)])
    assert_refused(str(tmp_path / "detect.tflite"), "not a model that TFLite reads")


def test_a_tflite_classifier_is_refused(tmp_path):
    path = save_tflite_classifier(tmp_path / "classify.tflite")
    assert_refused(str(path), "not a detector: it does not end in TFLite_Detection_PostProcess")


def assert_refused(path, message):
    with pytest.raises(ModelError) as refused:
        inspect_model(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("batch", [None, 1, 4])
@pytest.mark.parametrize("call_size", [None, 1, 3])
@pytest.mark.parametrize("number", [0, 1, 5])
def test_each_image_gets_its_own_result_for_any_size_of_a_call(
    saved, saved_of_batch, batch, call_size, number
):
    path = saved if batch is None else saved_of_batch[batch]
    detector = Detector(inspect_model(path), threads=2, call_size=call_size)
    shades = [10 + 20 * at for at in range(number)]
    results = detector.detect([image_of(shade) for shade in shades])
    assert len(results) == number
    for raw, shade in zip(results, shades, strict=True):
        assert_found(raw, shade)


@pytest.fixture(scope="module")
def saved_of_batch(tmp_path_factory):
    """SavedModels with a fixed batch size."""
    folder = tmp_path_factory.mktemp("fixed")
    return {
        batch: str(save_detector(folder / str(batch), batch=batch, size=(8, 8))) for batch in (1, 4)
    }


def test_without_num_detections_every_row_counts(tmp_path):
    path = str(save_detector(tmp_path / "saved_model", size=(8, 8), num_detections=False))
    (raw,) = Detector(inspect_model(path)).detect([image_of(51)])
    assert len(raw.boxes) == len(raw.scores) == len(raw.classes) == 3


@pytest.mark.parametrize("batch", [None, 4], ids=["free batch", "fixed batch"])
@pytest.mark.parametrize("index", [0, 2, 5])
def test_an_image_on_which_the_model_fails_affects_no_other(tmp_path, batch, index):
    path = save_detector(tmp_path / "saved_model", batch=batch, size=(8, 8), poisoned=True)
    detector = Detector(inspect_model(str(path)), call_size=4)
    shades = [40, 50, 60, 70, 80, 90]
    shades[index] = POISON
    results = detector.detect([image_of(shade) for shade in shades])
    for at, (raw, shade) in enumerate(zip(results, shades, strict=True)):
        if at == index:
            assert isinstance(raw, Exception)
            assert "a poisoned image" in str(raw)
        else:
            assert_found(raw, shade)


def test_a_saved_model_whose_variables_are_gone_is_refused_in_one_line(shared_models, tmp_path):
    whole = shared_models / SAVED_MODEL
    (tmp_path / "saved_model.pb").write_bytes((whole / "saved_model.pb").read_bytes())
    spec = inspect_model(str(tmp_path))
    with pytest.raises(ModelError, match="TensorFlow can't load it") as refused:
        Detector(spec)
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module", params=[SAVED_MODEL, TFLITE], ids=["SavedModel", "TFLite"])
def real_detector(request, shared_models):
    spec = inspect_model(str(shared_models / request.param), 416)
    return spec, Detector(spec)


@pytest.fixture(scope="module")
def truth(shared_photos):
    """Photographs, and the large persons in each as boxes in the contract's form."""
    annotations = json.loads((shared_photos / "coco.annotations.json").read_text())
    persons = {
        annotation["id"]
        for annotation in annotations["categories"]
        if annotation["name"] == "person"
    }
    photos = {}
    for image in annotations["images"]:
        large = []
        for annotation in annotations["annotations"]:
            if annotation["image_id"] != image["id"] or annotation["category_id"] not in persons:
                continue
            x_min, y_min, width, height = annotation["bbox"]
            across, down = image["width"], image["height"]
            box = (x_min / across, y_min / down, width / across, height / down)
            if box[2] * box[3] > 0.12 and not annotation.get("iscrowd"):
                large.append(box)
        if large:
            photos[shared_photos / "coco" / image["file_name"].rsplit("/", 1)[-1]] = large
    return photos


def overlap(box, other):
    """Intersection over union of two boxes."""
    left, top = max(box[0], other[0]), max(box[1], other[1])
    right = min(box[0] + box[2], other[0] + other[2])
    bottom = min(box[1] + box[3], other[1] + other[3])
    shared = max(0, right - left) * max(0, bottom - top)
    return shared / (box[2] * box[3] + other[2] * other[3] - shared)


def test_the_inputs_of_the_shared_models(shared_models):
    tflite = inspect_model(str(shared_models / TFLITE))
    assert (tflite.input_size, tflite.batch, tflite.classes) == ((300, 300), 1, 90)
    saved_model = inspect_model(str(shared_models / SAVED_MODEL))
    assert (saved_model.input_size, saved_model.batch) == ((640, 640), None)


def test_large_persons_are_found_where_they_are(real_detector, truth):
    spec, detector = real_detector
    boxes = [decode_letterboxed(read_header(path.read_bytes()), spec.input_size) for path in truth]
    there = found = 0
    results = detector.detect([box.pixels for box in boxes])
    for box, raw, persons in zip(boxes, results, truth.values(), strict=True):
        detections = to_detections(raw, content=box.content, labels=COCO, min_score_kept=0.3)
        for person in persons:
            there += 1
            found += any(
                detection.label == "person" and overlap(detection.bbox, person) > 0.5
                for detection in detections
            )
    assert there >= 15
    assert found / there >= 0.7


def test_a_result_does_not_depend_on_the_rest_of_the_batch(real_detector, shared_photos):
    spec, detector = real_detector
    photos = sorted((shared_photos / "coco").glob("*.jpg"))[:9]
    images = [
        decode_letterboxed(read_header(path.read_bytes()), spec.input_size).pixels
        for path in photos
    ]
    alone = [detector.detect([image])[0] for image in images]
    for results in (
        detector.detect(images),
        detector.detect(images[::-1])[::-1],
        Detector(spec, threads=1).detect(images),
    ):
        for expected, result in zip(alone, results, strict=True):
            assert len(expected.boxes) > 0
            for name in ("boxes", "scores", "classes"):
                assert getattr(expected, name).tobytes() == getattr(result, name).tobytes()
