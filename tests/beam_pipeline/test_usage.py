"""A wrong set-up is told in one line, with exit code 2, before any image is read."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beam_pipeline import cli, job
from tests.beam_pipeline.conftest import jpeg
from tests.conftest import Run

RULES = "version: 1\ndefaults:\n  objects:\n    person: {severity: alert}\n"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "hall_20260131T120000Z.jpg").write_bytes(jpeg())
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which a command is refused."""
    code = cli.main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    assert code == 2, told
    assert told.out == ""
    lines = told.err.strip().splitlines()
    assert len(lines) == 1, told.err
    assert "Traceback" not in told.err
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--input", "nowhere/at-all"], "nowhere/at-all: matches no file"),
        (["--input", "nowhere/*.jpg"], "*.jpg: matches no file"),
        (["--window_seconds", "0"], "--window_seconds: 0 is less than 1"),
        (["--window_seconds", "soon"], "'soon' is not a whole number"),
        (["--batch_size", "0"], "--batch_size: 0 is less than 1"),
        (["--min_score_kept", "1.5"], "1.5 is not between 0 and 1"),
        (["--min_score_kept", "nan"], "nan is not between 0 and 1"),
        (["--min_resolution", "160"], "is not WIDTHxHEIGHT"),
        (["--min_resolution", "900x900", "--max_resolution", "800x800"], "is larger than"),
        (["--chart_period_hours", "0"], "0 is not more than 0"),
        (["--ruels", "x"], "no such option: --ruels; did you mean --rules?"),
        (["--runer", "DirectRunner"], "no such option: --runer; did you mean --runner?"),
        (["--streaming"], "DirectRunner can't fire event-time windows of a stream; give --runner"),
        (["--poll_interval_seconds", "0"], "0 is less than 1"),
        (["--runner", "DirectRuner"], "no such runner; did you mean DirectRunner?"),
        (["--direct_num_workers", "two"], "--direct_num_workers: invalid int value: 'two'"),
        (["--labels", "Makefile"], "--labels Makefile: names no 'person'"),
        (["--model", "no-such-model"], "no-such-model: no such file or directory"),
        (["--model", "README.md"], "README.md: no model in it"),
        (["--rules", "no-such-rules.yaml"], "no-such-rules.yaml: no such file"),
        (["--labels", "no-such-labels"], "no-such-labels: no such file"),
        (["--alert_url", "ftp://example.com"], "--alert_url: not an address like"),
        (["--alert_max_age", "1 week"], "'1 week' is no duration; write a whole number and s, m"),
        (["--input", ""], "--input is empty"),
        (["judge"], "no such command: judge"),
        (["rules", "check", "no-such-rules.yaml"], "no-such-rules.yaml: no such file"),
        (["counts", "--output", "nowhere"], "no counts under nowhere"),
        (["chart", "--output", "nowhere"], "no counts under nowhere"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(job.__file__).parents[1])
    if arguments[0].startswith("-") and "--output" not in arguments:
        arguments = [*arguments, "--output", str(tmp_path / "output")]
    assert says in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ("version: 1\ncamera: {}\n", ":2: "),
        ("version: 1\ndefaults:\n  objects:\n    persom: {}\n", ":4: "),
        ("version: 1\ncameras:\n  hall: {profile: outside}\n", ":3: "),
        ("version: 1\ndefaults:\n  objects:\n    person: {min_score: 5}\n", ":4: "),
        ("version: [", "rules.yaml:"),
    ],
)
def test_wrong_rules_are_told_with_file_and_line(
    rules: str, says: str, capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(rules)
    line = refused(
        capsys,
        "--input",
        pictures,
        "--model",
        "bundled",
        "--rules",
        file,
        "--output",
        tmp_path / "o",
    )
    assert str(file) in line
    assert says in line
    assert not (tmp_path / "o" / "final").exists()


def test_an_output_that_is_a_file_is_refused(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("")
    line = refused(
        capsys, "--input", pictures, "--output", tmp_path / "taken", "--model", "bundled"
    )
    assert "taken: can't be written" in line


def test_an_output_within_the_input_is_refused(
    capsys: pytest.CaptureFixture[str], pictures: Path
) -> None:
    line = refused(capsys, "--input", pictures, "--output", pictures / "out", "--model", "bundled")
    assert "lies within --input" in line


def test_an_empty_directory_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    line = refused(capsys, "--input", tmp_path / "empty", "--output", tmp_path / "out")
    assert "has no files in it" in line


def test_labels_that_do_not_fit_are_refused(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("person\n7 car\n")
    line = refused(
        capsys,
        *("--input", pictures, "--output", tmp_path / "out", "--model", "bundled"),
        *("--labels", tmp_path / "labels.txt"),
    )
    assert "labels.txt:2:" in line


def test_counts_of_other_windows_in_the_output_are_not_mixed(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path
) -> None:
    counts = tmp_path / "out" / "counts"
    counts.mkdir(parents=True)
    (counts / "20260131T120000Z_20260131T121000Z.jsonl").write_text("")
    line = refused(capsys, "--input", pictures, "--output", tmp_path / "out", "--model", "bundled")
    assert "holds windows of 600 s" in line


def test_a_model_that_cannot_be_downloaded_says_how_to_give_one(
    capsys: pytest.CaptureFixture[str],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODEL_ZOO_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("MODEL_CACHE", str(tmp_path / "cache"))
    line = refused(capsys, "--input", pictures, "--output", tmp_path / "out")
    assert "ssd_mobilenet_v2_320x320_coco17_tpu-8.tar.gz: can't be downloaded" in line
    assert "give --model the path of a SavedModel's directory" in line


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ('{webhook: "https://a.example/${HOOK}", token: "${GUARD_TOKEN}"}', "GUARD_TOKEN"),
        ("{webhook: https://a.example, ca: no.pem}", "there is no file no.pem"),
    ],
)
def test_what_a_target_lacks_on_the_machine_that_sends_is_told_before_the_job_starts(
    target: str,
    missing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOOK", "hunter2")
    monkeypatch.delenv("GUARD_TOKEN", raising=False)
    file = tmp_path / "rules.yaml"
    text = f'version: 1\ntargets: {{guard: {target}, unused: {{webhook: "${{UNUSED}}"}}}}\n'
    file.write_text(f"{text}defaults: {{objects: {{person: }}, notify: [guard]}}\n")
    told = refused(capsys, "--rules", file, "--output", tmp_path / "out")
    assert "target 'guard'" in told
    assert missing in told
    assert "hunter2" not in told


def test_a_secret_in_an_alert_url_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert "hunter2" not in refused(capsys, "--alert_url", "htp://user:hunter2@example.com/hunter2")


def test_rules_check_says_what_each_camera_ends_up_with(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(RULES + "cameras:\n  hall: {objects: {person: {min_score: 0.7}}}\n")
    assert cli.main(["rules", "check", str(file)]) == 0
    told = capsys.readouterr().out
    assert "hall" in told
    assert "0.7" in told


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["run"],
        ["counts"],
        ["chart"],
        ["rules"],
        ["backtest"],
        ["pack"],
        ["export"],
        ["evaluate"],
        ["tune"],
        ["health"],
        ["alerts"],
    ],
)
def test_help_comes_in_under_two_seconds(command: list[str], run_job: Run) -> None:
    times = []
    for _ in range(3):  # The fastest of three: the machine may be busy.
        started = time.monotonic()
        told: subprocess.CompletedProcess[str] = run_job(*command, "--help")
        times.append(time.monotonic() - started)
        assert told.returncode == 0
        assert "usage: python -m beam_pipeline" in told.stdout
    assert min(times) < 2


def test_a_command_says_nothing_of_what_no_user_can_act_on(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\ncamera: {}\n")
    done = subprocess.run(
        [sys.executable, "-m", "beam_pipeline", "rules", "check", str(rules)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_ctrl_c_ends_with_one_line(tmp_path: Path) -> None:
    job = subprocess.Popen(
        [sys.executable, "-m", "beam_pipeline", "--output", str(tmp_path / "out")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "final").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 130
    assert said.strip() == "stopped; the same command with --resume goes on"
