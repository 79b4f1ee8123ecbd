"""Scenes: a place, the subjects in it and the light, drawn to a picture and its true boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tools.samples.drawing import Sprite, View
from tools.samples.objects import draw_bicycle, draw_car, draw_dog, draw_person
from tools.samples.places import PLACES, Bay, Furniture, Place, draw_place

COCO_IDS: dict[str, int] = {"person": 1, "bicycle": 2, "car": 3, "dog": 18}
"""The labels that are drawn, and their COCO category ids."""

MIN_VISIBLE = 0.45
"""A subject of which less is seen (as a fraction of its pixels) is taken out of the scene."""

OPAQUE = 96
"""Opacity (0 to 255) from which a pixel belongs to a subject."""

_REACH_M = {"person": 14.5, "bicycle": 11.0, "dog": 8.5, "car": 30.0}
_RADIUS_M = {"person": 0.36, "bicycle": 0.85, "dog": 0.5, "car": 2.2}


@dataclass(frozen=True)
class Subject:
    """One thing to detect: where it stands (metres), and the seed of its looks.

    `yaw` (radians) and `size` are for cars alone.
    """

    label: str
    x: float
    z: float
    seed: int
    yaw: float = 0.0
    size: float = 1.0

    @property
    def radius(self) -> float:
        return _RADIUS_M[self.label] * self.size

    def draw(self, view: View) -> Sprite:
        rng = Random(self.seed)
        if self.label == "person":
            return draw_person(view, self.x, self.z, rng)
        if self.label == "dog":
            return draw_dog(view, self.x, self.z, rng)
        if self.label == "bicycle":
            return draw_bicycle(view, self.x, self.z, rng)
        return draw_car(view, self.x, self.z, rng, yaw=self.yaw, size=self.size)


@dataclass(frozen=True)
class Light:
    """What the hour and the weather do to a picture.

    Attributes:
      daylight: 1 for a bright afternoon, 0 for night.
      lamps: how strongly the lamps burn, 0 to 1.
      infrared: the camera's own night mode: grey, lit from the camera.
      rain: streaks of rain, 0 to 1.
      noise: standard deviation of the sensor's noise, grey levels of 255.
    """

    daylight: float
    lamps: float
    infrared: bool = False
    rain: float = 0.0
    noise: float = 2.0


@dataclass(frozen=True)
class Box:
    """The true box of one subject: label, and x_min, y_min, width, height in pixels."""

    label: str
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Scene:
    """A drawn picture (RGB) and the boxes of what is visible in it, nearest first."""

    image: Image.Image
    boxes: tuple[Box, ...]


def free_spot(
    place: Place, label: str, rng: Random, taken: Sequence[tuple[float, float, float]]
) -> Subject | None:
    """A subject on the place's free ground, clear of furniture and of what is `taken`.

    Args:
      taken: (x, z, radius) in metres of what already stands there.
    Returns None where nothing free was found.
    """
    view = place.view
    radius = _RADIUS_M[label]
    for _ in range(30):
        walk = rng.choice(place.walks)
        far = min(walk.z1, _REACH_M[label])
        if far <= walk.z0:
            continue
        z = walk.z0 + (far - walk.z0) * rng.random() ** 1.3
        reach = view.half_width(z) - radius * rng.choice((0.0, 0.6, 1.0))
        x = rng.uniform(max(walk.x0, -reach), max(walk.x0, -reach, min(walk.x1, reach)))
        solid = [(item.x, item.z, item.radius) for item in place.furniture]
        if all(math.hypot(x - ox, z - oz) > radius + r for ox, oz, r in [*solid, *taken]):
            return Subject(label, x, z, rng.getrandbits(32))
    return None


def parked(bay: Bay, rng: Random) -> Subject:
    """A car in a bay."""
    return Subject("car", bay.x, bay.z, rng.getrandbits(32), bay.yaw, bay.size)


def _radial(size: int) -> Image.Image:
    axis = np.linspace(-1, 1, size)
    distance = np.hypot(axis[:, None], axis[None, :])
    return Image.fromarray((255 * np.clip(1 - distance, 0, 1) ** 0.8).astype(np.uint8), "L")


_SOFT = _radial(64)


def _shadow(image: Image.Image, view: View, x: float, z: float, radius: float) -> None:
    """Darkens the ground under a thing."""
    column, row = view.point(x, 0.0, z)
    half = radius * 1.5 * view.scale(z)
    size = max(2, round(2 * half)), max(2, round(half * 0.62))
    mask = _SOFT.resize(size).point([round(level * 0.55) for level in range(256)])
    image.paste((18, 20, 26), (round(column - size[0] / 2), round(row - size[1] / 2)), mask)


@dataclass(frozen=True)
class _Layer:
    z: float
    sprite: Sprite
    subject: Subject | None
    shadow: tuple[float, float, float] | None


def _layers(place: Place, subjects: Sequence[Subject]) -> list[_Layer]:
    def furniture(item: Furniture) -> _Layer:
        return _Layer(
            item.z, item.sprite, None, (item.x, item.z, item.radius) if item.shadow else None
        )

    layers = [furniture(item) for item in place.furniture]
    for subject in subjects:
        layers.append(
            _Layer(
                subject.z, subject.draw(place.view), subject, (subject.x, subject.z, subject.radius)
            )
        )
    return sorted(layers, key=lambda layer: -layer.z)


def _boxes(layers: Sequence[_Layer], size: tuple[int, int]) -> tuple[list[Box], list[Subject]]:
    """The boxes of what is visible, nearest first, and the subjects that are hidden too much."""
    width, height = size
    covered = np.zeros((height, width), bool)
    boxes: list[Box] = []
    hidden: list[Subject] = []
    for layer in reversed(layers):
        sprite = layer.sprite
        solid = sprite.alpha() >= OPAQUE
        x0, y0 = max(0, sprite.left), max(0, sprite.top)
        x1 = min(width, sprite.left + solid.shape[1])
        y1 = min(height, sprite.top + solid.shape[0])
        if x0 >= x1 or y0 >= y1:
            if layer.subject is not None:
                hidden.append(layer.subject)
            continue
        inside = solid[y0 - sprite.top : y1 - sprite.top, x0 - sprite.left : x1 - sprite.left]
        seen = inside & ~covered[y0:y1, x0:x1]
        if layer.subject is not None:
            if seen.sum() < MIN_VISIBLE * solid.sum():
                hidden.append(layer.subject)
                continue
            rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
            boxes.append(
                Box(
                    layer.subject.label,
                    x0 + int(columns[0]),
                    y0 + int(rows[0]),
                    int(columns[-1] - columns[0] + 1),
                    int(rows[-1] - rows[0] + 1),
                )
            )
        covered[y0:y1, x0:x1] |= inside
    return boxes, hidden


def _ambient(light: Light, indoor: bool) -> NDArray[np.float32]:
    """The colour that multiplies the scene where no lamp shines, shape (3,)."""
    day = np.array([1.0, 0.99, 0.97], np.float32)
    dusk = np.array([0.72, 0.60, 0.56], np.float32)
    night = np.array([0.26, 0.30, 0.42], np.float32)
    if indoor:
        return (0.34 + 0.34 * light.daylight) * np.array([1.0, 0.99, 0.98], np.float32)
    if light.daylight > 0.5:
        return dusk + (day - dusk) * (light.daylight - 0.5) * 2
    return night + (dusk - night) * light.daylight * 2


def _illumination(place: Place, light: Light) -> NDArray[np.float32]:
    """What multiplies each pixel, shape (height, width, 3)."""
    view = place.view
    coarse = 8
    size = -(-view.width // coarse), -(-view.height // coarse)
    columns = (np.arange(size[0], dtype=np.float32) + 0.5) * coarse
    rows = (np.arange(size[1], dtype=np.float32)[:, None] + 0.5) * coarse
    if light.infrared:
        distance = np.hypot(
            (columns - view.width / 2) / view.width, (rows - 0.62 * view.height) / view.height
        )
        level = 0.5 + 0.56 * np.exp(-((distance / 0.42) ** 2))
        field = np.repeat(level[..., None], 3, axis=2).astype(np.float32)
    else:
        field = np.ones((size[1], size[0], 3), np.float32) * _ambient(light, place.indoor)
        for lamp in place.lamps:
            reach = np.hypot(
                (columns - lamp.centre[0]) / lamp.rx, (rows - lamp.centre[1]) / lamp.ry
            )
            colour = np.array(lamp.colour, np.float32) / 255
            pool = light.lamps * lamp.strength * np.exp(-(reach**2) * 1.6)
            field += pool[..., None] * colour * (0.9 if not place.indoor else 0.55)
        field = np.minimum(field, 1.12)
    smooth = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(field[..., channel])).resize(
                (view.width, view.height), Image.Resampling.BILINEAR
            )
        )
        for channel in range(3)
    ]
    return np.stack(smooth, axis=-1)


def _rain(size: tuple[int, int], amount: float, rng: Random) -> NDArray[np.float32]:
    """Brightness that streaks of rain add, shape (height, width, 1), 0 to 1."""
    streaks = Image.new("L", size, 0)
    draw = ImageDraw.Draw(streaks)
    slant = rng.uniform(-0.25, 0.25)
    for _ in range(round(amount * size[0] * size[1] / 900)):
        x, y = rng.uniform(0, size[0]), rng.uniform(-10, size[1])
        length = rng.uniform(0.02, 0.06) * size[1]
        draw.line([(x, y), (x + slant * length, y + length)], fill=rng.randrange(40, 110))
    brightness: NDArray[np.float32] = np.asarray(streaks, np.float32)[..., None] / np.float32(255)
    return brightness


def _caption(image: Image.Image, text: str) -> None:
    """The camera's own caption, top left, as most cameras write it into the picture."""
    size = max(10, image.width // 42)
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(image)
    draw.text((size * 0.6, size * 0.5), text, fill=(245, 245, 245), font=font,
              stroke_width=1, stroke_fill=(20, 20, 20))  # fmt: skip


def draw_scene(
    place: Place, subjects: Sequence[Subject], light: Light, rng: Random, *, caption: str = ""
) -> Scene:
    """Draws one picture.

    A subject that is hidden or out of the frame by more than `MIN_VISIBLE` allows is left out of
    the picture, not only of the boxes. Boxes are tight around the visible pixels of a subject.

    Args:
      rng: gives rain and noise.
      caption: text that the camera writes into the picture.
    """
    view = place.view
    size = view.width, view.height
    layers = _layers(place, subjects)
    boxes, hidden = _boxes(layers, size)
    while hidden:
        layers = [layer for layer in layers if layer.subject not in hidden]
        boxes, hidden = _boxes(layers, size)

    image = place.backdrop.copy()
    dusk = round(230 * (1 - light.daylight))
    image.paste((22, 28, 46), mask=place.outlook.point([dusk * (v > 0) for v in range(256)]))
    for layer in layers:
        if layer.shadow is not None:
            _shadow(image, view, *layer.shadow)
        image.paste(layer.sprite.image, (layer.sprite.left, layer.sprite.top), layer.sprite.image)

    pixels = np.asarray(image, np.float32) * _illumination(place, light)
    night = (1 - light.daylight) if not light.infrared else 0.35
    pixels += _night_glow(place, layers, image) * min(1.0, max(0.0, 1.6 * night - 0.3))
    if light.rain > 0:
        streaks = _rain(size, light.rain, rng)
        pixels += streaks * (60 + 50 * light.daylight)
        pixels += (150 * max(0.3, light.daylight) - pixels) * 0.12 * light.rain
    if light.infrared:
        grey = pixels @ np.array([0.35, 0.5, 0.15], np.float32)
        pixels = np.repeat(grey[..., None], 3, axis=2)
    grain = np.random.default_rng(rng.getrandbits(32))
    noise = grain.standard_normal((size[1], size[0], 1), dtype=np.float32) * light.noise
    if not light.infrared:
        chroma = grain.standard_normal((size[1], size[0], 3), dtype=np.float32)
        noise = noise + chroma * (0.4 * light.noise)
    finished = Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8), "RGB")
    if caption:
        _caption(finished, caption)
    return Scene(finished, tuple(boxes))


