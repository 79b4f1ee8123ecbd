import hashlib
import io
import itertools
import os
import random
import tempfile
import time
from dataclasses import replace

import apache_beam as beam
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageStat

import rules
from tests.transforms.pictures import (
    MOMENT,
    NAME,
    asymmetric,
    encoded,
    jpeg,
    named,
    with_exif,
    with_orientation,
    with_stated_size,
)
from transforms import detect_objects, validate_image
from transforms.detect_objects import settings_of, to_detections
from transforms.images import jpeg as jpeg_files
from transforms.models.detector import RawDetections
from transforms.records import images, reasons
from transforms.records.images import (
    DetectedImage,
    InvalidImage,
    ModelInfo,
    NamedFile,
    ValidImage,
)
from transforms.records.images import ImageFile as ListedFile
from transforms.runtime.counters import counted
from transforms.runtime.live_rules import LiveRules
from transforms.storage import stores
from transforms.validate_image import (
    EarlierRun,
    InvalidNames,
    Limits,
    ValidateImage,
    _Validate,
    validate_bytes,
    without_repeats,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

SIZE = (64, 64)
LOOSE = Limits(min_resolution=(1, 1))
MODEL = ModelInfo("detector", "0123456789ab", "ab0123456789", "tflite")


def validated(data, *, limits=LOOSE, **options):
    return validate_bytes(named(), data, limits=limits, input_size=SIZE, **options)


@pytest.fixture
def no_decoding(monkeypatch):
    """Fails the test if a pixel is decoded."""

    def decode(*_):
        raise AssertionError("the picture was decoded")

    monkeypatch.setattr(jpeg_files, "decode_letterboxed", decode)
    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)


def luma(image):
    """The mean of a picture, 0 to 1, by Pillow's ITU-R 601-2 transform."""
    return ImageStat.Stat(image.convert("L")).mean[0] / 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_good_image_is_valid_with_its_upright_size_and_its_bytes(orientation):
    data = with_orientation(jpeg(200, 160), orientation)
    image = validated(data)
    assert isinstance(image, ValidImage)
    assert (image.width, image.height) == ((160, 200) if orientation >= 5 else (200, 160))
    assert image.data == data
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert image.pixels.shape == (64, 64, 3)
    assert image.content == ((0.796875, 1.0) if orientation >= 5 else (1.0, 0.796875))
    assert image.brightness == pytest.approx(luma(asymmetric()), abs=0.005)


@pytest.mark.parametrize("ending", [b"", b"12345678"], ids=["nothing", "a trailer"])
def test_a_whole_image_without_its_end_marker_is_valid_with_its_bytes(ending):
    whole, data = jpeg(), jpeg()[:-2] + ending
    image = validated(data)
    assert isinstance(image, ValidImage)
    assert image.data == data
    assert (image.pixels == validated(whole).pixels).all()


def test_tiles_change_nothing_of_the_whole_image_and_are_named():
    data = jpeg(640, 480)
    plain, tiled = validated(data), validated(data, tiles=rules.Tiles(2, 2, 0.1))
    assert (plain.tiles, plain.tiling) == ((), None)
    assert (len(tiled.tiles), tiled.tiling) == (4, "tiles 2x2 overlap 0.1 min_score 0.3")
    for name in ("content", "brightness", "sharpness", "width", "height", "data"):
        assert getattr(plain, name) == getattr(tiled, name)
    assert (plain.pixels == tiled.pixels).all()
    assert len(tiled.inputs) == 5
    assert all(pixels.shape == (64, 64, 3) for pixels in tiled.inputs)


def test_an_image_that_is_too_small_for_its_tiles_is_looked_at_as_a_whole():
    image = validated(jpeg(200, 160), tiles=rules.Tiles(4, 2, 0.0))
    assert isinstance(image, ValidImage)
    assert (image.tiles, image.tiling) == ((), None)


def test_a_valid_image_with_tiles_is_encoded_whole():
    image = validated(jpeg(640, 480), tiles=rules.Tiles())
    coder = beam.coders.registry.get_coder(ValidImage)
    decoded = coder.decode(coder.encode(image))
    assert [(tile.content, tile.region, tile.min_score) for tile in decoded.tiles] == [
        (tile.content, tile.region, 0.3) for tile in image.tiles
    ]
    for one, other in zip(decoded.inputs, image.inputs, strict=True):
        assert (one == other).all()
    without = {"pixels": None, "tiles": ()}
    assert replace(decoded, **without) == replace(image, **without)


