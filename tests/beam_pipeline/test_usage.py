"""A wrong set-up is reported in one line, with exit code 2, before any image is read."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beam_pipeline import cli
from beam_pipeline.bundled import BUNDLED_MODEL
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.job.options import job_options
from beam_pipeline.job.preparation import prepare
from tests.beam_pipeline.conftest import jpeg, refused

RULES = "version: 1\ndefaults:\n  objects:\n    person: {severity: alert}\n"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "hall_20260131T120000Z.jpg").write_bytes(jpeg())
    return folder


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
        (["--streaming", "--prism_location", "/no/prism"], "/no/prism: is no program; give"),
        (["--poll_interval_seconds", "0"], "0 is less than 1"),
        (["--runner", "DirectRuner"], "no such runner; did you mean DirectRunner?"),
        (["--direct_num_workers", "two"], "--direct_num_workers: invalid int value: 'two'"),
        (["--labels", "Makefile"], "--labels Makefile: names no 'person'"),
        (["--model", "no-such-model"], "no-such-model: no such file or directory"),
        (["--model", "README.md"], "README.md: no model in it"),
        (["--rules", "no-such-rules.yaml"], "no-such-rules.yaml: no such file"),
        (["--labels", "no-such-labels"], "no-such-labels: no such file"),
        (["--alert_url", "ftp://example.com"], "--alert_url: not an address like"),
        (
            ["--alert_url", "me@gmail.com"],
            "{apprise: 'mailtos://me:${MAIL_PASSWORD}@gmail.com?smtp",
        ),
        (
            ["--alert_max_age", "1 week"],
            "'1 week' is not a duration; write a whole number and s, m",
        ),
        (["--input", ""], "--input is empty"),
        (
            ["--input", "rtsp://robot:hunter2@192.168.1.64:554/stream1"],
            "--input rtsp://…: is not a store; see docs/cameras.md",
        ),
        (["--input", "RTSPS://cam"], "--input RTSPS://…: is not a store; see docs/cameras.md"),
        (["--input", "ftp://nas/cam"], "--input ftp://…: is not a store; see docs/cameras.md"),
        (["--input", "https://nas/cam"], "--input https://…: is not a store; see docs/cameras.md"),
        (["judge"], "no such command: judge"),
        (["rules", "check", "no-such-rules.yaml"], "no-such-rules.yaml: no such file"),
        (["counts", "--output", "nowhere"], "no counts under nowhere"),
        (["chart", "--output", "nowhere"], "no counts under nowhere"),
    ],
)
def test_a_wrong_option_is_reported_in_one_line(
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(cli.__file__).parents[1])
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
def test_wrong_rules_are_reported_with_file_and_line(
    rules: str, says: str, capsys: pytest.CaptureFixture[str], images: Path, tmp_path: Path
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(rules)
    line = refused(
        capsys,
        "--input",
        images,
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
    capsys: pytest.CaptureFixture[str], images: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("")
    line = refused(capsys, "--input", images, "--output", tmp_path / "taken", "--model", "bundled")
    assert "taken: can't be written" in line


def test_an_output_within_the_input_is_refused(
    capsys: pytest.CaptureFixture[str], images: Path
) -> None:
    line = refused(capsys, "--input", images, "--output", images / "out", "--model", "bundled")
    assert "is inside --input" in line


def test_an_empty_directory_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    line = refused(capsys, "--input", tmp_path / "empty", "--output", tmp_path / "out")
    assert "contains no files" in line


def test_labels_that_do_not_fit_are_refused(
    capsys: pytest.CaptureFixture[str], images: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("person\n7 car\n")
    line = refused(
        capsys,
        *("--input", images, "--output", tmp_path / "out", "--model", "bundled"),
        *("--labels", tmp_path / "labels.txt"),
    )
    assert "labels.txt:2:" in line


def test_counts_of_other_windows_in_the_output_are_not_mixed(
    capsys: pytest.CaptureFixture[str], images: Path, tmp_path: Path
) -> None:
    counts = tmp_path / "out" / "counts"
    counts.mkdir(parents=True)
    (counts / "20260131T120000Z_20260131T121000Z.jsonl").write_text("")
    arguments = ("--input", images, "--output", tmp_path / "out", "--model", "bundled")
    line = refused(capsys, *arguments)
    assert "holds windows of 600 s" in line
    assert "; give --window_seconds 600, choose another --output, or delete its counts/" in line
    (tmp_path / "out" / "packed").mkdir()
    period = "20260131T120000Z_20260131T121000Z"
    (tmp_path / "out" / "packed" / f"{period}_{'0' * 16}.parquet").write_bytes(b"")
    both = "; give --window_seconds 600 and --repository packed, as its results are packed, "
    assert both in refused(capsys, *arguments)
    assert both not in refused(capsys, *arguments, "--repository", "packed")


def test_a_model_that_cannot_be_downloaded_says_how_to_give_one(
    capsys: pytest.CaptureFixture[str],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODEL_ZOO_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("MODEL_CACHE", str(tmp_path / "cache"))
    line = refused(capsys, "--input", images, "--output", tmp_path / "out")
    assert "efficientdet_d0_coco17_tpu-32.tar.gz: can't be downloaded" in line
    assert "give --model the path of a SavedModel's directory" in line


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ('{webhook: "https://a.example/${HOOK}", token: "${GUARD_TOKEN}"}', "GUARD_TOKEN"),
        ("{webhook: https://a.example, ca: no.pem}", "there is no file no.pem"),
        ("{webhook: https://a.example, ca: KEY}", "key.pem, which it names as its ca, holds no"),
    ],
)
def test_what_a_target_lacks_on_the_machine_that_sends_is_reported_before_the_job_starts(
    target: str,
    missing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOOK", "hunter2")
    monkeypatch.delenv("GUARD_TOKEN", raising=False)
    file = tmp_path / "rules.yaml"
    key = tmp_path / "key.pem"
    key.write_text("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n")
    target = target.replace("ca: KEY", f"ca: {key}")
    text = f'version: 1\ntargets: {{guard: {target}, unused: {{webhook: "${{UNUSED}}"}}}}\n'
    file.write_text(f"{text}defaults: {{objects: {{person: }}, notify: [guard]}}\n")
    line = refused(capsys, "--rules", file, "--output", tmp_path / "out")
    assert "target 'guard'" in line
    assert missing in line
    assert "hunter2" not in line


def test_a_secret_in_an_alert_url_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert "hunter2" not in refused(capsys, "--alert_url", "htp://user:hunter2@example.com/hunter2")


def test_a_job_whose_links_can_not_be_signed_does_not_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(
        'version: 1\nconsole: {url: "https://c.example", key: "${MARK_KEY}"}\n'
        "defaults: {objects: {person: }}\n"
    )
    words = ("--rules", file, "--output", tmp_path / "out", "--alert_url", "https://a.example/")
    monkeypatch.delenv("MARK_KEY", raising=False)
    assert "console of the rules needs the environment variable MARK_KEY" in refused(capsys, *words)
    monkeypatch.setenv("MARK_KEY", "hunter2")
    line = refused(capsys, *words)
    assert "console.key of the rules: a key of links has fewer than 32 characters" in line
    assert "hunter2" not in line


@pytest.mark.parametrize("command", [(), ("alerts", "resend")])
@pytest.mark.parametrize(
    ("url", "says"),
    [
        (
            "https://a.example/${ALERT_HOOK}",
            "--alert_url needs the environment variable ALERT_HOOK",
        ),
        ("${ALERT_HOOK}", "--alert_url needs the environment variable ALERT_HOOK"),
        ("${HUNTER}", "--alert_url: not an address like"),
        ("https://${PORTLESS}/x", "--alert_url: not an address like"),
    ],
)
def test_what_an_alert_url_lacks_is_reported_at_once_and_no_secret_with_it(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: tuple[str, ...],
    url: str,
    says: str,
) -> None:
    monkeypatch.delenv("ALERT_HOOK", raising=False)
    monkeypatch.setenv("HUNTER", "hunter2")
    monkeypatch.setenv("PORTLESS", "hunter2:hunter2")
    line = refused(capsys, *command, "--alert_url", url, "--output", tmp_path)
    assert says in line
    assert "hunter2" not in line


def test_rules_check_says_what_each_camera_ends_up_with(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(RULES + "cameras:\n  hall: {objects: {person: {min_score: 0.7}}}\n")
    assert cli.main(["rules", "check", str(file)]) == 0
    stdout = capsys.readouterr().out
    assert "hall" in stdout
    assert "0.7" in stdout


@pytest.mark.parametrize("command", [[], *([name] for name in cli.COMMANDS)])
def test_help_takes_less_than_two_seconds_of_a_processor(command: list[str]) -> None:
    """Whatever else the machine does meanwhile."""
    seconds = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.run(
            [sys.executable, "-m", "beam_pipeline", *command, "--help"],
            capture_output=True,
            text=True,
            check=False,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        assert process.returncode == 0
        assert "usage: python -m beam_pipeline" in process.stdout
    assert min(seconds) < 2


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = capsys.readouterr().out.partition("Other commands: ")[2].partition(";")[0]
    assert {"run", *listed.replace(",", "").split()} == set(cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_imports_nothing_heavy_before_its_arguments_are_read(name: str) -> None:
    program = f"""