def _night_glow(place: Place, layers: Sequence[_Layer], image: Image.Image) -> NDArray[np.float32]:
    """The lit windows and lamps that nothing hides, shape (height, width, 3), 0 to 255."""
    near = min((item.z for item in place.furniture), default=0.0)
    visible = Image.new("L", image.size, 255)
    for layer in layers:
        if layer.subject is not None or layer.z > near:
            visible.paste(0, (layer.sprite.left, layer.sprite.top), layer.sprite.image)
    soft = visible.filter(ImageFilter.BoxBlur(1))
    shares: NDArray[np.float32] = np.asarray(soft, np.float32)[..., None] / np.float32(255)
    return np.asarray(place.glow, np.float32) * shares


def random_light(rng: Random, indoor: bool) -> Light:
    """Any hour between the afternoon and the night, any weather."""
    daylight = rng.choice((1.0, rng.random(), rng.random(), 0.0))
    dark = 1 - daylight
    infrared = dark > 0.4 and rng.random() < 0.35
    lamps = 1.0 if indoor else min(1.0, max(0.0, 1.5 * dark - 0.2))
    if indoor and dark > 0.5 and rng.random() < 0.25:
        lamps = rng.uniform(0.3, 0.8)
    return Light(
        daylight=daylight,
        lamps=lamps,
        infrared=infrared,
        rain=rng.uniform(0.2, 1.0) if not indoor and rng.random() < 0.2 else 0.0,
        noise=rng.uniform(1.0, 2.5) + dark * rng.uniform(0.0, 2.5),
    )