def test_the_tiles_of_a_camera_are_those_of_the_rule_file_as_it_is_now(run_pipeline, tmp_path):
    file = tmp_path / "rules.yaml"
    text = "version: 1\ncameras: {wide: {tiles: {columns: %s}}, plain: {objects: {person: }}}\n"
    file.write_text(text % 4)
    live = LiveRules(rules.load_rules(file), source=str(file), check_seconds=0)
    for columns in (4, 2):
        file.write_text(text % columns)
        paths = [write(tmp_path, f"{name}.jpg", jpeg(400, 300)) for name in ("wide", "plain")]
        small = named(write(tmp_path, "small.jpg", jpeg(160, 120)), camera="wide")
        files = [(file.id, file) for file in map(of_camera, paths)] + [("small", small)]

        def build(pipeline, files=files):
            step = ValidateImage(limits=LOOSE, input_size=SIZE, ruleset=live)
            return {"valid": (pipeline | beam.Create(files) | step)["valid"]}

        result, outputs = run_pipeline(build)
        tilings = {(image.named.id, image.width): image.tiling for image in outputs["valid"]}
        name = f"tiles {columns}x2 overlap 0.2 min_score 0.3"
        small_tiling = name if columns == 2 else None
        assert tilings == {("wide", 400): name, ("plain", 400): None, ("wide", 160): small_tiling}
        assert counted(result)["images.too_small_for_tiles"] == (columns == 4)


def of_camera(path):
    return named(path, camera=os.path.basename(path).removesuffix(".jpg"))


def test_an_image_that_is_broken_by_its_header_is_not_resumed_from_an_earlier_run(tmp_path):
    data = jpeg()[:700] + b"\xff\xd9"
    sha256 = hashlib.sha256(data).hexdigest()
    image = DetectedImage("front-door", MOMENT, NAME, "", sha256, 200, 160, MODEL, SEEN, 0.25, 0.03)
    uri = stores.detections_uri(str(tmp_path), "front-door", named().stem)
    stores.write_bytes(uri, stores.json_bytes(image.to_json()))
    assert validated(data, earlier=EarlierRun(str(tmp_path), MODEL)).reason == "corrupt_jpeg"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_found_in_the_model_s_input_lies_where_the_object_is_upright(orientation):
    """A white rectangle is found in the letterbox and mapped back onto the upright picture."""
    upright = Image.new("RGB", (400, 300) if orientation < 5 else (300, 400))
    x_min, y_min, width, height = 0.1, 0.2, 0.3, 0.5
    across, down = upright.size
    left, top = round(x_min * across), round(y_min * down)
    right, bottom = left + round(width * across), top + round(height * down)
    upright.paste((255, 255, 255), (left, top, right, bottom))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # The transposition that is undone by EXIF's.
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    data = with_orientation(encoded(stored), orientation)
    image = validate_bytes(named(), data, limits=LOOSE, input_size=(256, 256))
    rows, columns = np.nonzero(image.pixels[:, :, 0] > 180)
    box = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    raw = RawDetections(np.array([box], np.float32) / 256, np.ones(1), np.ones(1))
    (results,) = to_detections(raw, content=image.content, labels={}, min_score_kept=0)
    assert results.bbox == pytest.approx((x_min, y_min, width, height), abs=0.015)


@pytest.mark.parametrize(
    ("data", "reason", "size"),
    [
        pytest.param(b"", reasons.EMPTY_FILE, (None, None), id="empty"),
        pytest.param(b"a text", reasons.NOT_JPEG, (None, None), id="text"),
        pytest.param(encoded(asymmetric(), format="PNG"), reasons.NOT_JPEG, (None, None), id="PNG"),
        pytest.param(jpeg()[:200], reasons.CORRUPT_JPEG, (None, None), id="half a header"),
        pytest.param(jpeg()[:-800], reasons.CORRUPT_JPEG, (200, 160), id="truncated"),
        pytest.param(
            jpeg()[:-800] + b"\xff\xd9", reasons.CORRUPT_JPEG, (200, 160), id="truncated and closed"
        ),
        pytest.param(
            with_stated_size(jpeg(), 20000, 20000),
            reasons.RESOLUTION_TOO_HIGH,
            (20000, 20000),
            id="decompression bomb",
        ),
        pytest.param(
            with_stated_size(jpeg(), 65535, 1), reasons.RESOLUTION_TOO_HIGH, (65535, 1), id="line"
        ),
    ],
)
def test_an_invalid_image_has_its_reason_and_bytes(data, reason, size):
    image = validated(data)
    assert isinstance(image, InvalidImage)
    assert (image.reason, image.width, image.height) == (reason, *size)
    assert image.data == data
    assert image.size_bytes == len(data)
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert image.detail


