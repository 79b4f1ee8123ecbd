"""Leaving out boxes before a suppression of overlapping boxes changes no bit of its result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.models.converted import Part, Tensor, _function
from transforms.models.suppression import suppression_in

BOXES, SCORES = "boxes:0", "scores:0"
EVEN_SCORES = np.float32([-1, 0, 0.01, 0.02, 0.3, 0.3, 0.6, 1])
"""Few, so that many are equal; one is the threshold."""


def graph_of(
    shape: tuple[int, int, int], *, own_boxes: bool, pad: bool = False, twice: bool = False
) -> Any:
    """Returns the `tf.GraphDef` of a suppression of [batch, n, classes] scores.

    Args:
      shape: The shape of the scores.
      own_boxes: Whether each class has its own boxes.
      pad: Whether the result is padded by class.
      twice: Whether another op takes the scores, too.
    """
    batch, _, classes = shape
    with tf.Graph().as_default() as graph:
        boxes = tf.compat.v1.placeholder(
            tf.float32, (batch, None, classes if own_boxes else 1, 4), "boxes"
        )
        scores = tf.compat.v1.placeholder(tf.float32, (batch, None, classes), "scores")
        found = tf.image.combined_non_max_suppression(
            boxes, scores, 4, 10, 0.4, 0.01, pad_per_class=pad
        )
        for name, tensor in zip(("a", "b", "c", "d"), found, strict=True):
            tf.identity(tensor, name)
        if twice:
            tf.reduce_sum(scores, name="e")
    graph_def = graph.as_graph_def()
    kept = [node for node in graph_def.node if node.op != "Placeholder"]
    del graph_def.node[:]
    graph_def.node.extend(kept)
    return graph_def


def results(graph: Any, arrays: dict[str, Any]) -> list[Any]:
    """Returns the result of the graph, as the job computes it."""
    tensors = [Tensor(name, "float32", array.shape) for name, array in arrays.items()]
    outputs = ("a:0", "b:0", "c:0", "d:0")
    part = Part(graph.SerializeToString(), tuple(tensors), outputs)
    computed = _function(part, graph)(arrays)
    return [computed[name] for name in outputs]


def suppressed(graph: Any, arrays: dict[str, Any]) -> list[Any]:
    """Returns the result of the graph by TensorFlow alone."""
    with tf.Graph().as_default() as whole:
        given = {name: tf.constant(array) for name, array in arrays.items()}
        names = ["a:0", "b:0", "c:0", "d:0"]
        tensors = tf.graph_util.import_graph_def(graph, given, names, name="")
        with tf.compat.v1.Session(graph=whole) as session:
            return session.run(tensors)  # type: ignore[no-any-return]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 40), st.integers(1, 5)),
    own_boxes=st.booleans(),
    share=st.sampled_from((0.0, 0.1, 0.5, 1.0)),
)
def test_the_result_is_the_same_bit_for_bit(
    seed: int, shape: tuple[int, int, int], own_boxes: bool, share: float
) -> None:
    draw = np.random.default_rng(seed)
    batch, number, classes = shape
    corners = draw.integers(0, 4, (batch, number, classes if own_boxes else 1, 2)) / 8
    sizes = draw.integers(1, 4, corners.shape) / 8
    boxes = np.concatenate([corners, corners + sizes], axis=3).astype(np.float32)
    scores = draw.choice(EVEN_SCORES, shape)
    scores[draw.random((batch, number)) >= share] = draw.choice(np.float32([0, 0.01, np.nan]))
    arrays = {BOXES: boxes, SCORES: scores}
    graph = graph_of(shape, own_boxes=own_boxes)
    assert suppression_in(graph, [BOXES, SCORES]) is not None
    for found, expected in zip(results(graph, arrays), suppressed(graph, arrays), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_boxes_without_a_score_above_the_threshold_are_left_out() -> None:
    suppression = suppression_in(graph_of((1, 50, 2), own_boxes=False), [BOXES, SCORES])
    assert suppression is not None
    scores = np.zeros((1, 50, 2), np.float32)
    scores[0, 30:, 1] = 0.02
    scores[0, 40] = 0.01
    boxes = np.arange(200, dtype=np.float32).reshape(1, 50, 1, 4)
    narrowed = suppression.narrowed({BOXES: boxes, SCORES: scores})
    assert narrowed[SCORES].shape == (1, 19, 2)
    assert narrowed[BOXES][0, :, 0, 0].tolist() == [4 * n for n in range(30, 50) if n != 40]


@pytest.mark.parametrize("other", ["pad", "twice"])
def test_another_use_of_boxes_or_scores_gets_all_of_them(other: str) -> None:
    graph = graph_of((1, 8, 2), own_boxes=False, **{other: True})
    assert suppression_in(graph, [BOXES, SCORES]) is None
    assert suppression_in(graph_of((1, 8, 2), own_boxes=False), [SCORES]) is None
