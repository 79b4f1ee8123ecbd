"""A slow, plain judge of JPEGs: it reads every code of every scan, and nothing of the product.

It answers whether image data is missing: whether a code or a bit is needed after the data's end. It
was checked against the warnings of libjpeg's djpeg, see docs/validation.md.

Source: ITU-T T.81, annexes B, C, F.2 and G.2.
"""

import io
import re
import struct

from PIL import Image

WHOLE, MISSING, DAMAGED, ODD = "whole", "missing", "damaged", "odd"
"""All data is there; some is not; a code is met that no table has; no opinion, as the headers or
tables are against the standard, or zeros may be data or not."""

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_AFTER_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


class MissingError(Exception):
    """The data ended before the image."""


class DamagedError(Exception):
    """A code that the table does not have."""


class OddError(Exception):
    """Against the standard in a way that this judge has no opinion of."""


class Bits:
    """The bits of one restart interval."""

    def __init__(self, data):
        self.data = re.sub(rb"\xff+\x00", b"\xff", data.rstrip(b"\xff"))
        self.at = 0
        self.end = 8 * len(self.data)

    def bit(self):
        if self.at >= self.end:
            raise MissingError
        value = self.data[self.at >> 3] >> (7 - (self.at & 7)) & 1
        self.at += 1
        return value

    def skip(self, number):
        if self.at + number > self.end:
            raise MissingError
        self.at += number

    def number(self, bits):
        value = 0
        for _ in range(bits):
            value = value << 1 | self.bit()
        return value

    def symbol(self, table):
        code = 0
        for length in range(1, 17):
            code = code << 1 | self.bit()
            found = table.get((length, code))
            if found is not None:
                return found
        raise DamagedError


def table_of(counts, symbols):
    """Codes by length and value (T.81, C.2)."""
    table, code, at = {}, 0, 0
    for length, count in enumerate(counts, 1):
        for symbol in symbols[at : at + count]:
            if code >= 1 << length:
                raise OddError
            table[length, code] = symbol
            code += 1
        if count and code > 1 << length:
            raise OddError
        at += count
        code <<= 1
    return table


def tables_of(body):
    """The Huffman tables of one segment (T.81, B.2.4.2)."""
    found = {}
    while body:
        if len(body) < 17:
            raise OddError
        kind, number, counts = body[0] >> 4, body[0] & 15, body[1:17]
        symbols = body[17 : 17 + sum(counts)]
        if kind > 1 or number > 3 or sum(counts) > 256 or len(symbols) < sum(counts):
            raise OddError
        if kind == 0 and any(symbol > 15 for symbol in symbols):
            raise OddError
        found[kind, number] = table_of(counts, symbols)
        body = body[17 + sum(counts) :]
    return found


