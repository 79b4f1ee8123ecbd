"""Draws the bundled samples: an hour of pictures from eight cameras, and every kind of bad file.

    python -m tools.samples.draw_samples [--output DIR] [--seed N]

writes `DIR/samples/` and `DIR/truth.json`. The same seed gives the same pictures, and with the same
version of Pillow and of its JPEG library the same bytes. Each camera's day is told by a `_Camera`:
what it looks at, how it spells its timestamps, what comes and goes.
"""

from __future__ import annotations

import argparse
import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path

from PIL import Image, ImageFilter

from beam_pipeline.bundled import BUNDLED_SAMPLES
from tools.samples.places import Place, draw_place
from tools.samples.scenes import (
    COCO_IDS,
    Box,
    Light,
    Scene,
    Subject,
    draw_scene,
    fill,
    parked,
)

START = datetime(2026, 1, 31, 17, 30, tzinfo=timezone.utc)
PICTURES = 30
"""Pictures a camera; one every two minutes makes an hour."""

QUALITY = 67
SEED = 31

Weights = dict[int, float]


def compact(capture_time: datetime) -> str:
    return capture_time.strftime("%Y%m%dT%H%M%SZ")


def compact_milliseconds(capture_time: datetime) -> str:
    return f"{capture_time:%Y%m%dT%H%M%S}.{capture_time.microsecond // 1000:03}Z"


def dashed(capture_time: datetime) -> str:
    return capture_time.strftime("%Y-%m-%dT%H-%M-%SZ")


def unix_seconds(capture_time: datetime) -> str:
    return str(int(capture_time.timestamp()))


def unix_milliseconds(capture_time: datetime) -> str:
    return str(round(capture_time.timestamp() * 1000))


def canonical(capture_time: datetime) -> str:
    """RFC 3339 in UTC; the fraction only where it is not zero."""
    fraction = f".{capture_time.microsecond // 1000:03}" if capture_time.microsecond else ""
    return f"{capture_time:%Y-%m-%dT%H:%M:%S}{fraction}Z"


@dataclass(frozen=True)
class _Camera:
    """One camera and what it sees in the hour.

    Attributes:
      id: as in file names; also the kind of place.
      size: upright width and height, pixels.
      offset: of its clock against the full two minutes.
      spell: writes a moment into a file name.
      persons, dogs, bicycles, cars: how many pass, with the weight of each number.
      busy: pictures in which persons are about.
      bays: parked cars, as bay: (first picture, last picture).
      intruding_car: pictures with a car that does not belong there, in bay 0.
      locked_bicycles: how many stand there, coming and going.
      infrared_from: the picture from which the camera sees by infra-red.
      lights_out_from: indoors, the picture from which the lamps are off.
      odd: pictures that are stored as some real cameras store them.
    """

    id: str
    size: tuple[int, int]
    offset: timedelta
    spell: Callable[[datetime], str] = compact
    persons: Weights = field(default_factory=dict)
    dogs: Weights = field(default_factory=dict)
    bicycles: Weights = field(default_factory=dict)
    cars: Weights = field(default_factory=dict)
    busy: range = range(PICTURES)
    bays: dict[int, tuple[int, int]] = field(default_factory=dict)
    intruding_car: range = range(0)
    locked_bicycles: int = 0
    infrared_from: int = PICTURES
    lights_out_from: int = PICTURES
    odd: dict[int, str] = field(default_factory=dict)


