"""Times as the records write them."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.records.times import canonical_time, from_unix, parse_time


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_769_904_000.5, "2026-02-01T00:00:00.500Z"),
        (1_769_904_000.000_25, "2026-02-01T00:00:00.000250Z"),
        (-1, "1969-12-31T23:59:59Z"),
    ],
)
def test_a_unix_time_is_converted_to_utc_to_the_microsecond(seconds: float, written: str) -> None:
    assert canonical_time(from_unix(seconds)) == written


@given(st.datetimes(timezones=st.just(timezone.utc)))
def test_a_time_is_read_as_it_was_written(time: datetime) -> None:
    assert parse_time(canonical_time(time)) == time
