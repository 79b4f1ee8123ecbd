"""Mutated JPEGs, judged by the product and by a slow judge that shares no code with it.

    make fuzz                                              100,000 mutants
    .venv/bin/python -m tests.fuzz_jpeg --number 2000 --seed 7

A mutant depends on the seed and its number alone. Mutants are judged in a child process whose
memory and processor time are bounded: a crash, a hang or growth ends it, and the parent names the
mutant. What is searched for: a file that is valid and lacks data, or a whole one that is refused.
"""

import argparse
import collections
import io
import json
import mmap
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, JpegImagePlugin

from tests.transforms.pictures import asymmetric, encoded, named, with_exif, with_stated_size
from tests.transforms.slow_jpeg import MISSING, WHOLE, judge
from transforms.images.jpeg_stream import read_stream
from transforms.records.images import ValidImage
from transforms.validate_image import Limits, validate_bytes

END = b"\xff\xd9"
PADDINGS = (bytes(64), b"\x7f" * 64, b"\xf3\x0c" * 32, b"\xe4\xd2\x71\xb8" * 16, b"\xfe" * 64)
LIMITS = Limits(min_resolution=(1, 1), max_resolution=(1024, 1024))
SECONDS = 20
"""Of the processor for one mutant; a millisecond is usual."""
MEMORY = 1 << 30
"""Bytes of address space beyond what the process has before the first mutant."""
GROWTH = 128 << 20
"""Bytes of memory that the process may have more after the last mutant than after the first."""


def noise(width=56, height=40):
    generator = np.random.default_rng(3)
    small = generator.integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)


def exif():
    """A camera's EXIF data."""
    tags = Image.Exif()
    tags[0x010F], tags[0x0110], tags[0x0112] = "Maker", "Model 12", 6
    tags.get_ifd(0x8769).update({0x829A: 0.01, 0x9000: b"0230", 0x927C: bytes(40)})
    tags.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 12.5)})
    return tags.tobytes()


def without_tables(data):
    """A frame of MJPEG: without Huffman tables."""
    while (at := data.find(b"\xff\xc4")) > 0:
        (length,) = struct.unpack_from(">H", data, at + 2)
        data = data[:at] + data[at + 2 + length :]
    return data


def bases():
    image = noise()
    grey, inks = image.convert("L"), image.convert("CMYK")
    return {
        "baseline": encoded(image),
        "4:4:4": encoded(image, subsampling=0),
        "4:2:2, optimized": encoded(image, subsampling=1, optimize=True),
        "smooth": encoded(asymmetric(64, 48)),
        "dark, optimized": encoded(Image.new("RGB", (64, 48), (9, 9, 9)), optimize=True),
        "restart markers": encoded(image, restart_marker_rows=1),
        "restart markers, many": encoded(image, restart_marker_blocks=1),
        "progressive": encoded(image, progressive=True),
        "progressive, restart markers": encoded(image, progressive=True, restart_marker_blocks=2),
        "progressive, grey": encoded(grey, progressive=True),
        "grey": encoded(grey),
        "CMYK": encoded(inks),
        "CMYK, progressive": encoded(inks, progressive=True),
        "EXIF": with_exif(encoded(image), exif()),
        "MJPEG": without_tables(encoded(image)),
        "MPO": encoded(image, format="MPO", save_all=True, append_images=[asymmetric(32, 32)]),
    }


BASES = bases()


def _start(data):
    return data.find(b"\xff\xda") + 2