CAMERAS: tuple[_Camera, ...] = (
    _Camera(
        "front-door", (640, 480), timedelta(seconds=0),
        persons={0: 5, 1: 4, 2: 1}, dogs={0: 9, 1: 1}, cars={0: 5, 1: 1},
        bays={0: (7, 26)}, odd={4: "progressive", 19: "mpo"},
    ),
    _Camera(
        "car-park", (640, 480), timedelta(seconds=17),
        persons={0: 6, 1: 2, 2: 1}, bicycles={0: 9, 1: 1},
        bays={2: (0, 29), 3: (0, 12), 4: (5, 29), 6: (0, 21), 7: (9, 29), 8: (0, 8),
              15: (0, 29), 17: (0, 17), 18: (3, 29), 20: (0, 25), 21: (11, 29)},
        odd={11: "cmyk"},
    ),
    _Camera(
        "street", (512, 288), timedelta(seconds=31), spell=unix_seconds,
        persons={1: 3, 2: 4, 3: 3, 4: 1}, dogs={0: 8, 1: 1}, bicycles={0: 5, 1: 1},
        cars={0: 3, 1: 4, 2: 2}, odd={8: "progressive"},
    ),
    _Camera(
        "garden", (480, 360), timedelta(seconds=42, milliseconds=250), spell=compact_milliseconds,
        persons={1: 1}, dogs={0: 5, 1: 3, 2: 1}, busy=range(13, 14), infrared_from=20,
        odd={5: "exif 6", 16: "exif 8"},
    ),
    _Camera(
        "bike-shed", (320, 240), timedelta(seconds=5), spell=unix_milliseconds,
        persons={0: 3, 1: 2}, dogs={0: 12, 1: 1}, locked_bicycles=4, infrared_from=17,
    ),
    _Camera(
        "hall", (400, 300), timedelta(seconds=53),
        persons={0: 4, 1: 3, 2: 1}, dogs={0: 9, 1: 1}, bicycles={0: 9, 1: 1},
        intruding_car=range(8, 10), odd={2: "exif 6", 21: "exif 8", 25: "cmyk"},
    ),
    _Camera(
        "office", (480, 360), timedelta(seconds=24), spell=dashed,
        persons={0: 1, 1: 4, 2: 3, 3: 1}, dogs={0: 10, 1: 1}, busy=range(19),
        lights_out_from=21, odd={7: "mpo"},
    ),
    _Camera(
        "warehouse", (640, 360), timedelta(seconds=36),
        persons={0: 5, 1: 2, 2: 1}, busy=range(26), intruding_car=range(14, 19),
        infrared_from=21, odd={9: "progressive"},
    ),
)  # fmt: skip
"""The sample cameras. `street` floods its owner with persons; `garden` sees next to none."""


@dataclass(frozen=True)
class Sample:
    """One valid picture: where it lies under `samples/`, what it shows, and its bytes."""

    file: str
    id: str
    capture_time: datetime
    scene: Scene
    data: bytes


@dataclass(frozen=True)
class Invalid:
    """One file that the job must refuse, for the given reason."""

    file: str
    reason: str
    data: bytes


@cache
def _place(camera_id: str, size: tuple[int, int], seed: int) -> Place:
    return draw_place(camera_id, size, random.Random(f"{seed}/{camera_id}/place"))


def _light(camera: _Camera, place: Place, index: int) -> Light:
    daylight = min(1.0, max(0.0, 0.95 - index / 22))
    rain = 0.0
    if not place.indoor and 10 <= index <= 16:
        rain = 0.25 + 0.12 * (3 - abs(index - 13))
    if place.indoor:
        lamps = 0.12 if index >= camera.lights_out_from else 0.9
    else:
        lamps = min(1.0, max(0.0, 1.1 - 1.7 * daylight))
    return Light(
        daylight=daylight,
        lamps=lamps,
        infrared=index >= camera.infrared_from,
        rain=rain,
        noise=1.2 + 1.8 * (1 - daylight) * (0.5 if place.indoor else 1.0),
    )


def _subjects(camera: _Camera, place: Place, index: int, seed: int) -> list[Subject]:
    """What stands and moves before the camera in picture `index`."""
    standing: list[Subject] = []
    for bay, (first, last) in camera.bays.items():
        if first <= index <= last:
            car = random.Random(f"{seed}/{camera.id}/bay {bay}")
            standing.append(parked(place.bays[bay], car))
    if index in camera.intruding_car:
        standing.append(parked(place.bays[0], random.Random(f"{seed}/{camera.id}/intruder")))
    racks = random.Random(f"{seed}/{camera.id}/racks")
    for number in range(camera.locked_bicycles):
        x, since = (number - 2) * 2.1 + 1.25 + racks.uniform(-0.1, 0.1), racks.randrange(0, 14)
        bicycle = Subject("bicycle", x, place.walks[0].z1 - 0.1, racks.getrandbits(32))
        if since <= index < since + 15:
            standing.append(bicycle)
    rng = random.Random(f"{seed}/{camera.id}/{index}")
    passing: list[str] = []
    for label, weights in (
        ("person", camera.persons if index in camera.busy else {}),
        ("dog", camera.dogs),
        ("bicycle", camera.bicycles),
        ("car", camera.cars),
    ):
        number = rng.choices(list(weights), list(weights.values()))[0] if weights else 0
        passing += [label] * number
    return fill(place, rng, passing, standing)