def usual_tables():
    """Those of T.81, K.3, which frames of MJPEG do without."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    data, tables, at = out.getvalue(), {}, 2
    while data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        if data[at + 1] == 0xC4:
            tables.update(tables_of(data[at + 4 : at + 2 + length]))
        at += 2 + length
    return tables


USUAL_TABLES = usual_tables()


class Judge:
    """Judges one image."""

    def __init__(self, data):
        self.data = data
        self.tables = {}
        self.quantization = set()
        self.interval = 0
        self.frame = None
        self.trailing = (0, 0)

    def verdict(self):
        try:
            self.walk()
        except MissingError:
            return MISSING
        except DamagedError:
            return DAMAGED
        except OddError:
            return ODD
        taken, left = self.trailing
        if taken > 16 and left > 8:
            return MISSING
        return ODD if taken > 1 and left else WHOLE

    def walk(self):
        at = 2
        while not self.is_complete():
            marker = _MARKER.search(self.data, at)
            if marker is None:
                raise MissingError
            code, at = marker.group()[1], marker.end()
            if code in (0xD8, 0xD9):
                raise MissingError
            if code == 1 or 0xD0 <= code < 0xD8:
                continue
            length = int.from_bytes(self.data[at : at + 2], "big")
            body = self.data[at + 2 : at + length]
            if length < 2 or len(body) < length - 2:
                raise MissingError
            at += length
            at = self.segment(code, body, at)

    def segment(self, code, body, at):
        if code == 0xC4:
            self.tables.update(tables_of(body))
        elif code == 0xDB:
            self.quantize(body)
        elif code == 0xDD:
            if len(body) != 2:
                raise OddError
            self.interval = int.from_bytes(body, "big")
        elif code in (0xC0, 0xC1, 0xC2):
            self.start_of_frame(code, body)
        elif code == 0xDA:
            return self.scan(body, at)
        elif code < 0xE0 or code in range(0xF0, 0xFE):
            raise OddError
        return at

    def quantize(self, body):
        while body:
            size, number = (128 if body[0] >> 4 else 64), body[0] & 15
            if number > 3 or body[0] >> 4 > 1 or len(body) < 1 + size:
                raise OddError
            self.quantization.add(number)
            body = body[1 + size :]

    def start_of_frame(self, code, body):
        if self.frame is not None or len(body) < 6 or len(body) != 6 + 3 * body[5]:
            raise OddError
        bits, height, width, number = struct.unpack_from(">BHHB", body)
        parts = [
            (body[at], body[at + 1] >> 4, body[at + 1] & 15, body[at + 2])
            for at in range(6, len(body), 3)
        ]
        if bits != 8 or not width or not height or number not in (1, 3, 4):
            raise OddError
        if len({part[0] for part in parts}) < number:
            raise OddError
        if any(not 1 <= factor <= 4 for part in parts for factor in part[1:3]):
            raise OddError
        if any(factor == 3 for part in parts for factor in part[1:3]):
            raise OddError  # Decoders scale by 2 and 4 alone.
        self.frame, self.progressive = (width, height, parts), code == 0xC2
        self.known = [[None] * 64 for _ in parts]
        self.nonzero = [{} for _ in parts]

    def is_complete(self):
        return self.frame is not None and all(bit == 0 for known in self.known for bit in known)

    def scan(self, body, at):
        if self.frame is None or not body or len(body) != 4 + 2 * body[0]:
            raise OddError
        numbers = [part[0] for part in self.frame[2]]
        if not 1 <= body[0] <= 4 or any(byte not in numbers for byte in body[1:-3:2]):
            raise OddError
        members = [numbers.index(byte) for byte in body[1:-3:2]]
        if len(set(members)) < len(members) or members != sorted(members):
            raise OddError
        first, last, high, low = body[-3], body[-2], body[-1] >> 4, body[-1] & 15
        if not self.progressive:
            first, last, high, low = 0, 63, 0, 0
        elif not may_be(first, last, high, low, len(members)):
            raise OddError
        for member in members:
            known = self.known[member]
            if any((bit or 0) != high for bit in known[first : last + 1]) or (
                first and known[0] is None
            ):
                raise OddError
            known[first : last + 1] = [low] * (last + 1 - first)
            if self.frame[2][member][3] not in self.quantization:
                raise OddError
        found = _AFTER_SCAN.search(self.data, at)
        end = found.start() if found else len(self.data)
        selectors = [(byte >> 4, byte & 15) for byte in body[2:-3:2]]
        self.entropy(self.data[at:end], members, selectors, (first, last, high, low))
        return end

    def units(self, members):
        """The blocks of each unit, as component and place (T.81, A.2)."""
        width, height, parts = self.frame
        most_across = max(part[1] for part in parts)
        most_down = max(part[2] for part in parts)
        if len(members) == 1:
            (member,) = members
            _, across, down, _ = parts[member]
            columns = -(-width * across // (8 * most_across))
            for row in range(-(-height * down // (8 * most_down))):
                for column in range(columns):
                    yield [(member, row, column)]
            return
        if sum(parts[member][1] * parts[member][2] for member in members) > 10:
            raise OddError
        for row in range(-(-height // (8 * most_down))):
            for column in range(-(-width // (8 * most_across))):
                yield [
                    (member, row * parts[member][2] + y, column * parts[member][1] + x)
                    for member in members
                    for y in range(parts[member][2])
                    for x in range(parts[member][1])
                ]

    def table(self, kind, number):
        found = self.tables.get((kind, number))
        if found is None and not self.progressive:
            found = USUAL_TABLES.get((kind, number))
        if found is None:
            raise OddError
        return found

    def entropy(self, data, members, selectors, parameters):
        first, _, high, _ = parameters
        tables = {}
        for member, (direct, alternating) in zip(members, selectors, strict=True):
            needs_direct = first == 0 and not high
            needs_alternating = first > 0 or not self.progressive
            tables[member] = (
                self.table(0, direct) if needs_direct else None,
                self.table(1, alternating) if needs_alternating else None,
            )
        pieces = iter(re.split(rb"\xff([\xd0-\xd7])", data))
        bits, run, restarts = None, 0, 0
        units = list(self.units(members))
        total = len(units)
        for number, unit in enumerate(units):
            if number == 0 or (self.interval and number % self.interval == 0):
                if number:
                    marker = next(pieces, None)
                    if marker is None or marker[0] != 0xD0 + restarts % 8:
                        raise MissingError
                    restarts += 1
                bits, run = Bits(next(pieces)), 0
            ends = not self.interval or (number + 1) % self.interval == 0 or number + 1 == total
            for index, (member, row, column) in enumerate(unit):
                try:
                    run = self.block(bits, tables[member], (member, row, column), parameters, run)
                except MissingError:
                    # Behind the right and the lower edge there are blocks of which nothing is seen.
                    if ends and not any(map(self.is_seen, unit[index:])):
                        raise OddError from None
                    raise
        if self.is_complete():
            self.trailing = trailing_zeros(bits)

    def block(self, bits, tables, index, parameters, run):
        """Reads what a scan has of one block; how many blocks after it have nothing (EOBRUN)."""
        first, _, high, _ = parameters
        if not self.progressive:
            self.sequential(bits, *tables)
        elif first == 0 and high:
            bits.skip(1)
        elif first == 0:
            bits.skip(bits.symbol(tables[0]))
        else:
            member, row, column = index
            block = self.nonzero[member].setdefault((row, column), set())
            step = self.refining if high else self.alternating
            return step(bits, tables[1], block, parameters, run)
        return run

    def is_seen(self, index):
        member, row, column = index
        width, height, parts = self.frame
        _, across, down, _ = parts[member]
        return column < -(-width * across // (8 * max(part[1] for part in parts))) and (
            row < -(-height * down // (8 * max(part[2] for part in parts)))
        )

    def sequential(self, bits, direct, alternating):
        bits.skip(bits.symbol(direct))
        index = 1
        while index < 64:
            symbol = bits.symbol(alternating)
            if symbol & 15:
                index += symbol >> 4
                bits.skip(symbol & 15)
            elif symbol >> 4 == 15:
                index += 15
            else:
                break
            index += 1

    def alternating(self, bits, table, block, parameters, run):
        index, last, _, _ = parameters
        if run:
            return run - 1
        while index <= last:
            symbol = bits.symbol(table)
            zeros, size = symbol >> 4, symbol & 15
            if size:
                index += zeros
                bits.skip(size)
                block.add(min(index, 63))  # A run may lead beyond the block; decoders end at 63.
            elif zeros == 15:
                index += 15
            else:
                return (1 << zeros) + bits.number(zeros) - 1
            index += 1
        return 0

    def refining(self, bits, table, block, parameters, run):
        index, last, _, _ = parameters
        if not run:
            while index <= last:
                symbol = bits.symbol(table)
                zeros, size = symbol >> 4, symbol & 15
                if size > 1:
                    raise DamagedError
                if size:
                    bits.skip(1)
                elif zeros < 15:
                    run = (1 << zeros) + bits.number(zeros)
                    break
                index = self.past_zeros(bits, block, index, last, zeros)
                if size:
                    block.add(min(index, 63))
                index += 1
        if run:
            bits.skip(sum(index <= bit <= last for bit in block))
            return run - 1
        return 0

    def past_zeros(self, bits, block, index, last, zeros):
        """Where the run of so many zeros ends; what is known to be none is refined on the way."""
        while index <= last:
            if index in block:
                bits.skip(1)
            elif zeros == 0:
                break
            else:
                zeros -= 1
            index += 1
        return index


def may_be(first, last, high, low, members):
    """Whether a progressive scan may have these parameters (T.81, G.1.1.1.1)."""
    if not first <= last < 64 or low > 13 or (high and low != high - 1):
        return False
    return last == 0 if first == 0 else members == 1


def trailing_zeros(bits):
    """Of the zero bytes that an interval ends with: how many were read, and how many were not."""
    content = len(bits.data.rstrip(b"\0"))
    used = -(-bits.at // 8)
    return max(0, used - content), len(bits.data) - max(used, content)


def judge(data):
    """What is to be said of a file that begins with FF D8 FF."""
    return Judge(data).verdict()
