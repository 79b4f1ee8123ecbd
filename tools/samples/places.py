"""The places that the cameras watch: a backdrop, furniture that may hide things, lamps, and free
ground on which persons, dogs, bicycles and cars may stand.

Every place is drawn from a `Random`: other numbers give another hall or street of the same kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from tools.samples.drawing import (
    Canvas,
    Colour,
    Point,
    Sprite,
    View,
    mix,
    oversampling,
    shade,
)

WARM: Colour = (255, 206, 130)
COLD: Colour = (214, 232, 255)


@dataclass(frozen=True)
class Lamp:
    """A light: the middle of its pool and the pool's half axes, in pixels, and its colour."""

    centre: Point
    rx: float
    ry: float
    colour: Colour
    strength: float


@dataclass(frozen=True)
class Furniture:
    """A fixed thing in the scene: its sprite, its depth, and the ground that it takes (metres)."""

    sprite: Sprite
    x: float
    z: float
    radius: float
    shadow: bool = True


@dataclass(frozen=True)
class Ground:
    """A rectangle of free ground, metres."""

    x0: float
    x1: float
    z0: float
    z1: float


@dataclass(frozen=True)
class Bay:
    """A place for a car: its middle on the ground in metres, and its heading in radians."""

    x: float
    z: float
    yaw: float
    size: float = 1.0


@dataclass(frozen=True)
class Place:
    """What one camera looks at, without anything that moves.

    Attributes:
      backdrop: RGB image of the view's size, as seen in full light.
      glow: RGB image that is added at night: lit windows, lamp glasses, screens.
      outlook: L image, 255 where a window of a room looks out on the day or the night.
      indoor: whether the light inside stays when the day ends.
    """

    view: View
    indoor: bool
    backdrop: Image.Image
    glow: Image.Image
    outlook: Image.Image
    lamps: tuple[Lamp, ...]
    furniture: tuple[Furniture, ...]
    walks: tuple[Ground, ...]
    bays: tuple[Bay, ...]


