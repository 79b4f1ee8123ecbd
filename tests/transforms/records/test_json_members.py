"""A large JSON object is read in parts, and gives what Python's own reader gives."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search import search
from transforms.records.json_members import JsonError, read_members


def read(*chunks: bytes) -> dict[str, Any]:
    """The whole object, with its array `images`."""
    whole: dict[str, Any] = {}
    for key, value in read_members(chunks, "images"):
        if key != "images":
            whole[key] = value
        elif key not in whole:
            assert value is None
            whole[key] = []
        else:
            whole[key].append(value)
    return whole


_KEYS = st.text(max_size=5) | st.sampled_from(["images", "info"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)
_OBJECTS = st.dictionaries(_KEYS, _VALUES, max_size=4).flatmap(
    lambda some: st.fixed_dictionaries({}, optional={"images": st.lists(_VALUES, max_size=5)}).map(
        lambda images: {**{key: some[key] for key in some if key != "images"}, **images}
    )
)


def parts(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(data) + 1) for cut in cuts})
    return [
        data[at:end] for at, end in zip([0, *ends], [*ends, len(data)], strict=True) if at < end
    ]


@pytest.mark.search
@search(400)
@given(
    _OBJECTS,
    st.lists(st.integers(0, 10_000), max_size=8),
    st.booleans(),
    st.sampled_from([None, 1]),
    st.integers(0, 10_000),
)
def test_the_same_is_read_whatever_the_parts_and_a_part_of_it_is_refused(
    whole: dict[str, Any], cuts: list[int], is_ascii: bool, indent: int | None, end: int
) -> None:
    text = json.dumps(whole, ensure_ascii=is_ascii, indent=indent)
    data = text.encode("utf-8", "surrogatepass")
    try:
        data.decode()
    except UnicodeDecodeError:
        with pytest.raises(JsonError, match="UTF-8"):
            read(*parts(data, cuts))
        return
    assert read(*parts(data, cuts)) == json.loads(text)
    with pytest.raises(JsonError):
        read(*parts(data[: end % len(data)], cuts))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "does not begin with '{' (at character 1)"),
        ("[]", "does not begin with '{'"),
        ('{"a": 1} {', "there is more after its end (at character 10)"),
        ('{"a": 1, "a": 2}', "it has 'a' twice"),
        ('{"images": [], "images": []}', "it has 'images' twice"),
        ('{"images": {}}', "'images' is not a list"),
        ('{"images": null}', "'images' is not a list"),
        ('{"images": [1,]}', "not JSON"),
        ('{"images": [1 2]}', "neither ',' nor ']' follows a value"),
        ('{"a" 1}', "':' is missing"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ("{1: 2}", "a key is not a text"),
        ('{"a": 1,}', "not JSON"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"images": [' + '{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_such_object_is_refused(text: str, problem: str) -> None:
    with pytest.raises(JsonError) as refused:
        read(text.encode())
    assert problem in str(refused.value)


def test_a_byte_order_mark_and_long_numbers_are_read() -> None:
    assert read(b'\xef\xbb\xbf{"a": ' + b"9" * 100_000 + b"}") == {"a": float("inf")}


def test_a_value_of_more_than_four_million_characters_is_refused() -> None:
    assert read(b'{"a": "' + b"x" * 4_000_000 + b'"}') == {"a": "x" * 4_000_000}
    endless = iter([b'{"images": ["', *[b"x" * 1_000_000] * 1000])
    with pytest.raises(JsonError, match="4 million characters"):
        list(read_members(endless, "images"))
    assert len(list(endless)) > 980


def test_the_memory_does_not_grow_with_the_array() -> None:
    def chunks(number: int) -> Iterator[bytes]:
        yield b'{"images": [0'
        for _ in range(number):
            yield b',{"file": "a"}' * 100
        yield b"]}"

    def most(number: int) -> int:
        tracemalloc.start()
        try:
            for _ in read_members(chunks(number), "images"):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert most(400) < most(10) + 20_000