def test_a_decompression_bomb_is_refused_in_no_time_and_without_decoding(no_decoding):
    bomb = with_stated_size(jpeg(), 20000, 20000)
    started = time.monotonic()
    image = validated(bomb)
    assert time.monotonic() - started < 0.5
    assert (image.reason, image.width, image.height) == ("resolution_too_high", 20000, 20000)


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_truncated_image_is_never_valid(options):
    data = jpeg(320, 240, **options)
    for length in range(1, len(data) - 64, 37):
        image = validated(data[:length])
        assert isinstance(image, InvalidImage), length
        assert image.reason == (reasons.NOT_JPEG if length < 3 else reasons.CORRUPT_JPEG), length


@pytest.mark.parametrize(
    ("size", "limits", "reason"),
    [
        ((160, 120), Limits(), None),
        ((159, 120), Limits(), reasons.RESOLUTION_TOO_LOW),
        ((160, 119), Limits(), reasons.RESOLUTION_TOO_LOW),
        ((120, 160), Limits(), reasons.RESOLUTION_TOO_LOW),
        ((200, 160), Limits((1, 1), (200, 160)), None),
        ((201, 160), Limits((1, 1), (200, 160)), reasons.RESOLUTION_TOO_HIGH),
        ((200, 161), Limits((1, 1), (200, 160)), reasons.RESOLUTION_TOO_HIGH),
        ((160, 200), Limits((1, 1), (200, 160)), reasons.RESOLUTION_TOO_HIGH),
    ],
)
def test_the_limits_themselves_are_still_valid(size, limits, reason):
    image = validated(jpeg(*size), limits=limits)
    assert getattr(image, "reason", None) == reason
    assert (image.width, image.height) == size


def test_the_limits_hold_for_the_upright_image():
    limits = Limits(min_resolution=(1, 160), max_resolution=(120, 160))
    assert isinstance(validated(with_orientation(jpeg(160, 120), 6), limits=limits), ValidImage)
    assert isinstance(validated(with_orientation(jpeg(160, 120), 3), limits=limits), InvalidImage)


RULES = rules.parse_rules(
    """\
version: 1
defaults:
  objects: {person: {}}
cameras:
  old: {resolution: {min: [80, 60]}}
  new: {resolution: {max: [100, 100]}}
""",
    "rules.yaml",
)


@pytest.mark.parametrize(
    ("camera", "size", "reason"),
    [
        ("old", (80, 60), None),
        ("old", (79, 60), reasons.RESOLUTION_TOO_LOW),
        ("old", (9000, 60), reasons.RESOLUTION_TOO_HIGH),
        ("new", (80, 60), reasons.RESOLUTION_TOO_LOW),
        ("new", (200, 160), reasons.RESOLUTION_TOO_HIGH),
        ("other", (200, 160), None),
        ("other", (80, 60), reasons.RESOLUTION_TOO_LOW),
    ],
)
def test_the_rules_set_the_limits_of_a_camera(tmp_path, camera, size, reason):
    (outcome,) = outcomes(
        [write(tmp_path, f"{camera}_20260131T235959Z.jpg", jpeg(*size))],
        camera=camera,
        ruleset=RULES,
    )
    assert getattr(outcome, "reason", None) == reason


def write(folder, name, data):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return str(folder / name)


def outcomes(uris, *, camera="front-door", ruleset=None, limits=None, earlier=None):
    """What becomes of files of one camera and capture time, each by itself."""
    live = None if ruleset is None else LiveRules(ruleset)
    validate = _Validate(limits or Limits(), live, SIZE, earlier, threads=1, max_waiting=1)
    files = [
        NamedFile(
            ListedFile(uri, os.path.getsize(uri) if os.path.exists(uri) else 0), camera, MOMENT
        )
        for uri in uris
    ]
    outcomes = [validate.work(file) for file in files]
    return [
        outcome.value if isinstance(outcome, beam.pvalue.TaggedOutput) else outcome
        for outcome in outcomes
    ]


