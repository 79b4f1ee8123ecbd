"""Trains the bundled detector on freshly drawn scenes and exports it.

    python -m tools.samples.train_detector [--output DIR] [--steps N] [--scenes N]

The detector is a small anchor-free single-shot network after CenterNet (Zhou et al. 2019, "Objects
as Points") with TTFNet's elliptic targets (Liu et al. 2020): one heat map for each class on a grid
of 8 pixels, and at each peak the distances to the four sides of the box. It is exported with the
signature of the TensorFlow Object Detection API, suppression included.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from beam_pipeline.bundled import BUNDLED_MODEL
from tools.samples.scenes import COCO_IDS, Scene, random_scenes
from transforms.images.jpeg import decode_letterboxed, read_header

SIZE = 320
"""Side of the square input, pixels."""
STRIDE = 8
GRID = SIZE // STRIDE
LABELS: tuple[str, ...] = tuple(COCO_IDS)
CANDIDATES = 80
MAX_DETECTIONS = 50
MIN_SCORE = 0.01

TRAIN_SEED, CALIBRATION_SEED, HELD_OUT_SEED = 1_000, 500_000, 900_000
CROP = 192
"""Side of the crops that most of the training sees, pixels; a multiple of 32."""
CROP_BATCH, BATCH = 20, 12
CROP_SHARE = 0.7
"""Of the training's steps, the first ones, that see crops; the rest see whole inputs."""

Floats = NDArray[np.float32]


def letterbox(data: bytes) -> NDArray[np.uint8]:
    """A JPEG as the job gives it to the detector, shape (SIZE, SIZE, 3), RGB."""
    return decode_letterboxed(read_header(data), (SIZE, SIZE)).pixels


@dataclass(frozen=True)
class Examples:
    """Letterboxed scenes and their truth.

    Attributes:
      images: uint8, shape (n, SIZE, SIZE, 3).
      boxes: for each image float32, shape (k, 4): x_min, y_min, x_max, y_max in input pixels.
      classes: for each image int64, shape (k,): indices into `LABELS`.
    """

    images: NDArray[np.uint8]
    boxes: tuple[Floats, ...]
    classes: tuple[NDArray[np.int64], ...]


def _example(
    scene: Scene, rng: random.Random
) -> tuple[NDArray[np.uint8], Floats, NDArray[np.int64]]:
    buffer = io.BytesIO()
    grey = rng.random() < 0.1
    scene.image.convert("L" if grey else "RGB").save(
        buffer, "JPEG", quality=rng.randrange(45, 92), progressive=rng.random() < 0.1
    )
    scale = SIZE / max(scene.image.size)
    boxes = np.array(
        [(b.x, b.y, b.x + b.width, b.y + b.height) for b in scene.boxes], np.float32
    ).reshape(-1, 4)
    classes = np.array([LABELS.index(b.label) for b in scene.boxes], np.int64)
    return letterbox(buffer.getvalue()), boxes * np.float32(scale), classes


def _chunk(job: tuple[int, int]) -> list[tuple[NDArray[np.uint8], Floats, NDArray[np.int64]]]:
    seed, count = job
    rng = random.Random(seed)
    return [_example(scene, rng) for scene in random_scenes(seed, count)]


