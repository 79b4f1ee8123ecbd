"""What options are without a value, and which values they take: the bounds from both sides."""

from __future__ import annotations

import dataclasses

import pytest

from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.job.options import JobOptions, job_options

DEFAULTS = {
    "input": None,
    "output": "output",
    "rules": None,
    "model": None,
    "labels": None,
    "trust_model": False,
    "alert_urls": (),
    "alert_max_age_seconds": None,
    "window_seconds": 300,
    "allowed_lateness_seconds": 3600,
    "count_shards": None,
    "chart_period_hours": 24,
    "batch_size": 8,
    "model_threads": None,
    "model_input_size": None,
    "model_min_ram": None,
    "model_accelerator": None,
    "min_score_kept": 0.05,
    "max_clock_skew_seconds": 86_400,
    "min_resolution": (160, 120),
    "max_resolution": (8192, 8192),
    "max_file_bytes": 67_108_864,
    "resume": False,
    "store_validated": True,
    "streaming": False,
    "notifications": None,
    "poll_interval_seconds": 5,
    "input_parts": 1,
    "early_firing_seconds": 30,
}


def test_defaults_are_those_that_the_pages_tell_of() -> None:
    batch, stream = (dataclasses.asdict(job_options(words)) for words in ([], ["--streaming"]))
    assert {name: batch[name] for name in DEFAULTS} == DEFAULTS
    different = {name: stream[name] for name in stream if stream[name] != batch[name]}
    assert different == {"streaming": True, "alert_max_age_seconds": 3600.0}


def value(field: str, *arguments: str) -> object:
    return getattr(job_options(arguments), field)


@pytest.mark.parametrize(
    ("option", "field", "least", "below"),
    [
        ("--poll_interval_seconds", "poll_interval_seconds", 1, 0),
        ("--input_parts", "input_parts", 1, 0),
        ("--early_firing_seconds", "early_firing_seconds", 1, 0),
        ("--batch_size", "batch_size", 1, 0),
        ("--model_threads", "model_threads", 1, 0),
        ("--model_input_size", "model_input_size", 1, 0),
        ("--count_shards", "count_shards", 1, 0),
        ("--window_seconds", "window_seconds", 1, 0),
        ("--allowed_lateness_seconds", "allowed_lateness_seconds", 0, -1),
        ("--max_clock_skew_seconds", "max_clock_skew_seconds", 0, -1),
        ("--min_score_kept", "min_score_kept", 0, -0.001),
        ("--chart_period_hours", "chart_period_hours", 0.001, 0),
    ],
)
def test_the_least_value(option: str, field: str, least: float, below: float) -> None:
    assert value(field, f"{option}={least}") == least
    with pytest.raises(SetupError, match=option):
        job_options([f"{option}={below}"])


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ([], "--input_parts works only in a stream; add --streaming"),
        (["--streaming", "--follow_links"], "would be listed twice; leave one of them out"),
        (
            *[["--streaming", "--input", "s3://cameras/in", "--notifications", "kafka://a:1/t"]],
            "--notifications lists none; leave one of them out",
        ),
    ],
)
def test_an_input_is_divided_only_where_a_stream_lists_it(others: list[str], says: str) -> None:
    with pytest.raises(SetupError, match=says):
        job_options(["--input_parts", "2", *others])
    job_options(["--input_parts", "1", *others])


@pytest.mark.parametrize(
    ("option", "field", "most", "above"),
    [
        ("--window_seconds", "window_seconds", 31_622_400, 31_622_401),
        ("--max_clock_skew_seconds", "max_clock_skew_seconds", 31_622_400_000, 31_622_400_001),
        ("--min_score_kept", "min_score_kept", 1, 1.001),
        ("--chart_period_hours", "chart_period_hours", 8784, 8784.1),
    ],
)
def test_the_largest_value(option: str, field: str, most: float, above: float) -> None:
    assert value(field, option, str(most)) == most
    with pytest.raises(SetupError, match=option):
        job_options([option, str(above)])


def test_the_largest_file_is_given_in_mib() -> None:
    assert value("max_file_bytes", "--max_file_mib", "1") == 1_048_576
    assert value("max_file_bytes", "--max_file_mib", "3") == 3_145_728
    with pytest.raises(SetupError, match="0 is less than 1"):
        job_options(["--max_file_mib", "0"])


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("1B", 1), ("7kB", None), ("7KB", 7_000), ("7MB", 7_000_000), ("2GB", 2_000_000_000)),
        *(("1TB", 10**12), ("1PB", 10**15), ("1KiB", 1024), ("3MiB", 3_145_728)),
        *(("2GiB", 2_147_483_648), ("1TiB", 1_099_511_627_776), ("1PiB", 1_125_899_906_842_624)),
        *(("1.5KiB", 1536), ("2 GB", 2_000_000_000), ("0.9B", None), ("GB", None), ("2iB", None)),
    ],
)
def test_memory_has_its_unit(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(SetupError, match="--model_min_ram"):
            job_options(["--model_min_ram", text])
    else:
        options = job_options(["--model_min_ram", text])
        assert options.model_min_ram == size
        assert options.model_hints == {"min_ram": size}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--min_resolution=161x120", "--max_resolution=160x900"], "larger than"),
        (["--min_resolution=160x121", "--max_resolution=900x120"], "larger than"),
        (["--min_resolution=0x120"], "is not WIDTHxHEIGHT"),
        (["--min_resolution=160x120x3"], "is not WIDTHxHEIGHT"),
        (["--resume", "maybe"], "'maybe' is neither true nor false"),
        (["--output", ""], "--output is empty"),
        (["--rules", ""], "--rules is empty"),
        (["--model", ""], "--model is empty"),
        (["--labels", ""], "--labels is empty"),
    ],
)
def test_what_is_refused(arguments: list[str], says: str) -> None:
    with pytest.raises(SetupError, match=says):
        job_options(arguments)


def test_switches_and_sizes_are_taken_in_their_forms() -> None:
    same = job_options(["--min_resolution=160X120", "--max_resolution=160x120"])
    assert (same.min_resolution, same.max_resolution) == ((160, 120), (160, 120))
    for text, on in (("true", True), ("True", True), ("false", False), ("FALSE", False)):
        assert job_options(["--resume", text]).resume is on
        assert job_options(["--no_store_validated", text]).store_validated is not on


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30.0), ("5m", 300.0), ("1h", 3600.0), ("7d", 604_800.0), ("off", None)],
)
def test_ages_are_seconds_whatever_their_unit(text: str, seconds: float | None) -> None:
    for stream in ([], ["--streaming"]):
        assert job_options(["--alert_max_age", text, *stream]).alert_max_age_seconds == seconds


def test_a_repeated_address_is_used_once() -> None:
    urls = ["--alert_url=https://a.example", "--alert_url=https://b.example"]
    assert job_options([*urls, urls[0]]).alert_urls == ("https://a.example", "https://b.example")


def test_a_pipeline_of_one_s_own_takes_no_abbreviations() -> None:
    assert isinstance(job_options(["--resume"]), JobOptions)
    with pytest.raises(SetupError, match="unrecognized arguments: --resum"):
        job_options(["--resum"])
