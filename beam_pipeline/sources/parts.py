"""The parts into which the input of a stream is divided, so that several workers watch it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from transforms.records.codecs import register_record


@dataclass(frozen=True)
class Part:
    """A share of what is directly in the top folder of an input, with all beneath it.

    Each name belongs to one part, whatever it names, on every machine and in every run.

    Attributes:
      index: Which part it is, counted from 0.
      number: How many parts there are.
    """

    index: int = 0
    number: int = 1

    def has(self, name: str) -> bool:
        """Returns whether an entry of the top folder belongs to the part.

        Args:
          name: The entry's own name.
        """
        if self.number == 1:
            return True
        return zlib.crc32(name.encode("utf-8", "surrogatepass")) % self.number == self.index


register_record(Part)

WHOLE = Part()
"""The only part of an input that is not divided."""


def parts_of(number: int) -> list[Part]:
    """Returns all parts of an input that is divided into so many."""
    return [Part(index, number) for index in range(number)]