import contextlib, sys
from beam_pipeline import cli
with contextlib.suppress(SystemExit):
    cli.main([{name!r}, "--help"])
heavy = {{"apache_beam", "tensorflow", "numpy", "matplotlib", "PIL", "boto3", "google.api_core"}}
sys.exit(", ".join(heavy & set(sys.modules)) or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.startswith("usage: ")


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
    _, stderr = job.communicate(timeout=60)
    assert job.returncode == 130
    # A busy machine takes longer, and progress is shown then.
    lines = [line for line in stderr.splitlines() if " images done, " not in line]
    assert lines == ["stopped; run the same command with --resume to continue"]


def test_what_workers_load_by_its_path_is_known_by_an_absolute_one(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers on a cluster have another working directory."""
    (tmp_path / "models").symlink_to(BUNDLED_MODEL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.yaml").write_text(RULES)
    arguments = ["--input", "pictures", "--output", "out", "--model", "models"]
    made = prepare(job_options([*arguments, "--rules", "rules.yaml"]))
    assert (made.input, made.output) == (str(tmp_path / "pictures"), str(tmp_path / "out"))
    assert (made.model.source, made.rules_source) == (
        str(tmp_path / "models"),
        str(tmp_path / "rules.yaml"),
    )


def test_a_relative_ca_is_refused_where_other_machines_send(images: Path, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(
        "version: 1\ntargets: {guard: {webhook: https://a.example, ca: own.pem}}\n"
        "defaults: {objects: {person: }, notify: [guard]}\n"
    )
    arguments = ["--input", str(images), "--output", str(tmp_path / "out"), "--model", "bundled"]
    with pytest.raises(SetupError, match=r"target 'guard' .* own\.pem .* give an absolute path"):
        prepare(job_options([*arguments, "--rules", str(file)]), sends_here=False)
