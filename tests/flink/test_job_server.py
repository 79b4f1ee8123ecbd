"""The job server that `make flink-up` makes is that of the Beam that is installed."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.flink.stream_job import flink_cluster

ROOT = Path(__file__).parents[2]
POM = ROOT / "deploy/flink/job-server/pom.xml"
SPACE = {"m": "http://maven.apache.org/POM/4.0.0"}
PROFILE = "beam-" + ".".join(metadata.version("apache-beam").split(".")[:2])

MAVEN = """\
#!/bin/sh
echo "$@" >> "{calls}"
case "$*" in {fails}) echo "[ERROR] Could not find artifact org.apache.beam:runner"; exit 1 ;; esac
mkdir target && echo "$@" > target/beam-flink-1.20-job-server.jar
"""


class Machine:
    """A machine with Java and a Maven that stands for one with a partial mirror.

    Attributes:
      cache: Where jars are kept; Flink is there.
      calls: The arguments of each call of Maven.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache = folder / "cache"
        self._log = folder / "calls"
        self._programs = folder / "bin"
        self._programs.mkdir()
        self._install("java", "#!/bin/sh\necho 'openjdk version \"17.0.1\"' >&2\n")
        self._install("javac", "#!/bin/sh\n")
        flink = self.cache / f"flink-{flink_cluster.FLINK_VERSION}"
        flink.mkdir(parents=True)
        (flink / ".complete").touch()
        monkeypatch.setenv("JAVA_HOME", str(folder))
        monkeypatch.setenv("PATH", str(self._programs), prepend=":")

    def _install(self, name: str, text: str) -> None:
        path = self._programs / name
        path.write_text(text)
        path.chmod(0o755)

    def maven(self, fails: str) -> None:
        """Maven fails for arguments of this pattern."""
        self._install("mvn", MAVEN.format(calls=self._log, fails=fails))

    @property
    def calls(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def fetch(self) -> Path:
        jar = flink_cluster.fetch(self.cache).job_server_jar
        assert isinstance(jar, Path)
        return jar


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def properties(profile: str) -> dict[str, str | None]:
    """What a profile of pom.xml sets."""
    project = ElementTree.parse(POM).getroot()
    for found in project.iterfind("m:profiles/m:profile", SPACE):
        if found.findtext("m:id", namespaces=SPACE) == profile:
            (listed,) = found.iterfind("m:properties", SPACE)
            return {element.tag.partition("}")[2]: element.text for element in listed}
    raise AssertionError(f"pom.xml has no profile {profile}")


def test_each_installed_beam_has_a_job_server_of_its_version() -> None:
    profile = properties(PROFILE)
    beam = metadata.version("apache-beam")
    assert (profile["beam.version"], profile["beam.job-service.version"]) == (beam, beam)


def test_each_pinned_beam_has_a_job_server() -> None:
    pinned = re.findall(r"^apache-beam==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert len(pinned) == 2
    for beam in pinned:
        assert properties(f"beam-{beam.rpartition('.')[0]}")["beam.version"] == beam


def test_the_image_has_the_job_server_of_its_beam() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (beam,) = re.findall(r"beam_python[\d.]+_sdk:(\d+\.\d+)\.\d+\n", dockerfile)
    assert re.findall(r"mvn .*-P (\S+)", dockerfile) == [f"beam-{beam}"]


def test_the_job_server_is_that_of_the_installed_beam(machine: Machine) -> None:
    machine.maven(fails="none")
    jar = machine.fetch()
    assert jar.name.startswith(f"{PROFILE}-")
    assert f"--activate-profiles {PROFILE} package" in jar.read_text()
    assert machine.fetch() == jar
    assert len(machine.calls) == 1


def test_where_its_parts_cannot_be_had_the_one_that_was_tried_is_made(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.maven(fails="*--activate-profiles*")
    jar = machine.fetch()
    assert jar.name.startswith("assembled-")
    assert "profile" not in jar.read_text()
    assert (
        f"no job server of {PROFILE} (Could not find artifact org.apache.beam:runner): "
        "making that of pom.xml's version\n"
    ) in capsys.readouterr().err
    assert machine.fetch() == jar
    assert len(machine.calls) == 2


def test_where_none_can_be_made_a_line_says_why(machine: Machine) -> None:
    machine.maven(fails="*")
    with pytest.raises(flink_cluster.ClusterError, match="Could not find artifact"):
        machine.fetch()
    assert list((machine.cache / "job-server").iterdir()) == []
