"""Leaves out boxes that a suppression of overlapping boxes would pass over.

TensorFlow's `CombinedNonMaxSuppression` looks at each score of each box, of which a detector gives
thousands, and takes only scores above its threshold. Without the boxes that have no such score, its
result is the same bit for bit, in a fraction of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_OP = "CombinedNonMaxSuppression"

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Suppression:
    """A suppression of overlapping boxes that is given two tensors as they are.

    Attributes:
      boxes: The name of the tensor with the boxes, float32 [batch, n, 1 or classes, 4].
      scores: The name of the tensor with their scores, float32 [batch, n, classes].
      above: Scores that are not above this one are passed over.
      least: The number of boxes from which the op's working memory has its full size. Equal scores
        could come out in another order with less, as the op's sort is not stable.
    """

    boxes: str
    scores: str
    above: np.float32
    least: int

    def narrowed(self, arrays: Arrays) -> Arrays:
        """Returns the boxes and scores from which the suppression takes its result.

        Boxes are left out only for all images of a batch together.

        Args:
          arrays: All boxes and scores, by the names of their tensors.
        """
        boxes, scores = arrays[self.boxes], arrays[self.scores]
        kept: np.ndarray[Any, np.dtype[np.bool_]] = np.any(scores > self.above, axis=(0, 2))
        if (missing := self.least - int(kept.sum())) > 0:
            kept[np.flatnonzero(~kept)[:missing]] = True
        return {self.boxes: boxes[:, kept], self.scores: scores[:, kept]}


def suppression_in(graph: Any, given: list[str]) -> Suppression | None:
    """Finds a suppression of overlapping boxes of which boxes can be left out beforehand.

    Args:
      graph: A `tf.GraphDef`.
      given: The names of the tensors that it is given, like `node:0`.

    Returns:
      The suppression; None if there is none, or if another op takes its boxes or scores too.
    """
    from tensorflow import make_ndarray

    nodes = {node.name: node for node in graph.node}
    takers = {
        tensor: [node for node in graph.node if tensor in map(_full_name, node.input)]
        for tensor in given
    }
    for node in graph.node:
        if node.op != _OP or node.attr["pad_per_class"].b:
            continue
        boxes, scores, *_ = map(_full_name, node.input)
        settings = [nodes.get(node.input[index].removesuffix(":0")) for index in (2, 5)]
        constants = [
            make_ndarray(setting.attr["value"].tensor)
            for setting in settings
            if setting is not None and setting.op == "Const"
        ]
        if takers.get(boxes) == takers.get(scores) == [node] and len(constants) == 2:
            most, above = constants
            return Suppression(boxes, scores, np.float32(above), int(most))
    return None


def _full_name(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"