def test_a_file_that_is_too_large_is_never_read_whole(tmp_path, monkeypatch):
    data = jpeg()
    uri = write(tmp_path, NAME, data + bytes(5000))
    asked = []
    read = stores.read_bytes
    monkeypatch.setattr(
        stores, "read_bytes", lambda uri, at_most=-1: asked.append(at_most) or read(uri, at_most)
    )
    (image,) = outcomes([uri], limits=Limits(max_file_bytes=len(data)))
    assert asked == [len(data) + 1]
    assert image.reason == reasons.FILE_TOO_LARGE
    assert (image.size_bytes, image.sha256, image.data) == (len(data) + 5000, None, None)


def test_a_file_of_the_largest_size_is_still_read(tmp_path):
    data = jpeg()
    (image,) = outcomes([write(tmp_path, NAME, data)], limits=Limits(max_file_bytes=len(data)))
    assert isinstance(image, ValidImage)


@pytest.mark.parametrize("kind", ["vanished", "dangling link", "directory"])
def test_a_file_that_cannot_be_read_is_a_record_of_it(tmp_path, kind):
    path = tmp_path / NAME
    if kind == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "directory":
        path.mkdir()
    (image,) = outcomes([str(path)])
    assert image.reason == reasons.READ_FAILED
    assert image.detail.startswith("the file can't be read (")
    assert (image.size_bytes, image.sha256, image.data) == (None, None, None)


def test_an_error_of_any_kind_while_reading_is_that_file_s_alone(monkeypatch):
    def refuse(uri, at_most=-1):
        raise RuntimeError(f"403 for {uri}\nat once")

    monkeypatch.setattr(stores, "read_bytes", refuse)
    (image,) = outcomes(["gs://bucket/" + NAME])
    assert image.reason == reasons.READ_FAILED
    assert "RuntimeError: 403" in image.detail
    assert "\n" not in image.detail


@pytest.mark.parametrize("mount", ["missing", "empty"])
def test_a_worker_that_lacks_the_mount_fails_the_job(tmp_path, mount):
    top = tmp_path / "in"
    if mount == "empty":
        top.mkdir()
    validate = _Validate(Limits(), None, SIZE, None, 1, 1, str(top))
    with pytest.raises(
        stores.StoreLostError, match="local paths must be one shared mount"
    ) as refused:
        validate.work(named(str(top / NAME)))
    assert len(refused.value.args) == 1  # Beam would make a RuntimeError of two.
    top.mkdir(exist_ok=True)
    (top / "other.jpg").write_bytes(b"")
    assert validate.work(named(str(top / NAME))).value.reason == "read_failed"


def test_an_input_that_is_empty_since_it_was_read_loses_no_more_than_its_files(tmp_path):
    (tmp_path / NAME).write_bytes(jpeg())
    validate = _Validate(Limits(), None, SIZE, None, 1, 1, str(tmp_path))
    assert validate.work(named(str(tmp_path / NAME))).data == jpeg()
    (tmp_path / NAME).unlink()
    assert validate.work(named(str(tmp_path / NAME))).value.reason == "read_failed"


def forbid(monkeypatch, forbidden):
    """Root may read everything, so the stores refuse."""
    read = stores.read_bytes

    def refuse(uri, at_most=-1):
        if os.path.basename(uri) in forbidden:
            raise PermissionError(13, "Permission denied", uri)
        return read(uri, at_most)

    monkeypatch.setattr(stores, "read_bytes", refuse)


def names(count):
    return [f"front-door_2026013117{number:02d}00Z.jpg" for number in range(count)]


def test_a_worker_that_may_read_none_of_the_images_fails_the_job(tmp_path, monkeypatch):
    forbid(monkeypatch, names(11))
    files = [named(write(tmp_path, name, jpeg())) for name in names(11)]
    validate = _Validate(Limits(), None, SIZE, None, 1, 1, str(tmp_path))
    for file in [*files[:9], files[0]]:
        assert validate.work(file).value.reason == "read_failed"
    with pytest.raises(
        stores.StoreLostError, match="give its user or account the permission"
    ) as refused:
        validate.work(files[10])
    assert len(refused.value.args) == 1


