"""The parts of an image at which the model looks besides the whole image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from rules.frozen import FrozenMapping

SMALLEST_TILE = 64
"""The least width and height of a tile in pixels. A model takes images of some hundred pixels: an
even smaller part would only be enlarged without any more detail."""


class Region(NamedTuple):
    """A rectangle of an image, in pixels of the upright image."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Tiles:
    """The grid of tiles of a camera's images: see `rules.schema.TilesSettings`.

    All tiles are of one size, apart from rounding to whole pixels.
    """

    columns: int = 3
    rows: int = 2
    overlap: float = 0.2
    min_score: float = 0.3
    origins: Mapping[str, str] = field(default_factory=FrozenMapping)

    @property
    def count(self) -> int:
        """The number of tiles of an image."""
        return self.columns * self.rows

    @property
    def name(self) -> str:
        """The tiles in words, as the image JSON has them; others have another name."""
        grid = f"tiles {self.columns}x{self.rows}"
        return f"{grid} overlap {self.overlap} min_score {self.min_score}"

    def size(self, width: int, height: int) -> tuple[float, float]:
        """Returns the width and height of a tile in pixels.

        Args:
            width: The width of the image in pixels.
            height: The height of the image in pixels.
        """
        return (
            width / (self.columns - (self.columns - 1) * self.overlap),
            height / (self.rows - (self.rows - 1) * self.overlap),
        )

    def fit(self, width: int, height: int) -> bool:
        """Returns whether the tiles of an image of this size are large enough to be looked at."""
        return min(self.size(width, height)) >= SMALLEST_TILE

    def regions(self, width: int, height: int) -> tuple[Region, ...]:
        """Returns the tiles of an image row by row; none if they would be too small.

        Args:
            width: The width of the image in pixels.
            height: The height of the image in pixels.
        """
        if not self.fit(width, height):
            return ()
        tile_width, tile_height = self.size(width, height)
        return tuple(
            Region(left, top, right, bottom)
            for top, bottom in self._spans(self.rows, tile_height)
            for left, right in self._spans(self.columns, tile_width)
        )

    def _spans(self, number: int, side: float) -> Iterator[tuple[int, int]]:
        for index in range(number):
            start = index * side * (1 - self.overlap)
            yield round(start), round(start + side)