@dataclass
class _Builder:
    """Gathers the parts of a place while it is drawn."""

    view: View
    rng: Random
    indoor: bool
    paper: Canvas = field(init=False)
    lit: Canvas = field(init=False)
    windows: list[list[Point]] = field(default_factory=list)
    lamps: list[Lamp] = field(default_factory=list)
    furniture: list[Furniture] = field(default_factory=list)
    walks: list[Ground] = field(default_factory=list)
    bays: list[Bay] = field(default_factory=list)
    grain: list[tuple[list[Point], float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        frame = (0, 0, self.view.width, self.view.height)
        self.paper = Canvas(frame, oversample=2, background=(128, 128, 128))
        self.lit = Canvas(frame, oversample=2, background=(0, 0, 0))

    def plane(self, corners: list[tuple[float, float, float]], fill: Colour) -> list[Point]:
        points = self.view.project(corners)
        self.paper.polygon(points, fill)
        return points

    def floor(self, x0: float, x1: float, z0: float, z1: float, fill: Colour) -> list[Point]:
        return self.plane([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)], fill)

    def wall(
        self, x0: float, x1: float, y0: float, y1: float, z: float, fill: Colour
    ) -> list[Point]:
        return self.plane([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], fill)

    def side(
        self, x: float, z0: float, z1: float, y0: float, y1: float, fill: Colour
    ) -> list[Point]:
        return self.plane([(x, y0, z0), (x, y0, z1), (x, y1, z1), (x, y1, z0)], fill)

    def shine(self, points: list[Point], colour: Colour) -> None:
        self.lit.polygon(points, colour)

    def sky(self, top: Colour, bottom: Colour) -> None:
        rows = max(2, round(self.view.horizon))
        for row in range(rows):
            colour = mix(top, bottom, row / rows)
            self.paper.rectangle((0, row), (self.view.width, row + 1), colour)

    def speckle(self, points: list[Point], strength: float, size: float) -> None:
        """Grain on a part of the backdrop: `strength` of the brightness, blobs of `size` pixels."""
        self.grain.append((points, strength, size))

    def lamp_at(
        self, x: float, z: float, reach: float, colour: Colour = WARM, strength: float = 1.0
    ) -> None:
        """A pool of light of `reach` metres on the ground around (x, z), and above it."""
        column, row = self.view.point(x, 0.0, z)
        metre = self.view.scale(z)
        centre = (column, row - 1.1 * metre)
        self.lamps.append(Lamp(centre, reach * metre, 0.75 * reach * metre, colour, strength))

    def stand(
        self,
        draw: Callable[[Canvas, Point, float], None],
        *,
        x: float,
        z: float,
        width: float,
        height: float,
        radius: float,
        shadow: bool = True,
    ) -> None:
        """Furniture that faces the camera: `draw(canvas, foot, pixels for one metre)`."""
        foot, metre = self.view.point(x, 0.0, z), self.view.scale(z)
        bounds = (
            foot[0] - width / 2 * metre - 1,
            foot[1] - height * metre - 1,
            foot[0] + width / 2 * metre + 1,
            foot[1] + 0.15 * metre + 1,
        )
        canvas = Canvas(bounds, oversample=oversampling(height * metre))
        draw(canvas, foot, metre)
        self.furniture.append(Furniture(canvas.sprite(), x, z, radius, shadow))

    def crate(
        self,
        x: float,
        z: float,
        size: tuple[float, float, float],
        colour: Colour,
        *,
        base: float = 0.0,
        tape: Colour | None = None,
        shadow: bool = True,
    ) -> None:
        """A box of `size` (width, height, depth) metres whose underside is `base` above ground."""
        width, height, deep = size
        x0, x1, z0, z1 = x - width / 2, x + width / 2, z - deep / 2, z + deep / 2
        y0, y1 = base, base + height
        view = self.view
        corners = view.project([(a, b, c) for a in (x0, x1) for b in (y0, y1) for c in (z0, z1)])
        columns, rows = [p[0] for p in corners], [p[1] for p in corners]
        bounds = (min(columns) - 1, min(rows) - 1, max(columns) + 1, max(rows) + 1)
        canvas = Canvas(bounds, oversample=oversampling(max(rows) - min(rows)))

        def face(points: list[tuple[float, float, float]], light: float) -> None:
            canvas.polygon(view.project(points), shade(colour, light))

        if y1 < view.mount:
            face([(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)], 1.12)
        for edge, seen in ((x0, x0 > 0), (x1, x1 < 0)):
            if seen:
                face([(edge, y0, z0), (edge, y0, z1), (edge, y1, z1), (edge, y1, z0)], 0.72)
        face([(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)], 0.92)
        if tape is not None:
            left, right = x - width * 0.06, x + width * 0.06
            strip = [(left, y0, z0), (right, y0, z0), (right, y1, z0), (left, y1, z0)]
            canvas.polygon(view.project(strip), tape)
        radius = max(width, deep) * 0.6
        self.furniture.append(Furniture(canvas.sprite(), x, z0, radius, shadow and base == 0.0))

    def build(self) -> Place:
        backdrop = self.paper.sprite().image.convert("RGB")
        texture = np.random.default_rng(self.rng.getrandbits(32))
        for points, strength, size in self.grain:
            mask = Image.new("L", backdrop.size, 0)
            ImageDraw.Draw(mask).polygon(points, fill=255)
            coarse = (
                max(2, round(self.view.width / size)),
                max(2, round(self.view.height / size * 2)),
            )
            blobs = texture.normal(128, 64 * strength, coarse[::-1]).clip(0, 255)
            noise = Image.fromarray(blobs.astype(np.uint8), "L").resize(
                backdrop.size, Image.Resampling.BICUBIC
            )
            grained = ImageChops.overlay(backdrop, Image.merge("RGB", (noise,) * 3))
            backdrop = Image.composite(grained, backdrop, mask)
        glow = self.lit.sprite().image.convert("RGB")
        outlook = Image.new("L", backdrop.size, 0)
        for pane in self.windows:
            ImageDraw.Draw(outlook).polygon(pane, fill=255)
        halo = glow.filter(ImageFilter.GaussianBlur(self.view.width / 90))
        return Place(
            view=self.view,
            indoor=self.indoor,
            backdrop=backdrop,
            glow=ImageChops.add(glow, halo),
            outlook=outlook,
            lamps=tuple(self.lamps),
            furniture=tuple(self.furniture),
            walks=tuple(self.walks),
            bays=tuple(self.bays),
        )


# --- furniture ------------------------------------------------------------------------------------


def _plant(b: _Builder, x: float, z: float, height: float) -> None:
    leaf = b.rng.choice(((58, 120, 64), (82, 138, 60), (44, 98, 72)))
    pot = b.rng.choice(((170, 96, 66), (226, 224, 218), (70, 74, 80)))
    stems = [
        (b.rng.uniform(-0.42, 0.42), b.rng.uniform(0.55, 1.0), b.rng.uniform(0.75, 1.15))
        for _ in range(11)
    ]

    def draw(canvas: Canvas, foot: Point, metre: float) -> None:
        for lean, reach, light in stems:
            tip = (foot[0] + lean * height * metre, foot[1] - reach * height * metre)
            root = (foot[0], foot[1] - 0.25 * height * metre)
            middle = ((tip[0] + root[0]) / 2 + lean * 6, (tip[1] + root[1]) / 2)
            canvas.line([root, middle, tip], 0.03 * metre, shade(leaf, 0.7 * light))
            canvas.capsule(middle, tip, 0.085 * height * metre, 0.02 * metre, shade(leaf, light))
        w, h = 0.17 * height * metre, 0.3 * height * metre
        canvas.polygon(
            [
                (foot[0] - w, foot[1] - h),
                (foot[0] + w, foot[1] - h),
                (foot[0] + w * 0.7, foot[1]),
                (foot[0] - w * 0.7, foot[1]),
            ],
            pot,
        )

    b.stand(draw, x=x, z=z, width=height * 1.2, height=height * 1.1, radius=0.35)


def _bush(b: _Builder, x: float, z: float, width: float, height: float) -> None:
    leaf = b.rng.choice(((66, 104, 58), (84, 116, 60), (52, 88, 60), (98, 112, 66)))
    blobs = [
        (b.rng.uniform(-0.4, 0.4), b.rng.uniform(0.25, 0.75), b.rng.uniform(0.16, 0.3))
        for _ in range(26)
    ]
    lights = [b.rng.uniform(0.78, 1.2) for _ in blobs]

    def draw(canvas: Canvas, foot: Point, metre: float) -> None:
        base = (foot[0], foot[1] - height * 0.3 * metre)
        canvas.ellipse(base, width * 0.46 * metre, height * 0.32 * metre, shade(leaf, 0.7))
        for (dx, up, size), light in zip(blobs, lights, strict=True):
            centre = (foot[0] + dx * width * metre, foot[1] - up * height * metre)
            r = size * min(width, height) * metre
            canvas.ellipse(centre, r * 1.15, r * 0.85, shade(leaf, light * (0.75 + up * 0.4)))

    b.stand(draw, x=x, z=z, width=width * 1.4, height=height * 1.15, radius=width * 0.5)


def _tree(b: _Builder, x: float, z: float, height: float, *, bare: bool = False) -> None:
    bark = b.rng.choice(((92, 72, 56), (76, 66, 58), (112, 98, 84)))
    leaf = b.rng.choice(((70, 104, 56), (96, 112, 58), (58, 92, 66)))
    seed = b.rng.getrandbits(32)

    def draw(canvas: Canvas, foot: Point, metre: float) -> None:
        rng = Random(seed)
        trunk = (foot[0], foot[1] - height * 0.45 * metre)
        canvas.capsule(foot, trunk, 0.05 * height * metre, 0.03 * height * metre, bark)

        def branch(start: Point, angle: float, length: float, level: int) -> None:
            end = (start[0] + length * math.sin(angle), start[1] - length * math.cos(angle))
            thick = length * 0.07
            canvas.capsule(start, end, thick, thick * 0.5, bark)
            if level == 0:
                return
            for _ in range(3):
                branch(end, angle + rng.uniform(-0.8, 0.8), length * 0.66, level - 1)

        for angle in (-0.6, 0.0, 0.55):
            branch(trunk, angle, 0.22 * height * metre, 3 if bare else 1)
        if not bare:
            for _ in range(44):
                turn, reach = rng.uniform(0, 2 * math.pi), math.sqrt(rng.random())
                dx, dy = math.cos(turn) * reach, math.sin(turn) * reach
                centre = (
                    foot[0] + dx * 0.3 * height * metre,
                    foot[1] - (0.7 + dy * 0.24) * height * metre,
                )
                r = rng.uniform(0.05, 0.1) * height * metre
                light = 0.85 + dy * 0.2 - dx * 0.1 + rng.uniform(-0.08, 0.08)
                canvas.ellipse(centre, r * 1.2, r, shade(leaf, light))

    b.stand(draw, x=x, z=z, width=height * 0.95, height=height * 1.15, radius=0.5)


def _post(b: _Builder, x: float, z: float, height: float, colour: Colour = (70, 74, 80)) -> None:
    """A street lamp, lit at night, with its pool of light."""
    arm = 0.7 if x < 0 else -0.7

    def draw(canvas: Canvas, foot: Point, metre: float) -> None:
        top = (foot[0], foot[1] - height * metre)
        canvas.capsule(foot, top, 0.06 * metre, 0.04 * metre, colour)
        head = (top[0] + arm * metre, top[1] - 0.1 * metre)
        canvas.capsule(top, head, 0.035 * metre, 0.035 * metre, colour)
        canvas.capsule((head[0] - 0.2 * metre, head[1]), (head[0] + 0.2 * metre, head[1]),
                       0.07 * metre, 0.07 * metre, (226, 222, 208))  # fmt: skip

    b.stand(draw, x=x, z=z, width=2.2, height=height + 0.4, radius=0.3, shadow=False)
    head = b.view.point(x + arm, height + 0.02, z)
    metre = b.view.scale(z)
    b.lit.ellipse(head, 0.3 * metre, 0.12 * metre, (255, 226, 160))
    b.lamp_at(x + arm, z, 5.5, WARM, 1.0)


def _bin(b: _Builder, x: float, z: float, colour: Colour, height: float = 1.0) -> None:
    def draw(canvas: Canvas, foot: Point, metre: float) -> None:
        w, h = 0.28 * height * metre, height * metre
        canvas.ellipse((foot[0] - w * 0.5, foot[1] - 0.06 * metre), *(0.09 * metre,) * 2,
                       (26, 26, 28))  # fmt: skip
        canvas.polygon(
            [
                (foot[0] - w, foot[1] - h * 0.88),
                (foot[0] + w, foot[1] - h * 0.88),
                (foot[0] + w * 0.8, foot[1]),
                (foot[0] - w * 0.8, foot[1]),
            ],
            colour,
        )
        canvas.polygon(
            [
                (foot[0] - w * 1.08, foot[1] - h * 0.88),
                (foot[0] - w * 0.9, foot[1] - h),
                (foot[0] + w * 0.9, foot[1] - h),
                (foot[0] + w * 1.08, foot[1] - h * 0.88),
            ],
            shade(colour, 0.8),
        )
        canvas.rectangle(
            (foot[0] - w * 0.4, foot[1] - h * 0.6),
            (foot[0] + w * 0.4, foot[1] - h * 0.42),
            mix(colour, (255, 255, 255), 0.55),
        )

    b.stand(draw, x=x, z=z, width=0.8 * height, height=height * 1.05, radius=0.4)


def _chair(b: _Builder, x: float, z: float, colour: Colour) -> None:
    turned = b.rng.choice((-1, 1))

    def draw(canvas: Canvas, foot: Point, metre: float) -> None:
        def at(dx: float, up: float) -> Point:
            return foot[0] + dx * metre, foot[1] - up * metre

        dark: Colour = (48, 50, 54)
        for dx in (-0.24, 0.0, 0.24):
            canvas.capsule(at(0, 0.12), at(dx, 0.04), 0.025 * metre, 0.02 * metre, dark)
            canvas.ellipse(at(dx, 0.03), 0.03 * metre, 0.03 * metre, (20, 20, 22))
        canvas.capsule(at(0, 0.1), at(0, 0.45), 0.03 * metre, 0.03 * metre, dark)
        canvas.capsule(at(-0.2, 0.47), at(0.2, 0.47), 0.055 * metre, 0.055 * metre, colour)
        back = 0.21 * turned
        canvas.capsule(at(back, 0.5), at(back * 1.2, 0.95), 0.05 * metre, 0.05 * metre,
                       shade(colour, 0.85))  # fmt: skip

    b.stand(draw, x=x, z=z, width=0.8, height=1.05, radius=0.4)


def _desk(b: _Builder, x: float, z: float, width: float) -> None:
    """A desk with a screen on it, as four legs, a top, a screen and a mug."""
    wood = b.rng.choice(((196, 160, 118), (222, 218, 208), (148, 112, 82)))
    for dx in (-width / 2 + 0.06, width / 2 - 0.06):
        b.crate(x + dx, z + 0.3, (0.06, 0.7, 0.06), (82, 84, 90), shadow=False)
        b.crate(x + dx, z - 0.28, (0.06, 0.7, 0.06), (92, 94, 100), shadow=False)
    b.crate(x, z, (width, 0.05, 0.7), wood, base=0.7)
    b.crate(x + b.rng.uniform(-0.2, 0.2), z, (0.55, 0.34, 0.05), (34, 36, 42), base=0.82)
    screen = b.furniture[-1]
    b.crate(screen.x, z - 0.05, (0.1, 0.09, 0.05), (60, 62, 66), base=0.74)
    b.crate(x + width * 0.36, z - 0.1, (0.09, 0.1, 0.09), b.rng.choice(_TINTS), base=0.75)


def _cone(b: _Builder, x: float, z: float) -> None:
    def draw(canvas: Canvas, foot: Point, metre: float) -> None:
        def at(dx: float, up: float) -> Point:
            return foot[0] + dx * metre, foot[1] - up * metre

        canvas.polygon([at(-0.22, 0), at(0.22, 0), at(0.18, 0.05), at(-0.18, 0.05)], (40, 40, 44))
        canvas.polygon([at(-0.14, 0.05), at(0.14, 0.05), at(0.03, 0.62), at(-0.03, 0.62)],
                       (226, 98, 38))  # fmt: skip
        canvas.polygon([at(-0.1, 0.25), at(0.1, 0.25), at(0.07, 0.4), at(-0.07, 0.4)],
                       (238, 236, 230))  # fmt: skip

    b.stand(draw, x=x, z=z, width=0.6, height=0.7, radius=0.3)


def _bench(b: _Builder, x: float, z: float, colour: Colour = (142, 104, 70)) -> None:
    for dx in (-0.65, 0.65):
        b.crate(x + dx, z, (0.08, 0.42, 0.4), (58, 60, 64), shadow=False)
    b.crate(x, z, (1.6, 0.06, 0.42), colour, base=0.42)
    b.crate(x, z + 0.22, (1.6, 0.3, 0.05), shade(colour, 0.9), base=0.6)


def _rack(b: _Builder, x: float, z: float, width: float, height: float) -> None:
    """A warehouse rack, its shelves filled with boxes."""
    frame: Colour = b.rng.choice(((44, 84, 142), (206, 112, 40), (70, 110, 90)))
    deep = 0.9
    shelves = max(2, round(height / 1.1))
    for level in range(shelves):
        base = 0.1 + level * height / shelves
        b.crate(x, z + 0.02 * level, (width, 0.07, deep), shade(frame, 1.1), base=base)
        along = x - width / 2 + 0.15
        while along < x + width / 2 - 0.45:
            size = b.rng.uniform(0.35, 0.75)
            if b.rng.random() < 0.8:
                tall = b.rng.uniform(0.35, 0.85 * height / shelves - 0.1)
                b.crate(
                    along + size / 2, z, (size, tall, deep * 0.7), b.rng.choice(_BOXES),
                    base=base + 0.08, tape=b.rng.choice(((224, 200, 150), None)),
                )  # fmt: skip
            along += size + 0.05
    for dx in (-width / 2, width / 2):
        b.crate(x + dx, z - deep / 2, (0.09, height, 0.08), frame, shadow=False)
    b.furniture.append(
        Furniture(Sprite(Image.new("RGBA", (1, 1)), 0, 0), x, z, width * 0.55, shadow=False)
    )


_BOXES: tuple[Colour, ...] = (
    (188, 146, 96), (170, 126, 80), (204, 168, 118), (150, 116, 82), (120, 140, 150),
    (196, 188, 170),
)  # fmt: skip
_TINTS: tuple[Colour, ...] = (
    (176, 70, 60), (60, 110, 150), (222, 186, 92), (104, 140, 100), (230, 228, 222), (90, 84, 110),
)  # fmt: skip


# --- backdrops ------------------------------------------------------------------------------------


def _building(
    b: _Builder, x0: float, x1: float, z: float, height: float, wall: Colour, *, door: bool = True
) -> None:
    """A front with rows of windows (some lit at night), a plinth, perhaps a door."""
    front = b.wall(x0, x1, 0, height, z, wall)
    b.speckle(front, 0.05, 5)
    b.wall(x0, x1, 0, 0.5, z, shade(wall, 0.75))
    b.wall(x0, x1, height - 0.25, height, z, shade(wall, 0.7))
    columns = max(1, int((x1 - x0) / 2.4))
    step = (x1 - x0) / columns
    entrance = b.rng.randrange(columns) if door else -1
    for level in range(max(1, int((height - 0.6) / 2.7))):
        for column in range(columns):
            middle, sill = x0 + (column + 0.5) * step, 1.0 + level * 2.7
            if level == 0 and column == entrance:
                b.wall(middle - 0.6, middle + 0.6, 0, 2.2, z, shade(wall, 0.55))
                b.wall(middle - 0.48, middle + 0.48, 0, 2.1, z, b.rng.choice(_TINTS))
                continue
            b.wall(middle - 0.65, middle + 0.65, sill - 0.08, sill + 1.4, z,
                   mix(wall, (255, 255, 255), 0.55))  # fmt: skip
            pane = b.wall(middle - 0.56, middle + 0.56, sill, sill + 1.3, z, (84, 104, 122))
            b.wall(middle - 0.56, middle + 0.56, sill + 0.7, sill + 1.3, z, (112, 134, 152))
            if b.rng.random() < 0.45:
                b.shine(pane, shade(WARM, b.rng.uniform(0.45, 0.85)))
            b.wall(middle - 0.03, middle + 0.03, sill, sill + 1.3, z, (236, 234, 228))


def _hills(b: _Builder, colour: Colour) -> None:
    rows = [b.view.horizon - b.rng.uniform(0.0, 0.05) * b.view.height for _ in range(9)]
    points = [(b.view.width * i / 8, row) for i, row in enumerate(rows)]
    b.paper.polygon([(0, b.view.horizon + 2), *points, (b.view.width, b.view.horizon + 2)], colour)


def _sky(b: _Builder) -> None:
    top = b.rng.choice(((142, 178, 212), (168, 186, 204), (150, 170, 200)))
    b.sky(top, b.rng.choice(((226, 218, 204), (218, 224, 228), (236, 208, 184))))
    for _ in range(b.rng.randrange(4)):
        x, y = b.rng.uniform(0, b.view.width), b.rng.uniform(0.1, 0.7) * b.view.horizon
        wide = b.rng.uniform(0.05, 0.16) * b.view.width
        for _ in range(4):
            at = (x + b.rng.uniform(-0.6, 0.6) * wide, y + b.rng.uniform(-0.1, 0.1) * wide)
            b.paper.ellipse(at, wide * 0.6, wide * 0.1, (228, 228, 230))


def _front_door(b: _Builder) -> None:
    rng, view = b.rng, b.view
    _sky(b)
    _hills(b, (112, 126, 116))
    lawn = rng.choice(((96, 128, 72), (108, 126, 78), (84, 116, 70)))
    near = view.nearest * 0.6
    b.speckle(b.floor(-40, 40, near, 60, lawn), 0.1, 4)
    street = rng.uniform(13.0, 15.0)
    for x in (-15, -5, 5, 15):
        wall = rng.choice(((196, 176, 152), (176, 120, 96), (206, 202, 192), (150, 142, 134)))
        _building(b, x - 4.4, x + 4.4, 30, rng.uniform(5.5, 6.4), wall)
        eaves, ridge = [(x - 4.8, 6, 30), (x + 4.8, 6, 30)], [(x + 3, 8.6, 30), (x - 3, 8.6, 30)]
        roof = view.project(eaves + ridge)
        b.paper.polygon(roof, rng.choice(((112, 66, 52), (78, 78, 84), (134, 88, 66))))
    b.speckle(b.floor(-40, 40, street, street + 6, (96, 98, 102)), 0.06, 4)
    b.floor(-40, 40, street - 1.6, street, (168, 164, 156))
    for i in range(-7, 8):
        b.floor(i * 3.0, i * 3.0 + 1.4, street + 2.9, street + 3.05, (216, 214, 206))
    drive = rng.choice((-1, 1))
    x0, x1 = sorted((drive * 1.9, drive * 5.1))
    b.speckle(b.floor(x0, x1, near, street, (150, 146, 140)), 0.07, 4)
    bend = -drive * rng.uniform(0.4, 1.0)
    slab = rng.choice(((188, 178, 160), (170, 168, 166), (180, 150, 128)))
    z = near
    while z < street - 1.6:
        b.floor(bend - 0.65, bend + 0.65, z, z + 0.72, shade(slab, rng.uniform(0.92, 1.06)))
        z += 0.8
    hedge = street - 2.2
    for i in range(-7, 8):
        along = i * 1.5
        if abs(along - bend) > 1.2 and not x0 - 0.6 < along < x1 + 0.6:
            _bush(b, along, hedge + rng.uniform(-0.1, 0.1), 1.7, 0.85)
    for side in (-1, 1):
        b.crate(bend + side * 0.95, hedge, (0.3, 1.15, 0.3), (170, 120, 96))
    _tree(b, -drive * rng.uniform(4.2, 5.0), rng.uniform(9.0, 10.5), 5.0, bare=rng.random() < 0.5)
    _plant(b, bend - drive * 1.15, near / 0.6 + 0.9, 0.8)
    if rng.random() < 0.7:
        _bin(b, -drive * 2.4, near / 0.6 + 2.4, rng.choice(((46, 92, 64), (52, 64, 92))), 0.95)
    _post(b, drive * 6.2, street - 1.0, 4.2)
    b.lamp_at(bend, near / 0.6 + 1.2, 3.6, WARM, 0.95)
    b.walks += [
        Ground(bend - 0.9, bend + 0.9, near / 0.6 + 0.4, hedge - 0.6),
        Ground(bend - 0.9, bend + 0.9, near / 0.6 + 0.4, hedge - 0.6),
        Ground(-4.5, 4.5, 6.0, hedge - 1.0),
    ]
    heading = rng.choice((-1, 1)) * math.pi / 2 + rng.uniform(-0.1, 0.1)
    b.bays += [
        Bay((x0 + x1) / 2, rng.uniform(8.4, 9.2), heading),
        Bay(rng.uniform(-6, 6), street + 1.6, 0.0),
        Bay(rng.uniform(-7, 7), street + 4.4, math.pi),
    ]


def _car_park(b: _Builder) -> None:
    rng, view = b.rng, b.view
    _sky(b)
    near = view.nearest * 0.6
    _building(b, -30, -2, 34, 6.2, rng.choice(((172, 166, 158), (160, 122, 104))))
    _building(b, -2, 30, 36, 8.8, rng.choice(((190, 186, 176), (122, 132, 142))))
    asphalt = rng.choice(((104, 106, 110), (92, 94, 96), (116, 112, 108)))
    b.speckle(b.floor(-40, 40, near, 33, asphalt), 0.07, 3)
    b.floor(-40, 40, 30.5, 33, (160, 156, 150))
    rows = (rng.uniform(10.6, 11.4), rng.uniform(20.5, 21.5))
    for z in rows:
        for i in range(-6, 7):
            b.floor(i * 2.8 - 0.05, i * 2.8 + 0.05, z - 2.4, z + 2.4, (214, 212, 200))
        for i in range(-6, 6):
            heading = math.pi / 2 * rng.choice((-1, 1)) + rng.uniform(-0.06, 0.06)
            b.bays.append(Bay(i * 2.8 + 1.4, z + rng.uniform(-0.25, 0.25), heading))
    start, lane = rng.uniform(-2, 2), rows[0] - 3.9
    arrow = ((0, -0.3), (1.2, -0.3), (1.2, -0.6), (2.0, 0.0), (1.2, 0.6), (1.2, 0.3), (0, 0.3))
    b.plane([(start + along, 0, lane + across) for along, across in arrow], (206, 204, 192))
    for _ in range(3):
        x, z = rng.uniform(-5, 5), rng.uniform(near / 0.6, 9)
        u, v = view.point(x, 0, z)
        r = rng.uniform(0.3, 0.7) * view.scale(z)
        b.paper.ellipse((u, v), r, r * 0.3, shade(asphalt, 0.88))
    _post(b, rng.uniform(-6.5, -5), 15.5, 5.6)
    _post(b, rng.uniform(5, 6.5), 15.5, 5.6)
    for x in (-12, -6.5, 7, 12.5):
        _tree(b, x + rng.uniform(-1, 1), 29.5, rng.uniform(4.5, 6), bare=rng.random() < 0.6)
    for _ in range(rng.randrange(1, 4)):
        _cone(b, rng.choice((-1, 1)) * rng.uniform(2.2, 4.0), rng.uniform(6.0, 8.0))
    if rng.random() < 0.6:
        _bin(b, rng.choice((-3.6, 3.6)), 8.0, (90, 92, 96), 1.0)
    b.walks += [
        Ground(-4.5, 4.5, near / 0.6 + 0.5, rows[0] - 3.0),
        Ground(-8, 8, rows[0] + 3.0, rows[1] - 3.2),
    ]


def _garden(b: _Builder) -> None:
    rng, view = b.rng, b.view
    _sky(b)
    near = view.nearest * 0.6
    lawn = rng.choice(((98, 130, 70), (88, 120, 66), (112, 130, 80)))
    lawn_points = b.floor(-40, 40, near, 60, lawn)
    fence_z = rng.uniform(12.5, 14.0)
    for i in range(-6, 7):
        crown = i * 3.4 + rng.uniform(-1, 1)
        u, v = view.point(crown, 3.2, 26)
        r = rng.uniform(1.6, 2.6) * view.scale(26)
        b.paper.ellipse((u, v), r, r * 1.1, rng.choice(((76, 96, 70), (92, 104, 78), (68, 86, 74))))
    board = rng.choice(((150, 116, 82), (168, 150, 128), (122, 110, 100)))
    step = 0.32
    for i in range(-30, 31):
        tint = shade(board, rng.uniform(0.9, 1.06))
        b.wall(i * step, (i + 1) * step - 0.03, 0, 1.75, fence_z, tint)
    b.wall(-10, 10, 1.3, 1.38, fence_z, shade(board, 0.7))
    b.wall(-10, 10, 0.35, 0.43, fence_z, shade(board, 0.7))
    b.speckle(lawn_points, 0.12, 4)
    b.floor(-30, 30, fence_z - 1.3, fence_z - 0.05, (96, 76, 60))
    side = rng.choice((-1, 1))
    stone = rng.choice(((176, 168, 156), (188, 160, 138)))
    for i in range(9):
        x = side * (0.6 + 0.3 * math.sin(i * 0.9))
        u, v = view.point(x, 0, near / 0.6 + 0.4 + i * 0.95)
        metre = view.scale(near / 0.6 + 0.4 + i * 0.95)
        b.paper.ellipse((u, v), 0.36 * metre, 0.1 * metre, shade(stone, rng.uniform(0.9, 1.05)))
    shed = -side * rng.uniform(3.6, 4.4)
    b.crate(shed, fence_z - 1.6, (2.4, 2.0, 1.8), rng.choice(((124, 86, 66), (96, 116, 120))))
    b.crate(shed, fence_z - 2.52, (0.8, 1.7, 0.02), (76, 56, 46), shadow=False)
    b.crate(shed, fence_z - 1.6, (2.7, 0.15, 2.1), (74, 72, 74), base=2.0)
    for i in range(-5, 6):
        x = i * 1.3 + rng.uniform(-0.3, 0.3)
        if abs(x - shed) > 1.9:
            _bush(b, x, fence_z - 0.7, rng.uniform(0.8, 1.3), rng.uniform(0.5, 1.0))
    _tree(b, side * rng.uniform(3.4, 4.4), rng.uniform(9.5, 11), 4.6, bare=rng.random() < 0.35)
    _bench(b, side * rng.uniform(1.4, 2.2), rng.uniform(9.4, 10.4))
    _plant(b, -side * rng.uniform(1.6, 2.0), near / 0.6 + 1.0, 0.75)
    _plant(b, -side * rng.uniform(2.1, 2.5), near / 0.6 + 1.7, 0.9)
    if rng.random() < 0.5:
        u, v = view.point(side * 1.8, 0.0, 7.2)
        r = 0.16 * view.scale(7.2)
        b.paper.ellipse((u, v - r), r, r, (210, 84, 60))
    b.lamp_at(shed, fence_z - 3.0, 3.2, WARM, 0.9)
    b.lamp_at(side * 0.8, near / 0.6 + 1.5, 3.4, WARM, 0.8)
    lamp = view.point(shed, 2.15, fence_z - 2.6)
    b.lit.ellipse(lamp, 3.0, 2.4, (255, 220, 150))
    b.walks += [Ground(-3.4, 3.4, near / 0.6 + 0.5, fence_z - 3.4)]


def _street(b: _Builder) -> None:
    rng, view = b.rng, b.view
    _sky(b)
    near = view.nearest * 0.6
    front = rng.uniform(15.0, 15.6)
    x = -22.0
    while x < 22:
        width = rng.uniform(6.5, 9.0)
        wall = rng.choice(
            ((190, 150, 122), (206, 190, 160), (164, 112, 94), (150, 158, 164), (216, 210, 200))
        )
        _building(b, x, x + width, front, rng.uniform(6.2, 9.2), wall)
        if rng.random() < 0.5:
            awning = view.project(
                [(x + 0.8, 2.7, front), (x + width - 0.8, 2.7, front),
                 (x + width - 0.6, 2.3, front - 0.9), (x + 0.6, 2.3, front - 0.9)]
            )  # fmt: skip
            b.paper.polygon(awning, rng.choice(_TINTS))
        x += width
    pave = rng.choice(((170, 166, 160), (182, 172, 158)))
    b.speckle(b.floor(-40, 40, near, front, pave), 0.05, 4)
    kerb_near, kerb_far = rng.uniform(8.3, 8.7), front - 2.2
    road = rng.choice(((92, 94, 98), (82, 84, 88)))
    b.speckle(b.floor(-40, 40, kerb_near, kerb_far, road), 0.06, 3)
    for z in (kerb_near, kerb_far - 0.12):
        b.floor(-40, 40, z, z + 0.12, (204, 200, 192))
    middle = (kerb_near + kerb_far) / 2
    for i in range(-8, 9):
        b.floor(i * 2.6, i * 2.6 + 1.3, middle - 0.06, middle + 0.06, (222, 220, 212))
    for z in range(1, 12):
        depth = near + z * 0.85
        if depth < kerb_near:
            b.floor(-40, 40, depth, depth + 0.03, shade(pave, 0.88))
    if rng.random() < 0.6:
        start = rng.choice((-1, 1)) * rng.uniform(1.5, 3.5)
        z = kerb_near + 0.3
        while z < kerb_far - 0.5:
            b.floor(start - 1.4, start + 1.4, z, z + 0.42, (224, 222, 214))
            z += 0.9
    _post(b, rng.uniform(-4.6, -3.4), kerb_near - 0.5, 4.6)
    _post(b, rng.uniform(4.0, 5.4), kerb_far + 0.5, 4.8)
    _bin(b, rng.uniform(2.6, 3.4), kerb_near - 0.7, (60, 96, 72), 0.95)
    if rng.random() < 0.6:
        _bench(b, rng.uniform(-2.0, -1.0), kerb_near - 0.6)
    _tree(b, rng.uniform(6.0, 7.5), kerb_far + 0.8, 4.8, bare=rng.random() < 0.6)
    b.walks += [
        Ground(-4.0, 4.0, near / 0.6 + 0.5, kerb_near - 1.2),
        Ground(-4.0, 4.0, near / 0.6 + 0.5, kerb_near - 1.2),
        Ground(-6.5, 6.5, kerb_far + 0.4, front - 0.7),
    ]
    b.bays += [
        Bay(x, z, yaw + rng.uniform(-0.03, 0.03))
        for z, yaw in ((kerb_near + 1.2, 0.0), (kerb_far - 1.1, math.pi))
        for x in (-5.4, 0.2, 5.6)
    ]


def _room(
    b: _Builder, half: float, back: float, height: float, wall: Colour, floor: Colour
) -> None:
    """Ceiling, back wall, side walls and floor of a room, metres."""
    near = 0.6
    b.plane([(-half, height, near), (half, height, near), (half, height, back),
             (-half, height, back)], mix(wall, (255, 255, 255), 0.6))  # fmt: skip
    b.speckle(b.floor(-half, half, near, back, floor), 0.05, 4)
    b.side(-half, near, back, 0, height, shade(wall, 0.9))
    b.side(half, near, back, 0, height, shade(wall, 0.82))
    b.wall(-half, half, 0, height, back, wall)
    skirting = mix(wall, (255, 255, 255), 0.5)
    b.wall(-half, half, 0, 0.12, back, skirting)
    b.side(-half, near, back, 0, 0.12, shade(skirting, 0.9))
    b.side(half, near, back, 0, 0.12, shade(skirting, 0.85))


def _tiles(b: _Builder, half: float, back: float, step: float, line: Colour) -> None:
    x = -half
    while x <= half:
        b.floor(x - 0.012, x + 0.012, 0.6, back, line)
        x += step
    z = 1.0
    while z < back:
        b.floor(-half, half, z, z + 0.024, line)
        z += step


def _panel_lights(b: _Builder, half: float, back: float, height: float, strength: float) -> None:
    for z in np.arange(2.5, back, 2.6):
        for x in (-half * 0.45, half * 0.45):
            corners = [(x - 0.5, height, z), (x + 0.5, height, z), (x + 0.5, height, z + 0.8),
                       (x - 0.5, height, z + 0.8)]  # fmt: skip
            b.plane(corners, (252, 250, 240))
            b.lamp_at(x, float(z), 3.4, COLD, strength)


def _hall(b: _Builder) -> None:
    rng, view = b.rng, b.view
    half, back, height = rng.uniform(2.9, 3.5), rng.uniform(9.5, 11.0), 3.0
    wall = rng.choice(((222, 208, 186), (200, 210, 208), (214, 196, 190), (196, 202, 214)))
    floor = rng.choice(((186, 172, 152), (168, 172, 176), (160, 128, 98)))
    _room(b, half, back, height, wall, floor)
    _tiles(b, half, back, 0.8, shade(floor, 0.88))
    _panel_lights(b, half, back, height, 0.55)
    rug = rng.choice(((140, 62, 58), (70, 92, 120), (98, 112, 84)))
    b.floor(-0.9, 0.9, 3.2, 7.5, rug)
    b.floor(-0.78, 0.78, 3.35, 7.35, mix(rug, (240, 230, 210), 0.25))
    b.floor(-0.7, 0.7, 3.45, 7.25, rug)
    door = rng.uniform(-1.2, 1.2)
    b.wall(door - 0.62, door + 0.62, 0, 2.25, back, (236, 232, 224))
    b.wall(door - 0.52, door + 0.52, 0, 2.15, back, rng.choice(((120, 82, 58), (76, 96, 110))))
    pane = b.wall(door - 0.28, door + 0.28, 1.2, 1.9, back, (150, 176, 196))
    b.windows.append(pane)
    for side in (-1, 1):
        for z in (rng.uniform(4.2, 5.0), rng.uniform(7.0, 8.0)):
            b.side(side * half, z, z + 1.0, 0, 2.15, shade(rng.choice(_TINTS), 0.8))
        z = rng.uniform(5.6, 6.4)
        b.side(side * half, z - 0.1, z + 0.8, 1.25, 2.05, (86, 66, 50))
        b.side(side * half, z, z + 0.7, 1.33, 1.97, rng.choice(_TINTS))
    for x in (-half + 0.7, half - 0.9):
        if abs(x - door) > 1.2:
            b.wall(x - 0.4, x + 0.4, 1.3, 2.0, back, (70, 56, 46))
            b.wall(x - 0.33, x + 0.33, 1.37, 1.93, back, rng.choice(_TINTS))
    side = rng.choice((-1, 1))
    _plant(b, side * (half - 0.5), back - 0.7, 1.35)
    _plant(b, -side * (half - 0.45), rng.uniform(5.0, 6.5), 1.15)
    _bench(b, side * (half - 0.95), rng.uniform(6.4, 7.6), rng.choice(_TINTS))
    b.crate(-side * (half - 0.4), back - 1.8, (0.55, 0.85, 1.1), (150, 110, 76))
    if rng.random() < 0.5:
        _bin(b, side * (half - 0.4), rng.uniform(4.4, 5.2), (84, 88, 94), 0.6)
    start = view.nearest + 0.5
    b.walks += [Ground(-half + 1.0, half - 1.0, start, back - 0.8)]
    b.bays += [
        Bay(rng.uniform(-0.5, 0.5), rng.uniform(4.5, 6.0), rng.uniform(-0.5, 0.5), 0.34),
        Bay(rng.uniform(-0.6, 0.6), rng.uniform(5.0, 6.5), rng.uniform(2.2, 3.6), 0.36),
    ]


def _office(b: _Builder) -> None:
    rng, view = b.rng, b.view
    half, back, height = rng.uniform(4.4, 5.2), rng.uniform(9.5, 11.0), 2.9
    wall = rng.choice(((226, 224, 216), (206, 214, 220), (220, 212, 196)))
    floor = rng.choice(((122, 128, 136), (138, 128, 116), (108, 120, 124)))
    _room(b, half, back, height, wall, floor)
    _panel_lights(b, half, back, height, 0.6)
    for i in range(3):
        x = -half * 0.62 + i * half * 0.62
        b.wall(x - 1.05, x + 1.05, 0.9, 2.45, back, (240, 240, 236))
        pane = b.wall(x - 0.97, x + 0.97, 0.98, 2.37, back, (168, 192, 212))
        b.wall(x - 0.97, x + 0.97, 0.98, 1.5, back, (146, 162, 160))
        b.windows.append(pane)
        b.wall(x - 0.025, x + 0.025, 0.98, 2.37, back, (240, 240, 236))
    b.side(half, 4.5, 7.5, 0.9, 2.1, (206, 206, 206))
    b.side(half, 4.6, 7.4, 0.98, 2.02, (246, 246, 246))
    for _ in range(5):
        z, y = rng.uniform(4.8, 7.0), rng.uniform(1.1, 1.9)
        b.side(half, z, z + 0.3, y, y + 0.05, rng.choice(_TINTS))
    b.side(-half, 5.0, 6.0, 0, 2.1, (150, 118, 88))
    aisle = rng.uniform(-0.4, 0.4)
    for z in (back - 1.6, back - 4.4):
        for side in (-1, 1):
            x = aisle + side * rng.uniform(2.0, 2.3)
            _desk(b, x, z, rng.uniform(1.4, 1.7))
            _chair(b, x + rng.uniform(-0.3, 0.3), z - 0.85, rng.choice(_TINTS))
            screen = view.project([(x - 0.2, 0.9, z), (x + 0.2, 0.9, z), (x + 0.2, 1.1, z),
                                   (x - 0.2, 1.1, z)])  # fmt: skip
            if rng.random() < 0.3:
                b.shine(screen, (40, 60, 84))
    _plant(b, half - 0.6, back - 0.6, 1.5)
    _plant(b, -half + 0.6, back - 0.7, 1.2)
    b.crate(-half + 0.5, 7.6, (0.8, 1.25, 0.5), (128, 132, 138))
    _bin(b, aisle + rng.choice((-1.0, 1.0)), back - 2.4, (70, 74, 80), 0.5)
    b.walks += [
        Ground(aisle - 1.0, aisle + 1.0, view.nearest + 0.5, back - 0.9),
        Ground(-half + 1.0, half - 1.0, back - 3.4, back - 2.5),
        Ground(-half + 1.4, half - 1.4, view.nearest + 0.5, back - 5.6),
    ]


def _warehouse(b: _Builder) -> None:
    rng, view = b.rng, b.view
    half, back, height = rng.uniform(6.6, 7.6), rng.uniform(17.0, 19.0), 6.5
    wall = rng.choice(((176, 178, 176), (160, 170, 178), (186, 176, 160)))
    floor = rng.choice(((150, 150, 148), (136, 140, 142), (158, 150, 138)))
    _room(b, half, back, height, wall, floor)
    for i in range(int(2 * half / 0.5)):
        x = -half + i * 0.5
        b.wall(x, x + 0.06, 0, height, back, shade(wall, 0.92))
    gate = rng.uniform(-1.5, 1.5)
    b.wall(gate - 2.2, gate + 2.2, 0, 3.8, back, (62, 66, 72))
    for i in range(9):
        b.wall(gate - 2.0, gate + 2.0, 0.05 + i * 0.4, 0.4 + i * 0.4, back,
               shade((196, 200, 204), 0.95 + 0.05 * (i % 2)))  # fmt: skip
    for x in (-2.6, 2.6):
        b.floor(x - 0.07, x + 0.07, 1.0, back, (222, 186, 52))
    for z in np.arange(5.0, back, 4.5):
        column, row = view.point(0.0, height - 1.2, float(z))
        metre = view.scale(float(z))
        b.paper.capsule((column - 0.9 * metre, row), (column + 0.9 * metre, row), 0.08 * metre,
                        0.08 * metre, (250, 248, 236))  # fmt: skip
        b.lamp_at(0.0, float(z), 5.0, COLD, 0.5)
    for side in (-1, 1):
        z = back - 1.2
        while z > 8.0:
            _rack(b, side * (half - 1.5), z, 2.6, rng.uniform(3.0, 3.8))
            z -= rng.uniform(3.2, 3.8)
    for _ in range(rng.randrange(2, 5)):
        x, z = rng.choice((-1, 1)) * rng.uniform(2.9, 3.7), rng.uniform(6.5, 13)
        b.crate(x, z, (1.1, 0.14, 1.0), (168, 130, 88))
        for level in range(rng.randrange(1, 3)):
            b.crate(x, z, (0.9, 0.55, 0.8), rng.choice(_BOXES), base=0.14 + 0.55 * level,
                    tape=(224, 204, 160))  # fmt: skip
    _cone(b, rng.choice((-1, 1)) * rng.uniform(2.0, 2.5), rng.uniform(6.5, 8.5))
    if rng.random() < 0.6:
        _bin(b, rng.choice((-2.9, 2.9)), rng.uniform(7.0, 8.0), (52, 88, 120), 1.1)
    b.walks += [Ground(-2.4, 2.4, view.nearest + 0.6, back - 1.5)]
    b.bays += [
        Bay(rng.uniform(-0.6, 0.6), rng.uniform(10.0, 12.0), rng.uniform(-2.0, -1.1)),
        Bay(rng.uniform(-0.5, 0.5), rng.uniform(9.0, 11.0), rng.uniform(1.1, 2.0)),
    ]


def _bike_shed(b: _Builder) -> None:
    rng, view = b.rng, b.view
    _sky(b)
    near = view.nearest * 0.6
    wall_z = rng.uniform(9.5, 10.8)
    brick = rng.choice(((164, 106, 84), (150, 116, 100), (176, 168, 158)))
    b.wall(-14, 14, 0, 3.6, wall_z, brick)
    for course in range(18):
        y = course * 0.2
        b.wall(-14, 14, y, y + 0.02, wall_z, shade(brick, 0.84))
        for i in range(-24, 24):
            x = i * 0.5 + (course % 2) * 0.25
            b.wall(x, x + 0.02, y, y + 0.2, wall_z, shade(brick, 0.86))
    b.wall(-14, 14, 3.5, 3.8, wall_z, (120, 116, 110))
    paving = rng.choice(((156, 152, 146), (142, 136, 128)))
    b.speckle(b.floor(-30, 30, near, wall_z, paving), 0.07, 3)
    for i in range(-12, 13):
        b.floor(i * 0.9 - 0.012, i * 0.9 + 0.012, near, wall_z, shade(paving, 0.9))
    for i in range(14):
        z = near + i * 0.75
        if z < wall_z:
            b.floor(-30, 30, z, z + 0.02, shade(paving, 0.9))
    steel: Colour = (112, 118, 124)
    for i in range(-2, 3):
        x = i * 2.1 + rng.uniform(-0.1, 0.1)
        b.crate(x, wall_z - 0.6, (0.06, 0.55, 0.06), steel, shadow=False)
        b.crate(x + 0.5, wall_z - 0.6, (0.06, 0.55, 0.06), steel, shadow=False)
        b.crate(x + 0.25, wall_z - 0.6, (0.56, 0.05, 0.06), steel, base=0.53)
    for x in (-4.6, 4.6):
        b.crate(x, wall_z - 1.9, (0.12, 2.5, 0.12), steel, shadow=False)
    roof = [(-5.2, 2.5, wall_z - 2.1), (5.2, 2.5, wall_z - 2.1), (5.2, 2.75, wall_z),
            (-5.2, 2.75, wall_z)]  # fmt: skip
    b.plane(roof, (94, 110, 116))
    b.wall(-5.2, 5.2, 2.42, 2.54, wall_z - 2.1, shade(steel, 0.8))
    _plant(b, rng.choice((-1, 1)) * rng.uniform(3.2, 3.8), wall_z - 2.8, 1.1)
    _bin(b, rng.choice((-1, 1)) * rng.uniform(2.2, 3.0), wall_z - 3.2, (58, 92, 76), 1.05)
    lamp = view.point(0, 2.9, wall_z)
    b.lit.ellipse(lamp, 4, 3, (255, 226, 170))
    b.lamp_at(0, wall_z - 1.2, 4.6, WARM, 1.0)
    b.lamp_at(0, near / 0.6 + 1.0, 3.6, WARM, 0.7)
    b.walks += [Ground(-3.4, 3.4, near / 0.6 + 0.4, wall_z - 1.1)]


_PLACES: dict[str, tuple[Callable[[_Builder], None], bool, float, float, float]] = {
    # draws it, indoors, horizon / height, focal / width, camera height in metres
    "front-door": (_front_door, False, 0.27, 0.86, 2.9),
    "car-park": (_car_park, False, 0.22, 0.80, 4.4),
    "garden": (_garden, False, 0.24, 0.88, 2.9),
    "street": (_street, False, 0.28, 0.82, 3.2),
    "hall": (_hall, True, 0.24, 0.80, 2.5),
    "office": (_office, True, 0.22, 0.72, 2.6),
    "warehouse": (_warehouse, True, 0.27, 0.78, 3.6),
    "bike-shed": (_bike_shed, False, 0.24, 0.88, 2.9),
}

PLACES: tuple[str, ...] = tuple(_PLACES)
"""The kinds of place that can be drawn."""


def draw_place(kind: str, size: tuple[int, int], rng: Random) -> Place:
    """A place of one of the kinds in `PLACES`, for a frame of `size` (width, height) pixels."""
    draw, indoor, horizon, focal, mount = _PLACES[kind]
    width, height = size
    view = View(
        width=width,
        height=height,
        horizon=height * horizon * rng.uniform(0.9, 1.1),
        focal=width * focal * rng.uniform(0.96, 1.06),
        mount=mount * rng.uniform(0.95, 1.08),
    )
    builder = _Builder(view, rng, indoor)
    draw(builder)
    return builder.build()
