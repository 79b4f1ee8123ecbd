"""Drawing primitives: a level camera over flat ground, and an anti-aliased canvas in its pixels.

World coordinates are metres: x to the right of the camera's axis, y up from the ground, z along the
viewing direction. Frame coordinates are pixels, origin top left, y down.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

NEAR_M = 0.5


def shade(colour: Colour, factor: float) -> Colour:
    """`colour` made darker (factor below 1) or lighter (above 1)."""
    red, green, blue = (min(255, max(0, round(channel * factor))) for channel in colour)
    return red, green, blue


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour `share` of the way (0 to 1) from `first` to `second`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


@dataclass(frozen=True)
class View:
    """A pinhole camera whose axis is level; a high horizon stands for one that looks down.

    Attributes:
      width, height: the frame, pixels.
      horizon: the row on which points at the camera's own height lie, pixels.
      focal: focal length, pixels.
      mount: height of the camera above the ground, metres.
    """

    width: int
    height: int
    horizon: float
    focal: float
    mount: float

    def project(self, points: ArrayLike) -> list[Point]:
        """World points, shape (n, 3) in metres, as n frame points in pixels."""
        world = np.asarray(points, np.float64).reshape(-1, 3)
        depth = np.maximum(world[:, 2], NEAR_M)
        column = self.width / 2 + self.focal * world[:, 0] / depth
        row = self.horizon + self.focal * (self.mount - world[:, 1]) / depth
        return [(float(x), float(y)) for x, y in zip(column, row, strict=True)]

    def point(self, x: float, y: float, z: float) -> Point:
        """One world point in metres as a frame point in pixels."""
        return self.project([(x, y, z)])[0]

    def scale(self, z: float) -> float:
        """Pixels for one metre at depth `z` metres."""
        return self.focal / max(z, NEAR_M)

    @property
    def nearest(self) -> float:
        """Depth of the ground at the lower edge of the frame, metres."""
        return self.focal * self.mount / (self.height - self.horizon)

    def half_width(self, z: float) -> float:
        """Metres from the axis to the frame's side at depth `z` metres."""
        return self.width / 2 / self.scale(z)


@dataclass(frozen=True)
class Sprite:
    """A drawn thing: an RGBA image whose top left pixel lies at (left, top) of the frame."""

    image: Image.Image
    left: int
    top: int

    def lit(self, left: float = 1.08, right: float = 0.86) -> Sprite:
        """The sprite with light from one side: brightness runs from `left` to `right`."""
        pixels = np.asarray(self.image, np.float32).copy()
        height, width = pixels.shape[:2]
        across = np.linspace(left, right, width, dtype=np.float32)[None, :, None]
        down = np.linspace(1.06, 0.9, height, dtype=np.float32)[:, None, None]
        pixels[..., :3] = np.clip(pixels[..., :3] * across * down, 0, 255)
        return Sprite(Image.fromarray(pixels.astype(np.uint8), "RGBA"), self.left, self.top)

    def alpha(self) -> NDArray[np.uint8]:
        """Opacity of the sprite, shape (height, width), 0 to 255."""
        return np.asarray(self.image.getchannel("A"))


class Canvas:
    """Draws in frame pixels on an oversampled image that is scaled down at the end.

    Args:
      bounds: left, top, right, bottom of the part of the frame to draw on, pixels.
      oversample: drawn pixels for each frame pixel along one side.
      background: opaque fill; transparent where None.
    """

    def __init__(
        self,
        bounds: tuple[float, float, float, float],
        *,
        oversample: int = 3,
        background: Colour | None = None,
    ) -> None:
        self.left, self.top = math.floor(bounds[0]), math.floor(bounds[1])
        self.width = max(1, math.ceil(bounds[2]) - self.left)
        self.height = max(1, math.ceil(bounds[3]) - self.top)
        self.oversample = oversample
        fill = (0, 0, 0, 0) if background is None else (*background, 255)
        size = (self.width * oversample, self.height * oversample)
        self.image = Image.new("RGBA", size, fill)
        self.draw = ImageDraw.Draw(self.image)

    def _at(self, point: Point) -> Point:
        return (
            (point[0] - self.left) * self.oversample,
            (point[1] - self.top) * self.oversample,
        )

    def _box(self, centre: Point, rx: float, ry: float) -> tuple[float, float, float, float]:
        x, y = self._at(centre)
        rx, ry = rx * self.oversample, ry * self.oversample
        return x - rx, y - ry, x + rx, y + ry

    def polygon(self, points: Iterable[Point], fill: Colour) -> None:
        self.draw.polygon([self._at(point) for point in points], fill=(*fill, 255))

    def rectangle(self, corner: Point, opposite: Point, fill: Colour) -> None:
        (x0, y0), (x1, y1) = self._at(corner), self._at(opposite)
        box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        self.draw.rectangle(box, fill=(*fill, 255))

    def ellipse(self, centre: Point, rx: float, ry: float, fill: Colour) -> None:
        self.draw.ellipse(self._box(centre, rx, ry), fill=(*fill, 255))

    def ring(self, centre: Point, rx: float, ry: float, width: float, fill: Colour) -> None:
        stroke = max(1, round(width * self.oversample))
        self.draw.ellipse(self._box(centre, rx, ry), outline=(*fill, 255), width=stroke)

    def line(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        stroke = max(1, round(width * self.oversample))
        at = [self._at(point) for point in points]
        self.draw.line(at, fill=(*fill, 255), width=stroke, joint="curve")

    def capsule(self, start: Point, end: Point, r0: float, r1: float, fill: Colour) -> None:
        """A limb: round at both ends, of radius `r0` at `start` and `r1` at `end`, pixels."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = math.hypot(dx, dy)
        if length > 1e-6:
            nx, ny = -dy / length, dx / length
            self.polygon(
                [
                    (start[0] + nx * r0, start[1] + ny * r0),
                    (end[0] + nx * r1, end[1] + ny * r1),
                    (end[0] - nx * r1, end[1] - ny * r1),
                    (start[0] - nx * r0, start[1] - ny * r0),
                ],
                fill,
            )
        self.ellipse(start, r0, r0, fill)
        self.ellipse(end, r1, r1, fill)

    def sprite(self) -> Sprite:
        """What was drawn, at the frame's own resolution."""
        return Sprite(self.image.reduce(self.oversample), self.left, self.top)


def oversampling(pixels: float) -> int:
    """Oversampling for a thing `pixels` tall: fine for small things, cheap for large ones."""
    return 4 if pixels < 90 else 3 if pixels < 180 else 2