def test_a_camera_whose_images_may_not_be_read_does_not_fail_the_job(tmp_path, monkeypatch):
    """They are the first, and another camera's images can be read. The input is listed once."""
    forbid(monkeypatch, names(30))
    listed = []
    list_beneath = stores.list_beneath
    monkeypatch.setattr(
        stores, "list_beneath", lambda folder: listed.append(folder) or list_beneath(folder)
    )
    write(tmp_path / "other", NAME, jpeg())
    files = [named(write(tmp_path / "gate", name, jpeg())) for name in names(30)]
    validate = _Validate(Limits(), None, SIZE, None, 1, 1, str(tmp_path))
    for file in files:
        assert validate.work(file).value.reason == reasons.READ_FAILED
    assert listed == [str(tmp_path)]


def test_objects_that_are_gone_do_not_fail_the_job_of_an_account_that_may_not_list(monkeypatch):
    """S3 answers 403 for them, as if they could not be read."""

    def refuse(uri, at_most=-1):
        raise PermissionError(13, "403 Forbidden", uri)

    monkeypatch.setattr(stores, "read_bytes", refuse)
    monkeypatch.setattr(stores, "list_beneath", refuse)
    validate = _Validate(Limits(), None, SIZE, None, 1, 1)
    for name in names(30):
        outcome = validate.work(named(f"s3://bucket/in/{name}"))
        assert outcome.value.reason == reasons.READ_FAILED


def test_images_that_may_not_be_read_beside_others_are_records(tmp_path, monkeypatch):
    forbid(monkeypatch, names(30))
    validate = _Validate(Limits(), None, SIZE, None, 1, 1, str(tmp_path))
    assert validate.work(named(write(tmp_path, NAME, jpeg()))).data == jpeg()
    for name in names(30):
        assert (
            validate.work(named(write(tmp_path, name, jpeg()))).value.reason == reasons.READ_FAILED
        )


def test_files_that_share_a_capture_time_are_all_read_and_marked(tmp_path, run_pipeline):
    shade, broken = jpeg(shade=90), jpeg()[:-300]
    uris = {
        "one": write(tmp_path / "a", NAME, jpeg()),
        "two": write(tmp_path / "b", NAME, shade),
        "broken": write(tmp_path / "c", NAME, broken),
        "alone": write(tmp_path, "hall_20260131T235959Z.jpg", shade),
    }

    def build(pipeline):
        files = [("1", named(uris[name])) for name in ("one", "two", "broken")]
        files.append(("2", named(uris["alone"], camera="hall")))
        outputs = pipeline | beam.Create(files) | ValidateImage(limits=Limits(), input_size=SIZE)
        return {tag: outputs[tag] for tag in ("valid", "invalid", "contested")}

    _, results = run_pipeline(build)
    assert {(image.named.file.uri, image.named.is_contested) for image in results["valid"]} == {
        (uris["one"], True),
        (uris["two"], True),
        (uris["alone"], False),
    }
    (contested,) = results["contested"]
    assert (contested.file.uri, contested.reason) == (uris["broken"], reasons.CORRUPT_JPEG)
    assert (contested.camera, contested.timestamp, contested.data) == ("front-door", MOMENT, None)
    assert results["invalid"] == []


def invalid_file(uri, reason, sha256=None):
    return InvalidImage(ListedFile(uri, 1), reason, "detail", sha256=sha256)


@pytest.mark.parametrize(
    ("files", "kept"),
    [
        pytest.param(
            [("/a/x", "not_jpeg", "1"), ("/b/x", "not_jpeg", "2")],
            {"/a/x": True, "/b/x": True},
            id="other bytes",
        ),
        pytest.param(
            [("/a/x", "not_jpeg", "1"), ("/b/x", "empty_file", "2")],
            {"/a/x": False, "/b/x": False},
            id="other reasons",
        ),
        pytest.param(
            [("/a/x", "not_jpeg", "1"), ("/b/y", "not_jpeg", "2")],
            {"/a/x": False, "/b/y": False},
            id="other names",
        ),
        pytest.param(
            [("/a/x", "not_jpeg", "1"), ("/b/x", "not_jpeg", "1")],
            {"/a/x": False},
            id="the same bytes",
        ),
        pytest.param(
            [("/a/x", "not_jpeg", "1"), ("/b/x", "not_jpeg", "1"), ("/c/x", "not_jpeg", "2")],
            {"/a/x": True, "/c/x": True},
            id="the same bytes and others",
        ),
        pytest.param(
            [("/a/x", "bad_name", None), ("/b/x", "bad_name", None)],
            {"/a/x": True, "/b/x": True},
            id="bytes not known",
        ),
        pytest.param(
            [("/a/x", "bad_name", None), ("/a/x.json", "bad_name", None)],
            {"/a/x": False, "/a/x.json": True},
            id="the name of the other's record",
        ),
        pytest.param(
            [("/a/x", "bad_name", None), ("/a/x.json", "bad_timestamp", None)],
            {"/a/x": False, "/a/x.json": False},
            id="the name of a record elsewhere",
        ),
    ],
)
def test_different_invalid_files_of_one_name_and_reason_share_it(files, kept):
    images = [invalid_file(*file) for file in files]
    for order in itertools.permutations(images):
        once = list(without_repeats(order))
        assert {image.file.uri: image.shares_name for image in once} == kept
        assert len(once) == len(kept)