def fill(
    place: Place, rng: Random, wanted: Sequence[str], taken: Sequence[Subject] = ()
) -> list[Subject]:
    """`taken` and one more subject for each label of `wanted` that finds free ground.

    Cars take the place's bays, the others its walks.
    """
    subjects = list(taken)
    for label in wanted:
        if label == "car":
            free = [
                bay
                for bay in place.bays
                if all(
                    math.hypot(bay.x - other.x, bay.z - other.z)
                    > (2.5 * bay.size if other.label == "car" else other.radius + 2.0 * bay.size)
                    for other in subjects
                )
            ]
            if free:
                subjects.append(parked(rng.choice(free), rng))
            continue
        spot = free_spot(place, label, rng, [(s.x, s.z, s.radius) for s in subjects])
        if spot is not None:
            subjects.append(spot)
    return subjects


def _random_caption(rng: Random) -> str:
    name = rng.choice(("CAM", "GATE", "YARD", "SHOP", "DOCK", "LOBBY", "LANE"))
    day, clock = rng.randrange(1, 29), rng.randrange(86400)
    time = f"{clock // 3600:02}:{clock // 60 % 60:02}:{clock % 60:02}"
    return f"{name} {rng.randrange(1, 20)}  2025-{rng.randrange(1, 13):02}-{day:02} {time}"


def random_scenes(seed: int, count: int, *, per_place: int = 6) -> list[Scene]:
    """`count` scenes of all kinds of place, for training and for judging a detector.

    Every `per_place` scenes share a place, which is the costly part of a drawing.
    """
    rng = Random(seed)
    sizes = ((320, 240), (352, 288), (400, 300), (480, 360), (512, 288), (640, 360), (640, 480))
    weights = (4, 2, 3, 4, 4, 3, 3)
    scenes: list[Scene] = []
    while len(scenes) < count:
        place = draw_place(rng.choice(PLACES), rng.choices(sizes, weights)[0], rng)
        for _ in range(min(per_place, count - len(scenes))):
            labels = rng.choices(
                ("person", "bicycle", "car", "dog"), (6, 3, 3, 4), k=rng.choice((0, 1, 2, 2, 3, 4))
            )
            if len(place.bays) > 6:
                labels += ["car"] * rng.randrange(0, 8)
            caption = rng.choice(("", _random_caption(rng)))
            scenes.append(
                draw_scene(
                    place,
                    fill(place, rng, labels),
                    random_light(rng, place.indoor),
                    rng,
                    caption=caption,
                )
            )
    return scenes