def draw_examples(seed: int, count: int, *, processes: int = 2) -> Examples:
    """`count` examples; the same seed gives the same, whatever the number of processes."""
    jobs = [(seed + part, min(48, count - 48 * part)) for part in range(-(-count // 48))]
    if processes > 1:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            chunks = pool.map(_chunk, jobs, chunksize=1)
    else:
        chunks = [_chunk(job) for job in jobs]
    rows = [row for chunk in chunks for row in chunk]
    return Examples(
        np.stack([row[0] for row in rows]),
        tuple(row[1] for row in rows),
        tuple(row[2] for row in rows),
    )


# --- network --------------------------------------------------------------------------------------


def build_network(*, folded: bool) -> tf.keras.Model:
    """The network: (n, SIZE, SIZE, 3) of 0 to 255 to (n, GRID, GRID, classes + 4).

    For training it takes inputs of any size that is a multiple of 32.

    The output's first channels are class logits, the last four the logarithms of the distances from
    the cell's middle to the left, top, right and bottom of the box, in cells.

    Args:
      folded: batch normalisation is folded into the convolutions, for use; otherwise it stands
        after each of them, for training.
    """
    layers = tf.keras.layers

    def conv(x: Any, width: int, kernel: int, stride: int = 1, relu: bool = True) -> Any:
        x = layers.Conv2D(width, kernel, stride, "same", use_bias=folded)(x)
        if not folded:
            x = layers.BatchNormalization(momentum=0.95, epsilon=1e-3)(x)
        return layers.ReLU()(x) if relu else x

    def block(x: Any, width: int) -> Any:
        inner = conv(conv(x, width // 2, 1), width, 3, relu=False)
        return layers.ReLU()(layers.Add()([x, inner]))

    pixels = layers.Input((SIZE, SIZE, 3) if folded else (None, None, 3))
    x = layers.Rescaling(1 / 64, offset=-2.0)(pixels)
    x = conv(x, 32, 4, 4)
    x = conv(x, 48, 3, 2)
    x = fine = block(block(x, 48), 48)
    x = conv(x, 96, 3, 2)
    x = middle = block(block(x, 96), 96)
    x = conv(x, 128, 3, 2)
    x = block(block(x, 128), 128)
    x = layers.UpSampling2D(2, interpolation="nearest")(conv(x, 64, 1))
    x = layers.Add()([x, conv(middle, 64, 1)])
    x = block(layers.ReLU()(x), 64)
    x = layers.UpSampling2D(2, interpolation="nearest")(conv(x, 48, 1))
    x = layers.Add()([x, conv(fine, 48, 1)])
    x = conv(layers.ReLU()(x), 64, 3)
    heat = layers.Conv2D(
        len(LABELS), 1, bias_initializer=tf.keras.initializers.Constant(-3.5), name="heat"
    )(x)
    sides = layers.Conv2D(4, 1, bias_initializer=tf.keras.initializers.Constant(0.7), name="sides")(
        x
    )
    return tf.keras.Model(pixels, layers.Concatenate()([heat, sides]))


def fold(trained: tf.keras.Model) -> tf.keras.Model:
    """The network with its batch normalisation folded into the convolutions before it."""
    target = build_network(folded=True)
    convolutions = [x for x in target.layers if isinstance(x, tf.keras.layers.Conv2D)]
    sources = [x for x in trained.layers if isinstance(x, tf.keras.layers.Conv2D)]
    norms = {
        norm.input.name: norm
        for norm in trained.layers
        if isinstance(norm, tf.keras.layers.BatchNormalization)
    }
    for source, destination in zip(sources, convolutions, strict=True):
        norm = norms.get(source.output.name)
        if norm is None:
            destination.set_weights(source.get_weights())
            continue
        gamma, beta, mean, variance = norm.get_weights()
        gain = gamma / np.sqrt(variance + norm.epsilon)
        destination.set_weights([source.get_weights()[0] * gain, beta - mean * gain])
    return target


class Detector(tf.Module):
    """The exported module: letterboxed pixels in, the Object Detection API's tensors out."""

    def __init__(self, network: tf.keras.Model) -> None:
        super().__init__()
        self.network = network

    @tf.function(
        input_signature=[tf.TensorSpec([None, SIZE, SIZE, 3], tf.uint8, name="input_tensor")]
    )
    def __call__(self, input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        out = self.network(tf.cast(input_tensor, tf.float32), training=False)
        heat = tf.sigmoid(out[..., : len(LABELS)])
        peaks = tf.where(tf.equal(tf.nn.max_pool2d(heat, 3, 1, "SAME"), heat), heat, 0.0)
        batch = tf.shape(heat)[0]
        scores, index = tf.math.top_k(tf.reshape(peaks, [batch, -1]), CANDIDATES)
        cell, label = index // len(LABELS), index % len(LABELS)
        sides = tf.reshape(out[..., len(LABELS) :], [batch, GRID * GRID, 4])
        reach = tf.exp(tf.clip_by_value(tf.gather(sides, cell, batch_dims=1), -3.0, 4.0))
        x = tf.cast(cell % GRID, tf.float32) + 0.5
        y = tf.cast(cell // GRID, tf.float32) + 0.5
        left, top, right, bottom = tf.unstack(reach, axis=-1)
        boxes = tf.stack([y - top, x - left, y + bottom, x + right], axis=-1) / GRID
        found = tf.image.combined_non_max_suppression(
            boxes[:, :, None, :],
            tf.one_hot(label, len(LABELS)) * scores[..., None],
            max_output_size_per_class=MAX_DETECTIONS,
            max_total_size=MAX_DETECTIONS,
            iou_threshold=0.6,
            score_threshold=MIN_SCORE,
        )
        ids = tf.constant([COCO_IDS[label] for label in LABELS], tf.float32)
        real = tf.sequence_mask(found.valid_detections, MAX_DETECTIONS, tf.float32)
        return {
            "detection_boxes": found.nmsed_boxes,
            "detection_scores": found.nmsed_scores,
            "detection_classes": tf.gather(ids, tf.cast(found.nmsed_classes, tf.int32)) * real,
            "num_detections": tf.cast(found.valid_detections, tf.float32),
        }


# --- training -------------------------------------------------------------------------------------


def targets(boxes: Floats, classes: NDArray[np.int64], grid: int = GRID) -> Floats:
    """What the network shall say of one image, shape (grid, grid, classes + 5).

    Channels: the heat map of each class, the four distances (cells), the weight of the distances.
    """
    out = np.zeros((grid, grid, len(LABELS) + 5), np.float32)
    out[..., len(LABELS) : -1] = 1.0
    middle = np.arange(grid, dtype=np.float32) + 0.5
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for index in np.argsort(-area):
        x0, y0, x1, y1 = boxes[index] / STRIDE
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        column, row = min(int(cx), grid - 1), min(int(cy), grid - 1)
        sigma_x, sigma_y = max(0.09 * (x1 - x0), 0.32), max(0.09 * (y1 - y0), 0.32)
        bell = np.exp(
            -(((middle - column - 0.5) / sigma_x) ** 2)[None, :] / 2
            - (((middle - row - 0.5) / sigma_y) ** 2)[:, None] / 2
        )
        heat = out[..., classes[index]]
        np.maximum(heat, bell, out=heat)
        across, down = middle[None, :], middle[:, None]
        sides = np.stack(np.broadcast_arrays(across - x0, down - y0, x1 - across, y1 - down), -1)
        inside = (sides.min(axis=-1) > 0.05) & (bell > 0.25)
        inside[row, column] = True
        out[inside, len(LABELS) : -1] = np.maximum(sides[inside], 0.05)
        out[inside, -1] = bell[inside]
    return out


def loss(output: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """CenterNet's penalty-reduced focal loss, and the generalised IoU of the boxes at objects."""
    classes = len(LABELS)
    logits, goal = output[..., :classes], target[..., :classes]
    chance = tf.clip_by_value(tf.sigmoid(logits), 1e-5, 1 - 1e-5)
    centre = tf.cast(goal > 0.999, tf.float32)
    hit = centre * (1 - chance) ** 2 * tf.math.log(chance)
    miss = (1 - centre) * (1 - goal) ** 4 * chance**2 * tf.math.log(1 - chance)
    focal = -tf.reduce_sum(hit + miss) / tf.maximum(tf.reduce_sum(centre), 1.0)

    weight = target[..., -1]
    got, want = tf.exp(tf.clip_by_value(output[..., classes:], -3.0, 4.0)), target[..., classes:-1]

    def area(sides: tf.Tensor) -> tf.Tensor:
        return (sides[..., 0] + sides[..., 2]) * (sides[..., 1] + sides[..., 3])

    shared, hull = area(tf.minimum(got, want)), area(tf.maximum(got, want))
    union = area(got) + area(want) - shared
    giou = shared / union - (hull - union) / hull
    return focal + 2.5 * tf.reduce_sum(weight * (1 - giou)) / tf.maximum(tf.reduce_sum(weight), 1.0)


def _crop(
    boxes: Floats, rng: np.random.Generator
) -> tuple[tuple[int, int], Floats, NDArray[np.bool_]]:
    """A window of CROP pixels, mostly around an object: its left and top, the boxes in it, and
    which of `boxes` are seen well enough to count."""
    if len(boxes) and rng.random() < 0.85:
        x0, y0, x1, y1 = boxes[rng.integers(len(boxes))]
        centre = np.array([x0 + x1, y0 + y1]) / 2 + rng.uniform(-0.35, 0.35, 2) * CROP
    else:
        centre = rng.uniform(0, 1, 2) * np.array([SIZE, 0.75 * SIZE])
    left, top = np.clip(centre - CROP / 2, 0, SIZE - CROP).astype(int)
    moved = boxes - np.array([left, top, left, top], np.float32)
    clipped = np.clip(moved, 0, CROP)
    area = np.prod(moved[:, 2:] - moved[:, :2], axis=1)
    seen = np.prod(clipped[:, 2:] - clipped[:, :2], axis=1)
    kept = seen > 0.45 * area
    return (int(left), int(top)), clipped[kept], kept


def _batch(
    examples: Examples, chosen: NDArray[np.int64], rng: np.random.Generator, *, crop: bool
) -> tuple[NDArray[np.uint8], Floats, Floats]:
    """Images or crops of them, half of them mirrored, and their targets; the light to see them in,
    as gain and offset of each channel, shape (n, 2, 3)."""
    images, goals = [], []
    for index in chosen:
        image, classes = examples.images[index], examples.classes[index]
        boxes = examples.boxes[index].copy()
        if rng.random() < 0.5:
            image = image[:, ::-1]
            boxes[:, [0, 2]] = SIZE - boxes[:, [2, 0]]
        if crop:
            (left, top), boxes, kept = _crop(boxes, rng)
            image, classes = image[top : top + CROP, left : left + CROP], classes[kept]
        images.append(image)
        goals.append(targets(boxes, classes, len(image) // STRIDE))
    gain = rng.uniform(0.75, 1.3, (len(chosen), 1)) * rng.uniform(0.94, 1.06, (len(chosen), 3))
    offset = np.repeat(rng.uniform(-12, 12, (len(chosen), 1)), 3, axis=1)
    return np.stack(images), np.stack(goals), np.stack([gain, offset], 1).astype(np.float32)


def _batches(
    examples: Examples, steps: int, seed: int
) -> Iterator[tuple[NDArray[np.uint8], Floats, Floats]]:
    """`steps` batches, each made while the one before it is learnt from."""
    rng = np.random.default_rng(seed)
    count = len(examples.images)
    order = np.concatenate([rng.permutation(count) for _ in range(steps * CROP_BATCH // count + 1)])
    crops = round(CROP_SHARE * steps)
    ends = np.cumsum([CROP_BATCH] * crops + [BATCH] * (steps - crops))

    def make(number: int) -> tuple[NDArray[np.uint8], Floats, Floats]:
        crop = number < crops
        start = ends[number] - (CROP_BATCH if crop else BATCH)
        return _batch(examples, order[start : ends[number]], rng, crop=crop)

    with ThreadPoolExecutor(1) as worker:
        waiting = worker.submit(make, 0)
        for number in range(steps):
            ready = waiting.result()
            if number + 1 < steps:
                waiting = worker.submit(make, number + 1)
            yield ready


def train(examples: Examples, *, steps: int, seed: int = 7) -> tf.keras.Model:
    """The network after `steps` batches of AdamW, its learning rate a warm-up and a cosine.

    Crops around objects come first, because they teach more in the same time: an object fills more
    of them, and none of it is padding. Whole inputs come last, as the job will give them.
    """
    tf.keras.utils.set_random_seed(seed)
    network = build_network(folded=False)
    rate = tf.keras.optimizers.schedules.CosineDecay(
        1e-4, steps - 60, alpha=0.01, warmup_target=3e-3, warmup_steps=60
    )
    optimizer = tf.keras.optimizers.AdamW(rate, weight_decay=2e-3, clipnorm=10.0)
    optimizer.build(network.trainable_variables)

    @tf.function(reduce_retracing=True)
    def step(images: tf.Tensor, goals: tf.Tensor, light: tf.Tensor) -> tf.Tensor:
        gain, offset = light[:, 0, None, None], light[:, 1, None, None]
        images = tf.clip_by_value(tf.cast(images, tf.float32) * gain + offset, 0.0, 255.0)
        with tf.GradientTape() as tape:
            value = loss(network(images, training=True), goals)
        gradients = tape.gradient(value, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        return value

    began = time.monotonic()
    recent: list[float] = []
    for number, batch in enumerate(_batches(examples, steps, seed), start=1):
        recent.append(float(step(*map(tf.constant, batch))))
        if number % 100 == 0:
            passed = f"{time.monotonic() - began:.0f} s"
            print(f"step {number}/{steps}  loss {np.mean(recent):.3f}  {passed}", flush=True)
            recent = []
    return network


# --- judging --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Detections:
    """What was found in one image: boxes (k, 4) as x_min, y_min, x_max, y_max in input pixels,
    scores (k,) descending, classes (k,) as indices into `LABELS`."""

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]


def detect(detector: Any, images: NDArray[np.uint8], *, batch: int = 16) -> list[Detections]:
    """What a detector with the exported signature finds in letterboxed images."""
    index = {COCO_IDS[label]: place for place, label in enumerate(LABELS)}
    found: list[Detections] = []
    for start in range(0, len(images), batch):
        out = detector(input_tensor=tf.constant(images[start : start + batch]))
        rows = zip(
            out["detection_boxes"].numpy(),
            out["detection_scores"].numpy(),
            out["detection_classes"].numpy(),
            out["num_detections"].numpy(),
            strict=True,
        )
        for boxes, scores, classes, number in rows:
            count = int(number)
            found.append(
                Detections(
                    boxes[:count][:, [1, 0, 3, 2]] * np.float32(SIZE),
                    scores[:count],
                    np.array([index[int(c)] for c in classes[:count]], np.int64),
                )
            )
    return found


def iou(first: Floats, second: Floats) -> Floats:
    """Intersection over union of each box of (m, 4) with each of (n, 4), shape (m, n)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    area = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) for boxes in (first, second)]
    union = area[0][:, None] + area[1][None, :] - shared
    return np.asarray(shared / np.maximum(union, 1e-9), np.float32)


@dataclass(frozen=True)
class Curve:
    """All detections of one class over a set, best score first.

    `right[i]` tells whether the detection with `scores[i]` is the first at an IoU of 0.5 or more
    with a true box; `truths` counts the true boxes.
    """

    scores: Floats
    right: NDArray[np.bool_]
    truths: int

    def average_precision(self) -> float:
        """COCO's average precision: precision made monotonic, read at 101 values of recall."""
        hits = np.cumsum(self.right)
        recall = hits / max(self.truths, 1)
        precision = hits / np.maximum(np.arange(len(hits)) + 1, 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
        return float(np.where(at < len(hits), np.append(precision, 0.0)[at], 0.0).mean())

    def at(self, threshold: float) -> tuple[float, float]:
        """Precision and recall of the detections of at least `threshold`."""
        kept = self.right[self.scores >= threshold]
        return float(kept.sum() / max(len(kept), 1)), float(kept.sum() / max(self.truths, 1))

    def best_threshold(self) -> float:
        """The score in the middle of the gap after which F1 is highest."""
        hits = np.cumsum(self.right)
        f1 = 2 * hits / (np.arange(len(hits)) + 1 + self.truths)
        best = int(np.argmax(f1))
        below = self.scores[best + 1] if best + 1 < len(self.scores) else MIN_SCORE
        return float(self.scores[best] + below) / 2


def curves(found: Sequence[Detections], examples: Examples) -> dict[str, Curve]:
    """Matches detections with truth at IoU 0.5, greedily from the best score, for each label."""
    out: dict[str, Curve] = {}
    for place, label in enumerate(LABELS):
        scores: list[float] = []
        right: list[bool] = []
        truths = 0
        for detections, boxes, classes in zip(found, examples.boxes, examples.classes, strict=True):
            true = boxes[classes == place]
            mine = detections.classes == place
            truths += len(true)
            free = np.ones(len(true), bool)
            overlap = iou(detections.boxes[mine], true)
            for row, score in zip(overlap, detections.scores[mine], strict=True):
                row = np.where(free, row, 0.0)
                hit = bool(len(row)) and bool(row.max() >= 0.5)
                if hit:
                    free[int(row.argmax())] = False
                scores.append(float(score))
                right.append(hit)
        order = np.argsort(-np.array(scores), kind="stable")
        out[label] = Curve(
            np.array(scores, np.float32)[order], np.array(right, bool)[order], truths
        )
    return out


def calibrate(network: tf.keras.Model, examples: Examples) -> None:
    """Shifts each class's logits so that the score of the best F1 on `examples` becomes 0.5."""
    heat = network.get_layer("heat")
    kernel, bias = heat.get_weights()
    judged = curves(detect(Detector(network), examples.images), examples)
    shift = [np.log(t / (1 - t)) for t in (judged[label].best_threshold() for label in LABELS)]
    heat.set_weights([kernel, bias - np.array(shift, np.float32)])


def report(judged: dict[str, Curve]) -> float:
    """Prints AP50, and precision and recall at a score of 0.5; returns the mean AP50."""
    aps = []
    print("label     AP50   precision  recall   (at score 0.5)  truths")
    for label, curve in judged.items():
        aps.append(curve.average_precision())
        precision, recall = curve.at(0.5)
        print(f"{label:8}  {aps[-1]:.3f}  {precision:.3f}      {recall:.3f}  {curve.truths:22}")
    print(f"mean AP50 {np.mean(aps):.4f} (IoU 0.5, 101-point interpolation, mean over classes)")
    return float(np.mean(aps))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.samples.train_detector",
        description="Train the bundled detector on drawn scenes and export it.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=BUNDLED_MODEL,
        metavar="DIR",
        help="where the SavedModel goes (default: detector/ in this package)",
    )
    parser.add_argument("--steps", type=int, default=2400, help="default: %(default)s")
    parser.add_argument("--scenes", type=int, default=2880, help="default: %(default)s")
    options = parser.parse_args(arguments)
    tf.config.threading.set_intra_op_parallelism_threads(2)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()

    began = time.monotonic()
    examples = draw_examples(TRAIN_SEED, options.scenes)
    calibration = draw_examples(CALIBRATION_SEED, 384)
    held_out = draw_examples(HELD_OUT_SEED, 480)
    print(f"drew {options.scenes} scenes in {time.monotonic() - began:.0f} s", flush=True)
    network = fold(train(examples, steps=options.steps))
    calibrate(network, calibration)
    detector = Detector(network)
    tf.saved_model.save(
        detector, str(options.output), signatures={"serving_default": detector.__call__}
    )
    print(f"{network.count_params()} parameters, {time.monotonic() - began:.0f} s in all")
    report(curves(detect(detector, held_out.images), held_out))


if __name__ == "__main__":
    main()