def test_files_that_share_an_invalid_name_are_distinguished(run_pipeline):
    files = [invalid_file(uri, "bad_name") for uri in ("/a/x", "/b/x", "/a/y", "/a/y.json")]

    def build(pipeline):
        keyed = [("1" if file.file.name == "x" else "2", file) for file in files]
        return {"invalid": (pipeline | beam.Create(keyed) | InvalidNames()).invalid}

    _, results = run_pipeline(build)
    assert {image.file.uri: image.shares_name for image in results["invalid"]} == {
        "/a/x": True,
        "/b/x": True,
        "/a/y": False,
        "/a/y.json": True,
    }


def test_valid_and_invalid_images_come_out_apart(tmp_path, run_pipeline):
    good = write(tmp_path, "hall_20260131T235959Z.jpg", jpeg())
    bad = write(tmp_path, "attic_20260131T235959Z.jpg", b"text")

    def build(pipeline):
        files = [("1", named(good, camera="hall")), ("2", named(bad, camera="attic"))]
        outputs = pipeline | beam.Create(files) | ValidateImage(limits=Limits(), input_size=SIZE)
        return {"valid": outputs.valid, "invalid": outputs.invalid}

    _, results = run_pipeline(build)
    (valid,), (invalid,) = results["valid"], results["invalid"]
    assert (valid.named.file.uri, valid.data) == (good, jpeg())
    assert (invalid.file.uri, invalid.reason, invalid.data) == (bad, "not_jpeg", b"text")


SEEN = (
    rules.Detection("1", "person", 0.9, (0.1, 0.1, 0.2, 0.2)),
    rules.Detection("3", "car", 0.06, (0.0, 0.0, 0.5, 0.5)),
)


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({}, SEEN),
        ({"detections": ()}, ()),
        ({"sha256": "other bytes"}, None),
        ({"model": replace(MODEL, name="renamed")}, SEEN),
        ({"model": replace(MODEL, version="another")}, None),
        ({"model": replace(MODEL, settings="others")}, None),
        ({"model": replace(MODEL, settings=None)}, None),
        (b"", None),
        (b"[]", None),
        ({"brightness": None}, None),
        ({"brightness": 1.5}, None),
        ({"sharpness": None}, None),
        ({"sharpness": -0.1}, None),
        (b'{"sha256": 1}', None),
        (b"\xff\xfe", None),
        (None, None),
    ],
)
def test_an_image_with_detections_of_an_earlier_run_is_not_decoded(tmp_path, change, known):
    data = jpeg()
    sha256 = hashlib.sha256(data).hexdigest()
    light = {"brightness": 0.25, "sharpness": 0.0312}
    fields = {"sha256": sha256, "model": MODEL, "detections": SEEN, **light}
    uri = stores.detections_uri(str(tmp_path), "front-door", named().stem)
    if isinstance(change, dict):
        image = DetectedImage(
            id="front-door",
            timestamp=MOMENT,
            file=NAME,
            uri="",
            width=200,
            height=160,
            **{**fields, **change},
        )
        stores.write_bytes(uri, stores.json_bytes(image.to_json()))
    elif change is not None:
        stores.write_bytes(uri, change)
    image = validated(data, earlier=EarlierRun(str(tmp_path), MODEL))
    assert isinstance(image, ValidImage)
    assert image.known == known
    assert (image.pixels is None) == (known is not None)
    assert (image.brightness == 0.25) == (known is not None)
    assert (image.sharpness == 0.0312) == (known is not None)