def _encode(image: Image.Image, *, odd: str = "", grey: bool = False) -> bytes:
    """The picture as JPEG, stored as `odd` says: progressive, cmyk, mpo, exif 6, exif 8."""
    buffer = io.BytesIO()
    if grey:
        image = image.convert("L")
    if odd == "cmyk":
        image.convert("CMYK").save(buffer, "JPEG", quality=QUALITY, optimize=True)
    elif odd == "mpo":
        preview = image.resize((image.width // 4, image.height // 4), Image.Resampling.BILINEAR)
        image.save(buffer, "MPO", save_all=True, append_images=[preview], quality=QUALITY)
    elif odd.startswith("exif"):
        orientation = int(odd.split()[1])
        turn = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.transpose(turn).save(buffer, "JPEG", quality=QUALITY, optimize=True, exif=exif)
    else:
        progressive = odd == "progressive"
        image.save(buffer, "JPEG", quality=QUALITY, optimize=True, progressive=progressive)
    return buffer.getvalue()


def draw_sample(camera: _Camera, index: int, *, seed: int = SEED) -> Sample:
    """Picture `index` (0 to `PICTURES` - 1) of a camera."""
    capture_time = START + camera.offset + timedelta(minutes=2 * index)
    place = _place(camera.id, camera.size, seed)
    light = _light(camera, place, index)
    scene = draw_scene(
        place,
        _subjects(camera, place, index, seed),
        light,
        random.Random(f"{seed}/{camera.id}/{index}/weather"),
        caption=f"{camera.id.upper()}  {capture_time:%Y-%m-%d %H:%M:%S}",
    )
    data = _encode(scene.image, odd=camera.odd.get(index, ""), grey=light.infrared)
    name = f"{camera.id}_{camera.spell(capture_time)}.jpg"
    return Sample(f"{camera.id}/{name}", camera.id, capture_time, scene, data)


def draw_valid(*, seed: int = SEED) -> Iterator[Sample]:
    """Every valid picture, camera by camera, in the order of time."""
    for camera in CAMERAS:
        for index in range(PICTURES):
            yield draw_sample(camera, index, seed=seed)


def _frame_header(data: bytes) -> int:
    """Offset of the height in the baseline frame header (SOF0) of a JPEG."""
    at = 2
    while data[at + 1] != 0xC0:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at + 5


def _with_size(data: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its header: a decompression bomb where that is large."""
    at = _frame_header(data)
    return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4 :]


def _with_bad_tables(data: bytes) -> bytes:
    """The JPEG with its Huffman tables overwritten, so that its scan means nothing."""
    at = data.index(b"\xff\xc4")
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    return data[: at + 5] + b"\xff" * (length - 3) + data[at + 2 + length :]


def draw_invalid(*, seed: int = SEED) -> list[Invalid]:
    """One or two files for each reason for which the job refuses a file that it can read."""
    by_id = {camera.id: camera for camera in CAMERAS}

    def sample(camera_id: str, index: int) -> Sample:
        return draw_sample(by_id[camera_id], index, seed=seed)

    def again(original: Sample) -> bytes:
        """The same image, out of focus: other bytes, in which a detector is less sure of what it
        sees, so that the job keeps the original."""
        buffer = io.BytesIO()
        with Image.open(io.BytesIO(original.data)) as image:
            blurred = image.filter(ImageFilter.GaussianBlur(3))
            blurred.save(buffer, "JPEG", quality=45, optimize=True)
        return buffer.getvalue()

    def shrunk(size: tuple[int, int]) -> bytes:
        return _encode(sample("hall", 0).scene.image.resize(size, Image.Resampling.BILINEAR))

    small = shrunk((200, 150))
    portable_network_graphic = io.BytesIO()
    sample("hall", 0).scene.image.resize((200, 150)).save(portable_network_graphic, "PNG")
    damaged = sample("office", 3).data
    street, hall = sample("street", 6), sample("hall", 12)
    return [
        Invalid("broken/snapshot.jpg", "bad_name", small),
        Invalid("broken/front door_20260131T174500Z.jpg", "bad_name", small),
        Invalid("broken/hall_20260131T256100Z.jpg", "bad_timestamp", small),
        Invalid("broken/hall_yesterday.jpg", "bad_timestamp", small),
        Invalid("broken/office_2026-01-31T18-30-00+0100.jpg", "timestamp_not_utc", small),
        Invalid("broken/garden_21200131T180000Z.jpg", "timestamp_in_future", small),
        Invalid("broken/car-park_20260131T181500Z.jpg", "empty_file", b""),
        Invalid(
            "broken/hall_20260131T174500Z.jpg", "not_jpeg", portable_network_graphic.getvalue()
        ),
        Invalid(
            "broken/warehouse_20260131T175500Z.jpg",
            "not_jpeg",
            b"<html><body>503 Service Unavailable</body></html>\n",
        ),
        Invalid("broken/office_20260131T175900Z.jpg", "corrupt_jpeg", damaged[: len(damaged) // 2]),
        Invalid("broken/street_20260131T181900Z.jpg", "corrupt_jpeg", _with_bad_tables(small)),
        Invalid("broken/bike-shed_20260131T180100Z.jpg", "resolution_too_low", shrunk((120, 90))),
        Invalid(
            "broken/front-door_20260131T182100Z.jpg",
            "resolution_too_high",
            _with_size(small, 20000, 20000),
        ),
        Invalid(f"street/street_{compact(street.capture_time)}.jpg", "duplicate", again(street)),
        Invalid(f"hall/resent/{Path(hall.file).name}", "duplicate", again(hall)),
    ]


def _truth(sample: Sample) -> dict[str, object]:
    width, height = sample.scene.image.size

    def bbox(box: Box) -> list[float]:
        return [
            round(box.x / width, 4),
            round(box.y / height, 4),
            round(box.width / width, 4),
            round(box.height / height, 4),
        ]

    return {
        "file": sample.file,
        "id": sample.id,
        "timestamp": canonical(sample.capture_time),
        "width": width,
        "height": height,
        "objects": [
            {"label": box.label, "category": str(COCO_IDS[box.label]), "bbox": bbox(box)}
            for box in sample.scene.boxes
        ],
    }


def write_samples(output: Path, *, seed: int = SEED) -> tuple[int, int]:
    """Writes `samples/` and `truth.json` under `output`; returns how many are valid and invalid."""
    images: list[str] = []
    refused = draw_invalid(seed=seed)
    for file in draw_valid(seed=seed):
        _write(output / "samples" / file.file, file.data)
        images.append(json.dumps(_truth(file)))
    for bad in refused:
        _write(output / "samples" / bad.file, bad.data)
    invalid = [json.dumps({"file": bad.file, "reason": bad.reason}) for bad in refused]
    parts = ('{"images": [', ",\n".join(images), '],\n"invalid": [', ",\n".join(invalid), "]}\n")
    text = "\n".join(parts)
    _write(output / "truth.json", text.encode())
    return len(images), len(invalid)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.samples.draw_samples", description="Draw the bundled samples."
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=BUNDLED_SAMPLES.parent,
        metavar="DIR",
        help="where samples/ and truth.json go (default: this package)",
    )
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help="default: %(default)s")
    options = parser.parse_args(arguments)
    valid, invalid = write_samples(options.output, seed=options.seed)
    print(f"{valid} valid and {invalid} invalid files in {options.output / 'samples'}")


if __name__ == "__main__":
    main()
