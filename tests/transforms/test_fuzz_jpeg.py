"""Some of the mutants of `make fuzz`, and that it would notice."""

import struct

import pytest

from tests import fuzz_jpeg
from tests.transforms.slow_jpeg import DAMAGED, MISSING, WHOLE, judge

END = b"\xff\xd9"


def test_no_mutant_is_misjudged_and_none_ends_the_process(tmp_path):
    """In a process of its own: what crashes, hangs or grows ends that one."""
    result = fuzz_jpeg.run(7, 0, 2000, str(tmp_path))
    assert sum(result["figures"].values()) == 2000
    assert result["figures"]["valid whole"] > 500
    assert result["figures"]["corrupt_jpeg missing"] > 200


def test_a_mutant_depends_on_its_seed_and_number_alone():
    once = [fuzz_jpeg.mutant(3, number) for number in range(50)]
    assert once == [fuzz_jpeg.mutant(3, number) for number in range(50)]
    assert once != [fuzz_jpeg.mutant(4, number) for number in range(50)]


@pytest.mark.parametrize("base", fuzz_jpeg.BASES)
def test_the_slow_judge_detects_missing_data(base):
    data = fuzz_jpeg.BASES[base]
    assert judge(data) == WHOLE
    end = data.index(END, data.index(b"\xff\xda"))
    assert judge(data[:end]) == WHOLE
    assert judge(data[:end] + b"a trailer" + END) == WHOLE
    assert judge(data[: end - 3] + END) != WHOLE
    assert judge(data[: (data.index(b"\xff\xda") + end) // 2] + END) == MISSING


@pytest.mark.parametrize("base", fuzz_jpeg.BASES)
def test_every_base_is_valid_without_its_end_marker_and_corrupt_without_the_last_bytes(base):
    data = fuzz_jpeg.BASES[base]
    end = data.index(END, data.index(b"\xff\xda"))
    for kept in (data, data[:end], data[:end] + b"a trailer"):
        assert fuzz_jpeg.disagreement(kept) == ("valid", "whole", "")
    for cut in (end - 3, (data.index(b"\xff\xda") + end) // 2):
        assert fuzz_jpeg.disagreement(data[:cut] + END)[::2] == ("corrupt_jpeg", "")


def test_the_slow_judge_detects_codes_that_no_table_has():
    data = fuzz_jpeg.BASES["baseline"]
    start = data.index(b"\xff\xda") + 14
    assert judge(data[:start] + b"\xff\x00" * 40 + data[start:]) == DAMAGED


def test_a_misjudged_mutant_is_reported(tmp_path, monkeypatch):
    """The child is this process here, with a judge that finds fault with everything."""
    monkeypatch.setattr(fuzz_jpeg, "judge", lambda data: MISSING)
    monkeypatch.setattr(fuzz_jpeg, "is_seen", lambda data: True)
    assert fuzz_jpeg.disagreement(fuzz_jpeg.BASES["grey"])[2] == "it is valid and lacks data"
    monkeypatch.setattr(fuzz_jpeg, "judge", lambda data: WHOLE)
    cut = fuzz_jpeg.BASES["grey"][:-200]
    assert fuzz_jpeg.disagreement(cut)[2].startswith("it is whole and refused: image data")


def test_a_process_that_ends_is_reported_with_its_mutant(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_jpeg.sys, "executable", "false")
    at = fuzz_jpeg.mutant(7, struct.unpack("<Q", bytes(8))[0])[0]
    with pytest.raises(
        AssertionError, match="the process ended by 1 at seed 7, number 0"
    ) as reported:
        fuzz_jpeg.run(7, 0, 5, str(tmp_path))
    assert at in str(reported.value)