SETTINGS = st.fixed_dictionaries(
    {
        "labels": st.dictionaries(
            st.integers(0, 3), st.sampled_from(["person", "car"]), max_size=3
        ),
        "min_score_kept": st.sampled_from([0, 0.0, 0.05, 0.051, 1]),
        "input_size": st.tuples(st.sampled_from([32, 320]), st.sampled_from([32, 320])),
    }
)


@settings(deadline=None)
@given(
    SETTINGS,
    SETTINGS,
    *[st.sampled_from("ab")] * 2,
    *[st.sampled_from(["tflite", "savedmodel"])] * 2,
    *[st.sampled_from([None, rules.Tiles().name, rules.Tiles(min_score=0.31).name])] * 2,
)
def test_detections_of_an_earlier_run_are_used_if_all_settings_are_the_same(
    before, now, version_before, version_now, runtime_before, runtime_now, tiles_before, tiles_now
):
    with tempfile.TemporaryDirectory() as output:
        model = ModelInfo("detector", version_before, settings_of(**before), runtime_before)
        model = model.with_tiles(tiles_before)
        sha256 = "5" * 64
        image = DetectedImage(
            "front-door", MOMENT, NAME, "", sha256, 200, 160, model, SEEN, 0.25, 0.03
        )
        uri = stores.detections_uri(output, "front-door", named().stem)
        stores.write_bytes(uri, stores.json_bytes(image.to_json()))
        again = EarlierRun(
            output, ModelInfo("renamed", version_now, settings_of(**now), runtime_now)
        )
        of_the_earlier_run = before, version_before, runtime_before, tiles_before
        is_same = of_the_earlier_run == (now, version_now, runtime_now, tiles_now)
        found = again.find_result(named(), sha256, tiles_now)
        assert found == ((SEEN, 0.25, 0.03) if is_same else None)


@pytest.mark.parametrize(
    "unknown",
    [
        ModelInfo("detector", "0123456789ab"),
        ModelInfo("detector", "0123456789ab", "ab0123456789"),
        ModelInfo("detector", "0123456789ab", None, "tflite"),
    ],
)
def test_two_models_of_which_not_all_is_known_are_not_the_same(unknown):
    assert not unknown.detects_like(unknown)
    assert MODEL.detects_like(MODEL)


def test_the_hash_of_settings_is_the_same_in_every_run_and_on_every_machine(monkeypatch):
    """The order of labels, and whether a number is whole, say nothing; how it is looked, does."""
    some = {"min_score_kept": 0, "input_size": (320, 240)}
    digits = settings_of({3: "car", 1: "person"}, **some)
    assert digits == settings_of({1: "person", 3: "car"}, min_score_kept=0.0, input_size=(320, 240))
    assert digits == "af28d5f02005"
    monkeypatch.setattr(detect_objects, "DETECTION_REVISION", 2)
    assert digits != settings_of({1: "person", 3: "car"}, **some)


def test_the_settings_say_the_tiles_and_how_they_are_merged(monkeypatch):
    model = ModelInfo("detector", "0123456789ab", "af28d5f02005", "tflite")
    assert model.with_tiles(None) == model
    tiled = model.with_tiles("tiles 3x2 overlap 0.2 min_score 0.3")
    assert tiled.settings == "06425d4f9977 tiles 3x2 overlap 0.2 min_score 0.3"
    assert replace(tiled, settings=model.settings) == model
    monkeypatch.setattr(images, "TILING_REVISION", 2)
    assert model.with_tiles("tiles 3x2 overlap 0.2 min_score 0.3").settings != tiled.settings


def test_a_known_image_is_checked_by_its_header_alone(tmp_path, no_decoding):
    data = jpeg()
    sha256 = hashlib.sha256(data).hexdigest()
    image = DetectedImage("front-door", MOMENT, NAME, "", sha256, 200, 160, MODEL, SEEN, 0.25, 0.03)
    uri = stores.detections_uri(str(tmp_path), "front-door", named().stem)
    stores.write_bytes(uri, stores.json_bytes(image.to_json()))
    earlier = EarlierRun(str(tmp_path), MODEL)
    assert validated(data, earlier=earlier).known == SEEN
    too_low = Limits(min_resolution=(201, 1))
    assert validated(data, earlier=earlier, limits=too_low).reason == reasons.RESOLUTION_TOO_LOW


# Fuzzing: whatever the bytes are, the outcome is one of two records, and the process lives on.


