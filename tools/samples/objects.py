"""The things that the detector knows: persons, dogs, bicycles as jointed figures, cars as solids.

Each function draws one thing that stands on the ground at (x, z) metres of a `View`. Its looks come
from `rng` alone, so one seed is one person, in the same clothes, wherever it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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

SKIN: tuple[Colour, ...] = ((244, 208, 177), (224, 172, 125), (198, 134, 89), (141, 85, 54))
HAIR: tuple[Colour, ...] = ((35, 28, 24), (78, 52, 34), (150, 108, 62), (190, 186, 180))
CLOTHES: tuple[Colour, ...] = (
    (192, 57, 43), (41, 98, 155), (36, 113, 93), (226, 171, 59), (222, 222, 218), (58, 64, 78),
    (128, 78, 140), (214, 108, 52), (94, 138, 62), (204, 120, 144), (110, 74, 52), (40, 160, 178),
)  # fmt: skip
TROUSERS: tuple[Colour, ...] = (
    (38, 46, 70), (60, 62, 66), (88, 78, 64), (28, 28, 32), (70, 92, 128), (140, 126, 104),
)  # fmt: skip
PAINT: tuple[Colour, ...] = (
    (178, 34, 34), (32, 74, 135), (214, 216, 218), (66, 70, 76), (28, 30, 34), (150, 156, 162),
    (28, 100, 80), (222, 164, 38), (112, 58, 40), (90, 140, 180), (236, 236, 232),
)  # fmt: skip
COAT: tuple[Colour, ...] = (
    (120, 78, 44), (46, 38, 34), (206, 172, 122), (232, 226, 214), (150, 96, 52), (92, 88, 86),
)  # fmt: skip
GLASS: Colour = (58, 76, 92)
RUBBER: Colour = (26, 26, 28)
METAL: Colour = (178, 182, 188)


class _Figure:
    """A flat figure that faces the camera: metres from its feet become frame pixels."""

    def __init__(self, view: View, x: float, z: float, half_width: float, height: float) -> None:
        self.foot = view.point(x, 0.0, z)
        self.metre = view.scale(z)
        column, row = self.foot
        bounds = (
            column - half_width * self.metre - 1,
            row - height * self.metre - 1,
            column + half_width * self.metre + 1,
            row + 0.12 * self.metre + 1,
        )
        self.canvas = Canvas(bounds, oversample=oversampling(height * self.metre))

    def at(self, point: Point) -> Point:
        return self.foot[0] + point[0] * self.metre, self.foot[1] - point[1] * self.metre

    def limb(self, start: Point, end: Point, r0: float, r1: float, fill: Colour) -> None:
        self.canvas.capsule(self.at(start), self.at(end), r0 * self.metre, r1 * self.metre, fill)

    def disc(self, centre: Point, rx: float, ry: float, fill: Colour) -> None:
        self.canvas.ellipse(self.at(centre), rx * self.metre, ry * self.metre, fill)

    def shape(self, points: list[Point], fill: Colour) -> None:
        self.canvas.polygon([self.at(point) for point in points], fill)

    def tube(self, start: Point, end: Point, width: float, fill: Colour) -> None:
        radius = max(width * self.metre, 0.9) / 2
        self.canvas.capsule(self.at(start), self.at(end), radius, radius, fill)

    def ring(self, centre: Point, rx: float, ry: float, width: float, fill: Colour) -> None:
        stroke = max(width * self.metre, 0.9)
        self.canvas.ring(self.at(centre), rx * self.metre, ry * self.metre, stroke, fill)


def _reach(start: Point, length: float, angle: float, sideways: float) -> Point:
    """The far end of a bone that hangs at `angle` radians from straight down."""
    return (
        start[0] + length * math.sin(angle) * sideways,
        start[1] - length * math.cos(angle),
    )


@dataclass(frozen=True)
class _Pose:
    """Joint angles in radians from hanging straight, forward positive; near limb first."""

    hips: tuple[float, float]
    knees: tuple[float, float]
    shoulders: tuple[float, float]
    elbows: tuple[float, float]
    lean: float = 0.0


def _pose(rng: Random) -> _Pose:
    kind = rng.choice(("stand", "stand", "walk", "walk", "walk", "run", "reach", "carry", "crouch"))
    swing = rng.uniform(0.2, 0.5) * rng.choice((-1, 1))
    if kind == "walk":
        knees = (0.1 + max(0.0, -swing), 0.1 + max(0.0, swing))
        arm = swing * 0.9
        return _Pose((swing, -swing), knees, (-arm, arm), (0.3, 0.3), 0.04)
    if kind == "run":
        swing *= 1.7
        knees = (0.3 + max(0.0, -swing) * 1.3, 0.3 + max(0.0, swing) * 1.3)
        return _Pose((swing, -swing), knees, (-swing, swing), (1.5, 1.5), 0.2)
    if kind == "reach":
        raised = rng.uniform(1.4, 2.8)
        return _Pose((0.08, -0.08), (0.05, 0.05), (raised, 0.1), (0.3, 0.2))
    if kind == "carry":
        return _Pose((swing / 2, -swing / 2), (0.15, 0.15), (0.35, 0.35), (1.2, 1.2))
    if kind == "crouch":
        return _Pose((1.1, 0.7), (1.6, 1.5), (0.7, 0.4), (0.6, 0.5), 0.45)
    return _Pose((0.06, -0.06), (0.02, 0.02), (0.1, -0.08), (0.15, 0.15))


class _Head(NamedTuple):
    """Where a head is and where it looks: `facing` is -1 (left) or 1, `breadth` 0 to 1 (at us)."""

    centre: Point
    facing: int
    sideways: float
    breadth: float
    size: float


def _draw_head(
    figure: _Figure, rng: Random, at: _Head, skin: Colour, hair: Colour, top: Colour
) -> None:
    style = rng.choice(("short", "long", "cap", "hood", "back"))
    crown = (
        at.centre[0] - at.facing * 0.025 * abs(at.sideways) * at.size,
        at.centre[1] + 0.03 * at.size,
    )
    if style == "long":
        figure.limb(
            crown, (crown[0], at.centre[1] - 0.14 * at.size), 0.12 * at.size, 0.1 * at.size, hair
        )
    elif style == "hood":
        figure.disc(crown, 0.135 * at.size, 0.155 * at.size, shade(top, 0.85))
    else:
        figure.disc(crown, 0.114 * at.size, 0.125 * at.size, hair)
    if style == "back" and at.breadth > 0.3:
        figure.disc(at.centre, 0.1 * at.size, 0.125 * at.size, hair)
    else:
        face = (
            at.centre[0] + at.facing * 0.02 * abs(at.sideways) * at.size,
            at.centre[1] - 0.015 * at.size,
        )
        figure.disc(face, 0.092 * at.size, 0.115 * at.size, skin)
    if style == "cap":
        cap = shade(rng.choice(CLOTHES), 0.8)
        figure.disc(
            (at.centre[0], at.centre[1] + 0.075 * at.size), 0.11 * at.size, 0.07 * at.size, cap
        )
        brim = (
            at.centre[0] + at.facing * 0.16 * abs(at.sideways) * at.size,
            at.centre[1] + 0.06 * at.size,
        )
        figure.limb(
            (at.centre[0], at.centre[1] + 0.06 * at.size),
            brim,
            0.02 * at.size,
            0.015 * at.size,
            cap,
        )


def draw_person(view: View, x: float, z: float, rng: Random) -> Sprite:
    """A person of 1.5 to 1.92 metres: clothes, hair, a pose, now and then a bag or a box."""
    size = rng.uniform(1.5, 1.92) / 1.76
    turn = rng.choice((0.0, 0.5, 0.9, 1.3, math.pi / 2))
    sideways = max(0.22, abs(math.sin(turn))) * rng.choice((-1, 1))
    breadth = abs(math.cos(turn))
    build = rng.uniform(0.9, 1.18)
    pose = _pose(rng)
    skin, hair = rng.choice(SKIN), rng.choice(HAIR)
    top, bottom = rng.choice(CLOTHES), rng.choice(TROUSERS)
    shoe = rng.choice(((30, 28, 28), (90, 60, 40), (210, 210, 208)))
    sleeve = top if rng.random() < 0.75 else skin
    figure = _Figure(view, x, z, 1.0 * size, 2.45 * size)

    thigh, shin = 0.44 * size, 0.43 * size
    legs = []
    for hip, knee in zip(pose.hips, pose.knees, strict=True):
        joint = _reach((0.0, 0.0), thigh, hip, sideways)
        legs.append((joint, _reach(joint, shin, hip - knee, sideways)))
    hip_height = max(-ankle[1] for _, ankle in legs) + 0.07 * size
    hip_gap = (0.045 + 0.05 * breadth) * size
    lean = pose.lean * (1 if sideways > 0 else -1) * abs(sideways)
    torso = 0.52 * size
    neck = (torso * math.sin(lean), hip_height + torso * math.cos(pose.lean))
    shoulder_gap = (0.06 + 0.13 * breadth) * size * build
    facing = 1 if sideways > 0 else -1

    def leg(index: int, side: int, fill: Colour) -> None:
        knee, ankle = legs[index]
        start = (side * hip_gap, hip_height)
        joint = (start[0] + knee[0], start[1] + knee[1])
        end = (start[0] + ankle[0], start[1] + ankle[1])
        toe = (end[0] + 0.12 * size * sideways, end[1] - 0.035 * size)
        figure.limb((end[0], end[1] - 0.02 * size), toe, 0.045 * size, 0.035 * size, shoe)
        figure.limb(start, joint, 0.088 * size * build, 0.068 * size, fill)
        figure.limb(joint, end, 0.068 * size, 0.048 * size, fill)

    def arm(index: int, side: int, cloth: Colour) -> Point:
        start = (neck[0] + side * shoulder_gap, neck[1] - 0.05 * size)
        elbow = _reach(start, 0.28 * size, pose.shoulders[index], sideways)
        elbow = (elbow[0] + side * 0.03 * size, elbow[1])
        bend = pose.shoulders[index] + pose.elbows[index]
        wrist = _reach(elbow, 0.25 * size, bend, sideways)
        figure.limb(elbow, wrist, 0.043 * size, 0.035 * size, shade(sleeve, cloth[0] / 255))
        figure.limb(start, elbow, 0.058 * size * build, 0.045 * size, shade(top, cloth[0] / 255))
        figure.disc(wrist, 0.043 * size, 0.043 * size, skin)
        return wrist

    far, near = (190, 190, 190), (246, 246, 246)
    arm(1, -facing, far)
    leg(1, -1 if breadth > 0.3 else 0, shade(bottom, 0.78))
    leg(0, 1 if breadth > 0.3 else 0, bottom)
    if rng.random() < 0.22:
        pack = rng.choice(CLOTHES)
        back = (neck[0] - facing * (0.17 * abs(sideways)) * size, neck[1] - 0.22 * size)
        figure.disc(back, (0.1 + 0.06 * breadth) * size, 0.2 * size, shade(pack, 0.85))
    waist = (0.085 + 0.055 * breadth) * size * build
    hem = hip_height - rng.choice((0.04, 0.06, 0.25)) * size
    figure.shape(
        [
            (neck[0] - shoulder_gap, neck[1] - 0.02 * size),
            (neck[0] + shoulder_gap, neck[1] - 0.02 * size),
            (waist * 1.08, hip_height),
            (waist * 1.12, hem),
            (-waist * 1.12, hem),
            (-waist * 1.08, hip_height),
        ],
        top,
    )
    figure.disc((neck[0], neck[1] - 0.06 * size), shoulder_gap * 1.05, 0.085 * size, top)
    if rng.random() < 0.3:
        stripe = neck[1] - torso * 0.45
        band = (neck[0] * 0.6 + waist, stripe), (neck[0] * 0.6 - waist, stripe)
        figure.tube(*band, 0.07 * size, mix(top, (255, 255, 255), 0.6))

    head = (neck[0] + 0.02 * sideways * size + math.sin(lean) * 0.1, neck[1] + 0.17 * size)
    figure.limb(neck, head, 0.055 * size, 0.055 * size, shade(skin, 0.9))
    _draw_head(figure, rng, _Head(head, facing, sideways, breadth, size), skin, hair, top)

    hand = arm(0, facing, near)
    luggage = rng.random()
    if pose.elbows == (1.2, 1.2):
        reach = (hand[0] - neck[0]) * min(1.0, abs(sideways) * 1.2)
        centre = (neck[0] + reach, hand[1] + 0.04 * size)
        half = 0.17 * size
        figure.shape(
            [
                (centre[0] - half, centre[1] - half * 0.8),
                (centre[0] + half, centre[1] - half * 0.8),
                (centre[0] + half, centre[1] + half * 0.8),
                (centre[0] - half, centre[1] + half * 0.8),
            ],
            (186, 146, 98),
        )
    elif luggage < 0.15 and hand[1] < hip_height + 0.1:
        bag = rng.choice(CLOTHES)
        figure.disc((hand[0], hand[1] - 0.16 * size), 0.13 * size, 0.12 * size, shade(bag, 0.8))
    return figure.canvas.sprite().lit()


def draw_dog(view: View, x: float, z: float, rng: Random) -> Sprite:
    """A dog, 0.4 to 0.75 metres at the shoulder, that stands, walks or sits."""
    size = rng.uniform(0.42, 0.75)
    facing = rng.choice((-1, 1))
    sideways = facing * rng.uniform(0.7, 1.0)
    coat = rng.choice(COAT)
    patch = mix(coat, rng.choice(COAT), 0.7)
    dark = shade(coat, 0.72)
    girth = rng.uniform(0.17, 0.24) * size
    length = rng.uniform(0.95, 1.2) * size
    legs_radius = rng.uniform(0.05, 0.07) * size
    sitting = rng.random() < 0.22
    figure = _Figure(view, x, z, 1.25 * size, 1.6 * size)

    def at(along: float, up: float) -> Point:
        return along * sideways, up

    belly = 0.62 * size
    hip = at(-length / 2, belly * (0.42 if sitting else 1.0))
    chest = at(length / 2, belly * 1.08) if not sitting else at(length / 2.8, belly * 1.1)
    swing = rng.uniform(0.0, 0.5) * rng.choice((-1, 1))

    def leg(start: Point, angle: float, fill: Colour) -> None:
        knee = (start[0] + math.sin(angle) * start[1] * 0.5 * facing, start[1] * 0.5)
        foot = (knee[0] + math.sin(angle * 0.4) * start[1] * 0.4 * facing, legs_radius)
        figure.limb(start, knee, legs_radius * 1.7, legs_radius * 1.1, fill)
        figure.limb(knee, foot, legs_radius * 1.1, legs_radius * 0.9, fill)
        figure.limb(foot, (foot[0] + 0.05 * size * facing, foot[1]), *(legs_radius,) * 2, fill)

    tail_end = (
        hip[0] - 0.4 * size * sideways * rng.uniform(0.6, 1.1),
        hip[1] + size * rng.uniform(-0.1, 0.42),
    )
    figure.limb((hip[0], hip[1] + girth * 0.5), tail_end, 0.055 * size, 0.03 * size, coat)
    leg(chest, -swing, dark)
    if sitting:
        figure.disc((hip[0] + 0.05 * size * facing, girth * 1.1), girth * 1.25, girth * 1.1, coat)
        figure.limb((hip[0], legs_radius), at(0.05 * size, legs_radius), *(legs_radius,) * 2, dark)
    else:
        leg(hip, swing, dark)
    figure.limb(hip, chest, girth * 0.92, girth * 1.1, coat)
    if rng.random() < 0.5:
        middle = ((hip[0] + chest[0]) / 2, (hip[1] + chest[1]) / 2 + girth * 0.25)
        figure.disc(middle, girth * 1.1, girth * 0.65, patch)
    leg(chest, swing, coat)
    if not sitting:
        leg(hip, -swing, coat)
    neck = (chest[0] + 0.22 * size * sideways, chest[1] + 0.3 * size)
    figure.limb(chest, neck, girth * 0.85, girth * 0.6, coat)
    collar = ((chest[0] + neck[0]) / 2, (chest[1] + neck[1]) / 2)
    figure.disc(collar, girth * 0.74, girth * 0.3, rng.choice(CLOTHES))
    skull = (neck[0] + 0.05 * size * facing, neck[1] + 0.05 * size)
    figure.disc(skull, 0.16 * size, 0.14 * size, coat)
    nose = (skull[0] + 0.25 * size * sideways, skull[1] - 0.05 * size)
    figure.limb(skull, nose, 0.09 * size, 0.055 * size, mix(coat, patch, 0.5))
    figure.disc(nose, 0.04 * size, 0.035 * size, (24, 20, 20))
    figure.disc((skull[0] + 0.06 * size * facing, skull[1] + 0.04 * size), *(0.022 * size,) * 2,
                (20, 16, 14))  # fmt: skip
    ear = (skull[0] - 0.06 * size * facing, skull[1] + 0.1 * size)
    if rng.random() < 0.5:
        figure.limb(ear, (ear[0], ear[1] - 0.16 * size), 0.06 * size, 0.05 * size, patch)
    else:
        figure.shape(
            [
                (ear[0] - 0.06 * size, ear[1] - 0.03 * size),
                (ear[0], ear[1] + 0.15 * size),
                (ear[0] + 0.07 * size, ear[1] - 0.02 * size),
            ],
            shade(patch, 0.85),
        )
    return figure.canvas.sprite().lit()


def draw_bicycle(view: View, x: float, z: float, rng: Random) -> Sprite:
    """A parked bicycle, 1.55 to 1.8 metres long, seen from the side or at an angle."""
    facing = rng.choice((-1, 1))
    across = facing * rng.uniform(0.6, 1.0)
    size = rng.uniform(0.92, 1.06)
    paint = rng.choice(CLOTHES)
    radius = 0.345 * size
    figure = _Figure(view, x, z, 1.0, 1.25)
    rear, front = (-0.53 * size * across, radius), (0.53 * size * across, radius)

    def at(along: float, up: float) -> Point:
        return along * size * across, up * size

    for hub in (rear, front):
        for spoke in range(6):
            angle = math.pi * spoke / 6 + 0.3
            dx, dy = radius * math.cos(angle) * abs(across), radius * math.sin(angle)
            ends = (hub[0] - dx, hub[1] - dy), (hub[0] + dx, hub[1] + dy)
            figure.tube(*ends, 0.008, (146, 148, 152))
        figure.ring(hub, radius * abs(across), radius, 0.05, RUBBER)
        figure.disc(hub, 0.04 * abs(across), 0.04, METAL)
    crank, seat = at(-0.06, 0.3), at(-0.2, 0.82)
    head, stem = at(0.36, 0.8), at(0.33, 0.95)
    fork = at(0.4, 0.66)
    figure.tube(rear, crank, 0.035, paint)
    figure.tube(rear, seat, 0.028, paint)
    figure.tube(front, fork, 0.038, shade(paint, 0.8))
    figure.tube(fork, stem, 0.04, shade(paint, 0.9))
    figure.tube(crank, head, 0.048, paint)
    figure.tube(crank, seat, 0.045, paint)
    if rng.random() < 0.7:
        figure.tube(at(-0.18, 0.76), head, 0.042, paint)
    else:
        figure.tube(at(-0.12, 0.52), head, 0.042, paint)
    figure.tube(seat, at(-0.23, 0.9), 0.03, METAL)
    figure.limb(at(-0.36, 0.93), at(-0.12, 0.92), 0.045, 0.028, (34, 30, 30))
    handle = (stem[0] + rng.uniform(0.02, 0.16) * facing, stem[1] + rng.uniform(0.02, 0.1))
    figure.tube(stem, handle, 0.03, METAL)
    figure.limb(handle, (handle[0] - 0.12 * facing, handle[1] + 0.01), 0.026, 0.024, RUBBER)
    figure.ring(crank, 0.09 * abs(across), 0.09, 0.02, (70, 70, 74))
    figure.tube(crank, at(0.06, 0.16), 0.022, (60, 60, 64))
    figure.limb(at(0.02, 0.15), at(0.12, 0.15), 0.02, 0.02, RUBBER)
    if rng.random() < 0.35:
        basket = [at(0.36, 0.7), at(0.62, 0.72), at(0.66, 0.94), at(0.34, 0.94)]
        figure.shape(basket, (150, 116, 76))
    if rng.random() < 0.5:
        figure.tube(at(-0.8, 0.72), at(-0.3, 0.72), 0.035, (70, 70, 74))
    return figure.canvas.sprite()


@dataclass(frozen=True)
class _Body:
    """A car's side profile, from the rear bumper over the roof to the front bumper, metres.

    `profile` holds (along, up); `glass` the indices of the stretches of it that are windows, and
    `cabin` the first and last index of the stretch above the belt line.
    """

    profile: tuple[Point, ...]
    glass: tuple[int, ...]
    cabin: tuple[int, int]
    axles: tuple[float, float]
    width: float
    panes: int


BODIES: tuple[_Body, ...] = (
    _Body(  # saloon
        ((-2.2, 0.2), (-2.22, 0.7), (-2.1, 0.96), (-1.5, 1.02), (-0.95, 1.44), (0.4, 1.46),
         (1.05, 1.0), (2.0, 0.84), (2.2, 0.62), (2.18, 0.2)),
        (3, 5), (3, 6), (-1.32, 1.38), 1.78, 2,
    ),
    _Body(  # hatchback
        ((-1.9, 0.2), (-1.95, 0.75), (-1.85, 1.02), (-1.55, 1.5), (0.35, 1.52), (1.05, 1.02),
         (1.8, 0.86), (1.95, 0.6), (1.92, 0.2)),
        (2, 4), (2, 5), (-1.2, 1.2), 1.74, 2,
    ),
    _Body(  # off-roader
        ((-2.2, 0.27), (-2.24, 0.85), (-2.18, 1.15), (-1.95, 1.72), (0.45, 1.76), (1.0, 1.2),
         (2.05, 1.08), (2.22, 0.8), (2.2, 0.27)),
        (2, 4), (2, 5), (-1.35, 1.4), 1.9, 3,
    ),
    _Body(  # van
        ((-2.4, 0.25), (-2.45, 0.9), (-2.44, 1.2), (-2.4, 2.0), (1.1, 2.02), (1.9, 1.2),
         (2.35, 1.0), (2.45, 0.7), (2.42, 0.25)),
        (4,), (2, 5), (-1.5, 1.6), 1.95, 1,
    ),
)  # fmt: skip


class _Car:
    """A car as a solid in perspective; the arguments are those of `draw_car`."""

    def __init__(
        self, view: View, x: float, z: float, rng: Random, yaw: float, size: float
    ) -> None:
        self._view, self._x, self._z, self._size = view, x, z, size
        self._body = rng.choice(BODIES)
        self._paint = rng.choice(PAINT)
        self._length, self._height = rng.uniform(0.94, 1.06) * size, rng.uniform(0.97, 1.05) * size
        self._half = self._body.width / 2 * size
        self._belt = self._body.profile[self._body.cabin[0]][1] * self._height
        self._roof = max(up for _, up in self._body.profile) * self._height
        self._cos, self._sin = math.cos(yaw), math.sin(yaw)
        self._profile = [
            (along * self._length, up * self._height) for along, up in self._body.profile
        ]
        corners = [self._world(along, up, side) for along, up in self._profile for side in (-1, 1)]
        ground = [self._world(along, 0.0, side) for along, _ in self._profile for side in (-1, 1)]
        flat = np.array(self._view.project(corners + ground))
        self._canvas = Canvas(
            (
                flat[:, 0].min() - 2,
                flat[:, 1].min() - 2,
                flat[:, 0].max() + 2,
                flat[:, 1].max() + 2,
            ),
            oversample=oversampling(float(np.ptp(flat[:, 1])) * 1.4),
        )
        self._eye = np.array([0.0, self._view.mount, 0.0])
        self._sun = np.array([-0.35, 0.85, -0.4])
        self._faces: list[tuple[float, Callable[[], None]]] = []

    def _world(self, along: float, up: float, side: float) -> tuple[float, float, float]:
        """Car coordinates (already sized, metres) in the world; `side` is -1 (right) to 1."""
        inward = 1.0 - 0.24 * max(0.0, up - self._belt) / (self._roof - self._belt)
        offset = side * self._half * inward
        return (
            self._x + along * self._cos - offset * self._sin,
            up,
            self._z + along * self._sin + offset * self._cos,
        )

    def _lighting(self, normal: NDArray[np.float64]) -> float:
        return float(0.62 + 0.48 * max(0.0, float(normal @ self._sun)))

    def _patch(self, points: list[tuple[float, float, float]], fill: Colour) -> None:
        self._canvas.polygon(self._view.project(points), fill)

    def _strip(self, index: int) -> None:
        (a0, u0), (a1, u1) = self._profile[index], self._profile[index + 1]
        quad = [
            self._world(a0, u0, -1),
            self._world(a0, u0, 1),
            self._world(a1, u1, 1),
            self._world(a1, u1, -1),
        ]
        corner = np.array(quad)
        normal = np.cross(corner[1] - corner[0], corner[3] - corner[0])
        normal /= np.linalg.norm(normal)
        middle = corner.mean(axis=0)
        if normal @ (self._eye - middle) <= 0:
            return

        def draw() -> None:
            self._patch(quad, shade(self._paint, self._lighting(normal)))
            if index in self._body.glass:
                pane = [
                    self._world(a0 + (a1 - a0) * t, u0 + (u1 - u0) * t, side)
                    for t, side in ((0.08, -0.88), (0.08, 0.88), (0.9, 0.86), (0.9, -0.86))
                ]
                self._patch(pane, shade(GLASS, 0.7 + 0.5 * self._lighting(normal)))
            self._lamps(index)

        self._faces.append((float(np.linalg.norm(middle - self._eye)), draw))

    def _lamps(self, index: int) -> None:
        last = len(self._profile) - 2
        if index not in (0, 1, last - 1, last):
            return
        ahead = index >= last - 1
        (a0, u0), (a1, u1) = self._profile[index], self._profile[index + 1]
        if index in (1, last - 1):
            colour: Colour = (246, 240, 214) if ahead else (186, 30, 28)
            for inner, outer in ((-0.94, -0.6), (0.6, 0.94)):
                self._patch(
                    [
                        self._world(a0 + (a1 - a0) * t, u0 + (u1 - u0) * t, side)
                        for t, side in ((0.1, inner), (0.1, outer), (0.75, outer), (0.75, inner))
                    ],
                    colour,
                )
        else:
            for low, high, reach, colour in (
                (0.05, 0.3, 0.96, (44, 46, 50)),
                (0.42, 0.68, 0.3, (232, 230, 214)),
            ):
                self._patch(
                    [
                        self._world(a0 + (a1 - a0) * t, u0 + (u1 - u0) * t, side)
                        for t, side in ((low, -reach), (low, reach), (high, reach), (high, -reach))
                    ],
                    colour,
                )

    def _flank(self, side: int) -> None:
        outward = np.array([-self._sin * side, 0.1, self._cos * side])
        middle = np.array(self._world(0.0, 0.6 * self._height, side))
        if outward @ (self._eye - middle) <= 0:
            return

        def draw() -> None:
            light = self._lighting(outward)
            self._patch(
                [self._world(along, up, side) for along, up in self._profile],
                shade(self._paint, light),
            )
            first, last = self._body.cabin
            cabin = self._profile[first : last + 1]
            centre = sum(a for a, _ in cabin) / len(cabin), sum(u for _, u in cabin) / len(cabin)
            window = [
                (centre[0] + (a - centre[0]) * 0.84, centre[1] + (u - centre[1]) * 0.74)
                for a, u in cabin
            ]
            if self._body.panes == 1:
                front = max(a for a, _ in window)
                window = [(max(a, front - 1.25 * self._size), u) for a, u in window]
            self._patch(
                [self._world(a, u, side) for a, u in window], shade(GLASS, 0.75 + 0.4 * light)
            )
            left, right = min(a for a, _ in window), max(a for a, _ in window)
            for pane in range(1, self._body.panes):
                post = left + (right - left) * (pane / self._body.panes + 0.03)
                w = 0.045 * self._size
                self._patch(
                    [
                        self._world(post - w, self._belt, side),
                        self._world(post + w, self._belt, side),
                        self._world(post + w, self._roof * 0.99, side),
                        self._world(post - w, self._roof * 0.99, side),
                    ],
                    shade(self._paint, light * 0.92),
                )
            sill = self._profile[0][1]
            self._patch(
                [
                    self._world(self._profile[0][0], sill, side),
                    self._world(self._profile[-1][0], sill, side),
                    self._world(self._profile[-1][0], sill + 0.12 * self._size, side),
                    self._world(self._profile[0][0], sill + 0.12 * self._size, side),
                ],
                shade(self._paint, light * 0.6),
            )
            for axle in self._body.axles:
                for radius, fill in ((0.41, (20, 20, 22)), (0.34, RUBBER), (0.2, METAL)):
                    wheel = [
                        self._world(
                            axle * self._length + radius * self._size * math.cos(turn),
                            max(0.0, 0.34 * self._size + radius * self._size * math.sin(turn))
                            if radius < 0.4
                            else max(
                                0.2 * self._size,
                                0.34 * self._size + radius * self._size * math.sin(turn),
                            ),
                            side * (1.01 if radius < 0.4 else 1.0),
                        )
                        for turn in np.linspace(0, 2 * math.pi, 20, endpoint=False)
                    ]
                    self._patch(wheel, fill)

        self._faces.append((float(np.linalg.norm(middle - self._eye)), draw))

    def _draw_wheels_below(self) -> None:
        for along in self._body.axles:
            for side in (-0.95, 0.95):
                tread = [
                    self._world(along * self._length + r, up, s)
                    for r, up, s in (
                        (-0.3 * self._size, 0.0, side),
                        (0.3 * self._size, 0.0, side),
                        (0.3 * self._size, 0.4 * self._size, side),
                        (-0.3 * self._size, 0.4 * self._size, side),
                    )
                ]
                self._patch(tread, (16, 16, 18))
                front_tread = [
                    self._world(along * self._length, up, s)
                    for up, s in (
                        (0.0, side),
                        (0.0, side * 0.78),
                        (0.4 * self._size, side * 0.78),
                        (0.4 * self._size, side),
                    )
                ]
                self._patch(front_tread, (16, 16, 18))

    def sprite(self) -> Sprite:
        """The drawing."""
        self._draw_wheels_below()
        for index in range(len(self._profile) - 1):
            self._strip(index)
        for side in (-1, 1):
            self._flank(side)
        for _, draw in sorted(self._faces, key=lambda face: -face[0]):
            draw()
        return self._canvas.sprite()


def draw_car(
    view: View, x: float, z: float, rng: Random, *, yaw: float, size: float = 1.0
) -> Sprite:
    """A car as a solid in perspective.

    Args:
      yaw: radians; 0 points the bonnet to the right, pi / 2 away from the camera.
      size: 1 for a real car, about 0.3 for one to ride on in a hall.
    """
    return _Car(view, x, z, rng, yaw, size).sprite()
