"""A graph gives the same results after what depends on the size of its image was computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.search import search
from transforms.models.folding import fold_sizes, imported
from transforms.models.partition import subgraph

Step = Callable[[Any, Any], Any]
"""Makes a new image, float32 [1, height, width, 3], of an image and of the one that came in."""


def graph_of(steps: Sequence[Step], height: int, width: int) -> tuple[Any, list[str]]:
    """Returns the graph of some steps, and the name of its output."""

    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)]
    )
    def run(image: Any) -> Any:
        changed = image
        for step in steps:
            changed = step(changed, image)
        return changed

    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([1, height, width, 3], tf.float32)]
    )
    def fixed(image: Any) -> Any:
        return run(image)

    from tensorflow.python.framework import convert_to_constants

    frozen = convert_to_constants.convert_variables_to_constants_v2(
        fixed.get_concrete_function(), lower_control_flow=False
    )
    return frozen.graph.as_graph_def(), [tensor.name for tensor in frozen.outputs]


def result_of(graph_def: Any, outputs: Sequence[str], image: np.ndarray[Any, Any]) -> bytes:
    graph = imported(graph_def)
    (taken,) = (op for op in graph.get_operations() if op.type == "Placeholder")
    with tf.compat.v1.Session(graph=graph) as session:
        (result,) = session.run(list(outputs), {taken.outputs[0]: image})
    return bytes(result.tobytes())


def ops_of(graph_def: Any, outputs: Sequence[str]) -> set[str]:
    """The kinds of the ops on which the outputs depend."""
    nodes, _ = subgraph(graph_def, [], outputs)
    return {node.op for node in nodes.node}


def scaled(numerator: int, denominator: int) -> Step:
    """To a fraction of the size, computed in floats as detectors do it."""

    def step(image: Any, _: Any) -> Any:
        size = tf.cast(tf.shape(image)[1:3], tf.float32) * (numerator / denominator)
        return tf.image.resize(image, tf.maximum(tf.cast(size, tf.int32), 1))

    return step


def padded_to(multiple: int) -> Step:
    def step(image: Any, _: Any) -> Any:
        height, width = tf.shape(image)[1], tf.shape(image)[2]
        below, right = -height % multiple, -width % multiple
        return tf.pad(image, [[0, 0], [0, below], [0, right], [0, 0]], constant_values=7.0)

    return step


def of_known_size(image: Any, _: Any) -> Any:
    return tf.ensure_shape(image, [1, None, None, 3])


def reversed_channels(image: Any, _: Any) -> Any:
    return tf.reverse(image, [-1])


def plus_its_pixels(image: Any, _: Any) -> Any:
    """Depends on the size and on the pixels: only the size is known before."""
    return image + tf.cast(tf.size(image), tf.float32) * tf.reduce_max(image)


def as_the_first(image: Any, first: Any) -> Any:
    return tf.image.resize(image, tf.shape(first)[1:3])


def in_a_loop(image: Any, _: Any) -> Any:
    return tf.map_fn(lambda one: one * 2 + tf.cast(tf.rank(one), tf.float32), image)


STEPS = st.one_of(
    st.builds(scaled, st.integers(1, 3), st.integers(1, 3)),
    st.builds(padded_to, st.integers(1, 5)),
    st.sampled_from(
        [of_known_size, reversed_channels, plus_its_pixels, as_the_first, in_a_loop],
    ),
)


@pytest.mark.search
@search(60)
@given(st.lists(STEPS, max_size=6), st.integers(2, 9), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_the_results_are_the_same_bit_for_bit(
    steps: list[Step], height: int, width: int, seed: int
) -> None:
    graph_def, outputs = graph_of(steps, height, width)
    draw = np.random.default_rng(seed)
    image = draw.integers(0, 256, (1, height, width, 3)).astype(np.float32)
    folded = fold_sizes(graph_def, outputs)
    assert result_of(folded, outputs, image) == result_of(graph_def, outputs, image)


def test_a_detector_of_images_of_any_size_does_not_scale_one_of_its_own_size() -> None:
    steps = [scaled(1, 1), padded_to(4), of_known_size, reversed_channels]
    graph_def, outputs = graph_of(steps, 8, 12)
    assert {"Shape", "ResizeBilinear", "EnsureShape"} <= ops_of(graph_def, outputs)
    left = ops_of(fold_sizes(graph_def, outputs), outputs)
    assert left == {"Placeholder", "Identity", "Const", "ReverseV2"}


def test_an_image_of_another_size_is_still_scaled_and_padded() -> None:
    graph_def, outputs = graph_of([scaled(1, 2), padded_to(3)], 8, 12)
    assert {"ResizeBilinear", "PadV2"} <= ops_of(fold_sizes(graph_def, outputs), outputs)


def test_weights_are_not_computed_beforehand() -> None:
    def plus_many(image: Any, _: Any) -> Any:
        return image + tf.reduce_sum(tf.ones([64, 64]) * tf.constant(2.0))

    graph_def, outputs = graph_of([plus_many], 2, 2)
    large = [
        node
        for node in fold_sizes(graph_def, outputs).node
        if node.op == "Const" and node.ByteSize() > 4000
    ]
    assert not large


def looped(image: Any) -> Any:
    """A loop of TensorFlow 1 whose body depends on the size."""
    size = tf.cast(tf.shape(image)[1], tf.float32)
    _, result = tf.while_loop(
        lambda number, _: number < tf.shape(image)[1],
        lambda number, part: (number + 1, part * size + tf.cast(tf.size(part), tf.float32) / size),
        [tf.constant(0), image],
    )
    return result * size


def branched(image: Any) -> Any:
    """A branch of TensorFlow 1 that depends on the content, and in it on the size."""
    return tf.cond(
        tf.reduce_sum(image) > 1,
        lambda: image * tf.cast(tf.shape(image)[2], tf.float32),
        lambda: image - tf.cast(tf.size(image), tf.float32),
    )


def checked(image: Any) -> Any:
    """A check that an image of zeros does not pass, before a value that depends on the size."""
    with tf.control_dependencies([tf.debugging.assert_greater(tf.reduce_max(image), 0.5)]):
        size = tf.shape(image)[1] * 2
    return image * tf.cast(size, tf.float32)


@pytest.mark.parametrize("build", [looped, branched, checked])
def test_a_graph_that_is_not_computed_in_parts_keeps_its_results(
    build: Callable[[Any], Any],
) -> None:
    tf.compat.v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default() as graph:
            image = tf.compat.v1.placeholder(tf.float32, [1, 4, 5, 3])
            output = tf.identity(build(image)).name
    finally:
        tf.compat.v1.enable_control_flow_v2()
    graph_def = graph.as_graph_def()
    folded = fold_sizes(graph_def, [output])
    for value in (0.7, 0.001):
        pixels = np.full([1, 4, 5, 3], value, np.float32)
        if build is not checked or value > 0.5:
            assert result_of(folded, [output], pixels) == result_of(graph_def, [output], pixels)