def real_exif():
    """An EXIF segment with all that a camera writes: text, fractions, sub-directories."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Maker", "Model 12", 6
    exif[0x011A] = 72.0
    exif.get_ifd(0x8769).update({0x829A: 0.01, 0x9000: b"0230", 0xA002: 96, 0x927C: bytes(40)})
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 12.5), 3: "E", 4: (11.0, 34.0, 7.25)})
    return exif.tobytes()


BASES = {
    "baseline": jpeg(96, 72),
    "progressive": jpeg(96, 72, progressive=True),
    "greyscale": encoded(asymmetric(96, 72).convert("L")),
    "CMYK": encoded(asymmetric(96, 72).convert("CMYK")),
    "EXIF": with_exif(jpeg(96, 72), real_exif()),
    "EXIF twice": with_exif(with_exif(jpeg(96, 72), real_exif()), real_exif()),
    "MPO": encoded(
        asymmetric(96, 72), format="MPO", save_all=True, append_images=[asymmetric(64, 64)]
    ),
}
INTERESTING = (0, 1, 2, 4, 8, 12, 0x7F, 0x80, 0xD8, 0xD9, 0xDA, 0xE1, 0xFE, 0xFF)


def mutated(data, chance, span):
    """The bytes with a few of a span changed, cut, repeated, or filled."""
    out = bytearray(data)
    start, end = span
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(start, max(start + 1, min(end, len(out))))
        if at >= len(out):
            break
        match chance.randrange(6):
            case 0 | 1:
                out[at] = chance.choice(INTERESTING)
            case 2:
                out[at] = chance.randrange(256)
            case 3:
                out[at : at + 4] = chance.randbytes(4)
            case 4:
                del out[at : at + chance.randrange(1, 40)]
            case _:
                out[at:at] = out[at : at + chance.randrange(1, 40)]
    return bytes(out)


def assert_is_an_outcome(data):
    outcome = validated(data, limits=Limits((1, 1), (4096, 4096)))
    if isinstance(outcome, InvalidImage):
        assert outcome.reason in reasons.ALL
        assert outcome.detail.encode()
    else:
        assert isinstance(outcome, ValidImage)
        assert outcome.pixels.shape == (64, 64, 3)
        assert 0 < min(outcome.content) <= max(outcome.content) <= 1
    return outcome


@pytest.mark.parametrize("base", BASES)
def test_an_image_with_mutated_bytes_is_valid_or_invalid(base):
    chance = random.Random(f"anywhere in {base}")
    data = BASES[base]
    assert isinstance(assert_is_an_outcome(data), ValidImage)
    outcomes = [assert_is_an_outcome(mutated(data, chance, (2, len(data)))) for _ in range(1000)]
    assert {type(outcome) for outcome in outcomes} == {ValidImage, InvalidImage}


@pytest.mark.parametrize("base", ["EXIF", "EXIF twice", "MPO"])
def test_an_image_with_a_crafted_exif_segment_is_valid_or_invalid(base):
    chance = random.Random(f"the segment of {base}")
    data = BASES[base]
    end = data.index(b"\xff\xdb")
    for _ in range(2000):
        assert_is_an_outcome(mutated(data, chance, (6, end)))


def test_a_crafted_exif_segment_spoils_no_image():
    chance = random.Random("payload")
    payload, image = real_exif(), jpeg(96, 72)
    for _ in range(2000):
        crafted = with_exif(image, payload[:6] + mutated(payload, chance, (6, 400))[6:])
        assert isinstance(assert_is_an_outcome(crafted), ValidImage)


def test_random_bytes_are_no_image():
    chance = random.Random("bytes")
    for start in (b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\x01\x00Exif\0\0", BASES["EXIF"][:60]):
        for _ in range(300):
            outcome = assert_is_an_outcome(start + chance.randbytes(chance.randrange(1, 3000)))
            assert isinstance(outcome, InvalidImage)


def test_the_files_of_a_bundle_are_read_ahead_within_bounds_of_memory():
    validate = validate_image._Validate(
        Limits(max_file_bytes=1000), None, SIZE, None, threads=1, max_waiting=2
    )
    assert validate.weight(named(size=5000)) == 1000 + 64 * 64 * 3
    assert validate.weight(named(size=10)) == 10 + 64 * 64 * 3


def test_an_image_that_pillow_alone_would_refuse_is_measured_first():
    """Pillow's own guard against decompression bombs says no size; ours comes before it."""
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(with_stated_size(jpeg(), 20000, 20000)))
    assert validated(with_stated_size(jpeg(), 20000, 20000)).width == 20000
