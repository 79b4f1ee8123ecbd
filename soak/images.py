"""Images whose truth anyone can compute: two colours say what the model sees in them.

The red of an image says how likely a person is in it, the green how likely a dog; a comment in the
JPEG makes the bytes of each image unique. `soak.model` makes the detector that reads the colours,
and :func:`read_look` reads them again, with none of the product's code.
"""

from __future__ import annotations

import hashlib
import io
import random
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image

WIDTH, HEIGHT = 160, 120
SCORES = (0.0, 0.3, 0.6, 0.9)
"""The score of a label by its level: 64 steps of a colour each."""
_STEP = 64


@dataclass(frozen=True)
class Look:
    """What an image shows.

    Attributes:
      person: Level of the person's score, 0 to 3; 0 for none.
      dog: The same for a dog.
    """

    person: int = 0
    dog: int = 0

    @property
    def detections(self) -> list[tuple[str, float]]:
        """Label and score of each detection, in the order of the model."""
        scores = (("person", SCORES[self.person]), ("dog", SCORES[self.dog]))
        return [(label, score) for label, score in scores if score > 0]

    @property
    def threats(self) -> list[tuple[str, float]]:
        """Those detections that the rules of :data:`soak.recount.RULES` let through."""
        return [(label, score) for label, score in self.detections if score >= 0.5]

    @property
    def severity(self) -> str | None:
        """`alert` for a person, `detection` for a dog alone, None for neither."""
        labels = {label for label, _ in self.threats}
        return "alert" if "person" in labels else "detection" if "dog" in labels else None

    @property
    def rank(self) -> tuple[int, float]:
        """The larger is kept for its capture time: severity first, then the highest score."""
        order = {"alert": 2, "detection": 1, None: 0}[self.severity]
        return order, max((score for _, score in self.threats), default=0.0)


NOTHING = Look()
FAINT = Look(person=1)
PERSON_OR_NOT = Look(person=2)
PERSON = Look(person=3)
DOG = Look(dog=3)
BOTH = Look(person=3, dog=2)
LOOKS = (NOTHING, FAINT, PERSON_OR_NOT, PERSON, DOG, BOTH)


@lru_cache
def _template(look: Look) -> bytes:
    noise = random.Random(f"{look.person} {look.dog}")
    red, green = (_STEP * level + _STEP // 2 for level in (look.person, look.dog))
    pixels = bytearray()
    for _ in range(WIDTH * HEIGHT):
        grain = noise.randrange(-8, 9)
        pixels += bytes((red + grain, green + grain, 40 + grain))
    image = Image.frombytes("RGB", (WIDTH, HEIGHT), bytes(pixels))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50, subsampling=0)
    return file.getvalue()


def jpeg(look: Look, serial: str) -> bytes:
    """Returns an image that shows a look; two serials give different bytes."""
    data, comment = _template(look), serial.encode()
    after = 4 + int.from_bytes(data[4:6], "big")  # SOI, then APP0 with its length.
    length = (len(comment) + 2).to_bytes(2, "big")
    return data[:after] + b"\xff\xfe" + length + comment + data[after:]


def read_look(data: bytes) -> Look | None:
    """Returns what an image shows; None for bytes that are no whole image."""
    if not data.startswith(b"\xff\xd8\xff") or not data.endswith(b"\xff\xd9"):
        return None
    with Image.open(io.BytesIO(data)) as image:
        mean = image.convert("RGB").resize((1, 1), Image.Resampling.BOX).tobytes()
    return Look(mean[0] // _STEP, mean[1] // _STEP)


def digest(data: bytes) -> str:
    """Returns the sha256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()