def flip_anywhere(data, chance):
    out = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        out[chance.randrange(2, len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def flip_in_data(data, chance):
    out = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        out[chance.randrange(_start(data), len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def set_bytes(data, chance):
    out = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        out[chance.randrange(2, len(out))] = chance.choice(
            (0, 1, 0x7F, 0x80, 0xD9, 0xDA, 0xFE, 0xFF)
        )
    return bytes(out)


def truncate(data, chance):
    cut = data[: chance.randrange(20, len(data))]
    other = chance.choice(list(BASES.values()))
    zeros = bytes(chance.choice((1, 5, 20, 100, 3000)))
    fill = b"\xff" * chance.randrange(1, 50)
    ends = (b"", END, zeros, zeros + END, fill + END, b"a trailer", END + b"a trailer", other)
    return cut + chance.choice(ends)


def shave(data, chance):
    """A few bytes of the end only: at the border of what is whole."""
    at = data.rfind(END)
    cut = data[: at - chance.randrange(0, 6)]
    return cut + chance.choice(
        (b"", END, bytes(chance.randrange(1, 40)) + END, b"\xff", b"trailer")
    )


def delete(data, chance):
    at = chance.randrange(2, len(data))
    return data[:at] + data[at + chance.randrange(1, 60) :]


def repeat(data, chance):
    at = chance.randrange(2, len(data))
    return data[:at] + data[at : at + chance.randrange(1, 200)] + data[at:]


def insert(data, chance):
    at = chance.randrange(2, len(data))
    new = chance.choice((b"\0" * chance.randrange(1, 20), b"\xff" * 5, chance.randbytes(4)))
    return data[:at] + new + data[at:]


def splice(data, chance):
    other = chance.choice(list(BASES.values()))
    at, to = chance.randrange(2, len(data)), chance.randrange(2, len(other))
    return data[:at] + other[to : to + chance.randrange(1, 400)] + data[at:]


def pieces(data):
    """The file cut before each marker."""
    places = [at for at in range(2, len(data) - 1) if data[at] == 0xFF and 0 < data[at + 1] < 0xFF]
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def shuffle_segments(data, chance):
    """Segments, scans and restart intervals removed, repeated or exchanged."""
    parts = pieces(data)
    for _ in range(chance.randrange(1, 3)):
        at = chance.randrange(1, len(parts))
        what = chance.randrange(4)
        if what == 0:
            del parts[at]
        elif what == 1:
            parts.insert(at, parts[at])
        elif what == 2:
            to = chance.randrange(1, len(parts))
            parts[at], parts[to] = parts[to], parts[at]
        else:
            parts.insert(at, chance.choice(pieces(chance.choice(list(BASES.values())))))
        if len(parts) < 3:
            break
    return b"".join(parts)


def pad_before_markers(data, chance):
    """Left-over bytes before restart markers, scans and the end marker."""
    chosen = chance.random()
    padding = chance.choice((b"\0", b"\0" * 9, b"\0" * 40, b"\xaa" * 3, b"\xff" * 3))
    return b"".join(part + padding * (chance.random() < chosen) for part in pieces(data))


def change_size(data, chance):
    width = chance.choice((1, 8, 55, 57, 64, 200, 1024, 8192, 65535))
    height = chance.choice((1, 8, 39, 41, 48, 200, 1024, 8192, 65535))
    return with_stated_size(data, width, height)


def change_sampling(data, chance):
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    out = bytearray(data)
    for component in range(min(out[at + 9], (len(out) - at - 11) // 3)):
        if chance.random() < 0.5:
            out[at + 11 + 3 * component] = chance.choice((0x11, 0x12, 0x21, 0x22, 0x41, 0x14, 0x31))
    return bytes(out)


def change_interval(data, chance):
    at = data.find(b"\xff\xdd")
    interval = struct.pack(">H", chance.choice((0, 1, 2, 3, 4, 5, 7, 30, 65535)))
    if at < 0:
        at = data.find(b"\xff\xda")
        return data[:at] + b"\xff\xdd\0\4" + interval + data[at:]
    return data[: at + 4] + interval + data[at + 6 :]


def change_restarts(data, chance):
    """Restart markers of other numbers."""
    out = bytearray(data)
    for at in range(_start(data), len(out) - 1):
        if out[at] == 0xFF and 0xD0 <= out[at + 1] <= 0xD7 and chance.random() < 0.2:
            out[at + 1] = 0xD0 + chance.randrange(8)
    return bytes(out)


def change_exif(data, chance):
    payload = bytearray(exif())
    for _ in range(chance.randrange(1, 8)):
        payload[chance.randrange(6, len(payload))] = chance.choice(
            (0, 1, 8, 0x69, 0x7F, 0x87, 0xFF)
        )
    return with_exif(data, bytes(payload) + bytes(chance.choice((0, 0, 30_000))))


def add_segments(data, chance):
    places = pieces(data)
    at = chance.randrange(1, len(places))
    segment = chance.choice(
        (
            b"\xff\xfe\0\4ab",
            b"\xff\xfe\0\4longer than it says",
            b"\xff\xe2\0\x0eICC_PROFILE\0",
            b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes((chance.randrange(4),)),
            b"\xff\xe0\0\x10JFIF\0\7\7\0\0\1\0\1\0\0",
            b"\xff" * chance.randrange(1, 3000),
            b"\xff\xfe\0\2" * chance.choice((3, 5000)),
        )
    )
    return b"".join((*places[:at], segment, *places[at:]))


def leave(data, chance):
    return data


MUTATIONS = (
    *(flip_anywhere, flip_in_data, set_bytes, truncate, shave, delete, repeat, insert, splice),
    *(shuffle_segments, pad_before_markers, change_size, change_sampling, change_interval),
    *(change_restarts, change_exif, add_segments, leave),
)


def mutant(seed, number):
    """One mutant: its kind and its bytes."""
    chance = random.Random(f"{seed} {number}")
    base = chance.choice(list(BASES))
    mutations = [chance.choice(MUTATIONS)]
    while chance.random() < 0.25:
        mutations.append(chance.choice(MUTATIONS))
    data = BASES[base]
    for mutation in mutations:
        if (
            len(data) < 30
            or _start(data) < 2
            or max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) < 0
        ):
            break
        data = mutation(data, chance)
    kind = f"{base}: {', '.join(mutation.__name__ for mutation in mutations)}"
    return kind, b"\xff\xd8\xff" + data[3:]


def is_seen(data):
    """Whether a pixel depends on what a decoder reads in place of missing data."""
    stream = read_stream(data)
    decoded = set()
    for padding in PADDINGS:
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(stream.padded(padding, 8).encoded()))
        decoded.add(image.convert("RGB").tobytes())
    return len(decoded) > 1


def disagreement(data):
    """The outcome, what the slow judge says, and what is wrong with both, if anything is."""
    outcome = validate_bytes(named(), data, limits=LIMITS, input_size=(32, 32))
    if isinstance(outcome, ValidImage):
        assert outcome.pixels is not None
        assert outcome.pixels.shape == (32, 32, 3)
        detail = judge(data)
        if detail == MISSING and not is_seen(data):
            return "valid", "missing, without which every pixel is the same", ""
        return "valid", detail, "it is valid and lacks data" if detail == MISSING else ""
    if outcome.reason != "corrupt_jpeg" or outcome.width is None:
        return outcome.reason, "", ""
    detail = judge(data)
    costly = "at most" in outcome.detail
    wrong = f"it is whole and refused: {outcome.detail}" if detail == WHOLE and not costly else ""
    return outcome.reason, detail, wrong


def memory():
    """Bytes of address space and of memory that this process has."""
    pages = Path("/proc/self/statm").read_text().split()
    return int(pages[0]) * mmap.PAGESIZE, int(pages[1]) * mmap.PAGESIZE


def child(seed, first, number, at, kept):
    """Judges mutants; writes the number of each to the file `at` before it is judged."""
    warnings.simplefilter("ignore")
    for base in BASES.values():
        disagreement(base)
    space, _ = memory()
    resource.setrlimit(resource.RLIMIT_AS, (space + MEMORY, space + MEMORY))
    figures, wrong, resident = collections.Counter(), [], None
    with open(at, "r+b", buffering=0) as position_file:
        for index in range(first, first + number):
            os.pwrite(position_file.fileno(), struct.pack("<Q", index), 0)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            kind, data = mutant(seed, index)
            outcome, detail, problem = disagreement(data)
            figures[f"{outcome} {detail}".strip()] += 1
            if problem:
                wrong.append({"number": index, "kind": kind, "problem": problem})
                if kept:
                    Path(kept, f"{index}.jpg").write_bytes(data)
            if index == first + min(number // 10, 2000):
                resident = memory()[1]
    signal.setitimer(signal.ITIMER_PROF, 0)
    growth = memory()[1] - (resident or memory()[1])
    json.dump({"figures": figures, "wrong": wrong, "growth": growth}, sys.stdout)


def run(seed, first, number, folder, kept=""):
    """Judges mutants in a child process; its figures.

    Raises:
      AssertionError: It has crashed, hung, grown or found a disagreement.
    """
    at = Path(folder, f"at_{first}")
    at.write_bytes(bytes(8))
    call = [sys.executable, "-m", "tests.fuzz_jpeg", "--child", str(at), "--keep", kept]
    call += ["--seed", str(seed), "--first", str(first), "--number", str(number)]
    done = subprocess.run(call, capture_output=True, check=False)
    (last,) = struct.unpack("<Q", at.read_bytes())
    again = f"seed {seed}, number {last} ({mutant(seed, last)[0]})"
    errors = done.stderr.decode(errors="replace")[-2000:]
    assert done.returncode == 0, f"the process ended by {done.returncode} at {again}: {errors}"
    result = json.loads(done.stdout)
    assert not result["wrong"], f"seed {seed}: {json.dumps(result['wrong'], indent=1)}"
    assert result["growth"] < GROWTH, f"{result['growth']:,} bytes more after {number:,} mutants"
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--number", type=int, default=100_000, help="mutants (100000)")
    parser.add_argument("--seed", type=int, default=1, help="(1)")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant (0)")
    parser.add_argument("--chunk", type=int, default=10_000, help="mutants of one process (10000)")
    parser.add_argument("--keep", default="", help="a folder for mutants that show a fault")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.seed, options.first, options.number, options.child, options.keep)
        return 0
    figures, failed, grown = collections.Counter(), False, 0
    end = options.first + options.number
    with tempfile.TemporaryDirectory() as folder:
        for first in range(options.first, end, options.chunk):
            number = min(options.chunk, end - first)
            try:
                result = run(options.seed, first, number, folder, options.keep)
            except AssertionError as error:
                print(error, file=sys.stderr)
                failed = True
                continue
            figures.update(result["figures"])
            grown = max(grown, result["growth"])
            print(f"{first + number - options.first:,} mutants", file=sys.stderr)
    print(f"seed {options.seed}, {sum(figures.values()):,} mutants, growth {grown >> 20} MiB")
    for name, count in sorted(figures.items()):
        print(f"{count:>8,}  {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
