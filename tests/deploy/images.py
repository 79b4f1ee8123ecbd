"""The Dockerfile's images, built by buildah without a registry.

A machine without one has none of the images that the Dockerfile starts from. Stand-ins for them are
made here of what package indexes give: Debian's own Python 3.13 for the Python image, Beam's boot
program compiled from its Go module, this machine's JDK and Maven for theirs. Dataflow's launcher is
published nowhere else: a file that names it stands for it.

Images lie in a storage of their own, which goes with its directory; processes of a test run share
it. Isolation is by chroot only: a
container sees the network and the processes of the machine, or of the namespaces it is started in.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = "http://deb.debian.org/debian"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
BOOT_VERSION = "v2.77.0"
BASES = ("python", "beam", "maven", "java", "launcher")
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "default-timeout")
NEEDED = ("buildah", "mmdebstrap", "go", "javac", "mvn", "unshare", "nsenter", "ip")


def missing() -> list[str]:
    """What this machine lacks for building images."""
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    return lacking if os.geteuid() == 0 else [*lacking, "root's rights"]


def execute(*command: str | os.PathLike[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; fails with what it said where it fails."""
    finished = subprocess.run(
        [os.fspath(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
    return finished


class Images:
    """A storage of images and the commands on it.

    Args:
      place: A directory, empty before they are built.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._buildah = (
            "buildah",
            "--root",
            str(folder / "root"),
            "--runroot",
            str(folder / "run"),
        )

    def build(self, name: str, *, target: str | None = None) -> None:
        """Builds an image of the Dockerfile; what an earlier build made is not made again."""
        stage = () if target is None else ("--target", target)
        # Docker's own format: OCI's has no health check.
        bases = (f"{base.upper()}_IMAGE=localhost/{base}" for base in BASES)
        arguments = [word for base in bases for word in ("--build-arg", base)]
        options = ("--layers", "--jobs", "3", "--format", "docker", *stage, *arguments)
        # Of Maven's repository; a container's own is empty.
        maven = ("--volume", f"{Path.home()}/.m2:/root/.m2")
        self.bud("--tag", name, *options, *maven, ROOT)

    def bud(self, *arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
        """`buildah bud`."""
        return execute(*self._buildah, "bud", "--isolation", "chroot", *arguments, timeout=3000)

    def configuration(self, name: str) -> Any:
        """What an image says of itself, as Docker writes it."""
        description = execute(*self._buildah, "inspect", "--type", "image", name).stdout
        return json.loads(description)["Docker"]["config"]

    def start(self, name: str) -> Container:
        """A container of an image, in which nothing runs yet."""
        container = execute(*self._buildah, "from", name).stdout.strip()
        return Container(self._buildah, container, self.configuration(name))

    def remove(self) -> None:
        """Removes everything, mounted layers first."""
        execute(*self._buildah, "rm", "--all")
        execute(*self._buildah, "rmi", "--all", "--force")
        shutil.rmtree(self._folder)

    def make_bases(self) -> None:
        """The stand-ins for the images that the Dockerfile names."""
        with ThreadPoolExecutor() as at_once:
            for made in [at_once.submit(make) for make in (self._python, self._beam, self._java)]:
                made.result()
        self._base("maven", MAVEN, "java", "maven")
        launcher = self._folder / "launcher/opt/google/dataflow/python_template_launcher"
        launcher.parent.mkdir(parents=True)
        launcher.write_text("Dataflow's launcher\n")
        self._base("launcher", "FROM scratch\nCOPY launcher /\n", "launcher")

    def _base(self, name: str, instructions: str, *needs: str) -> None:
        context = self._folder / f"{name}-context"
        context.mkdir()
        for need in needs:
            (self._folder / need).rename(context / need)
        (context / "Dockerfile").write_text(instructions)
        self.bud("--tag", f"localhost/{name}", context)
        for need in needs:
            (context / need).rename(self._folder / need)

    def _python(self) -> None:
        execute(
            *("mmdebstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates"),
            # It is thrown away: it need not be safe from a loss of power.
            "--dpkgopt=force-unsafe-io",
            *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale")),
            *("trixie", self._folder / "debian.tar", DEBIAN),
            timeout=1200,
        )
        # A package index behind a mirror is found, and trusted, as this machine finds it.
        shutil.copy(CERTIFICATES, self._folder)
        listed = execute(sys.executable, "-m", "pip", "config", "list").stdout
        settings = dict(line.split("=", 1) for line in listed.splitlines())
        kept = {
            name.rpartition(".")[2]: ast.literal_eval(value) for name, value in settings.items()
        }
        lines = [f"{name} = {kept[name]}" for name in PIP_SETTINGS if name in kept]
        lines = ["[global]", f"cert = {CERTIFICATES}", *lines]
        (self._folder / "pip.conf").write_text("\n".join(lines) + "\n")
        self._base("python", PYTHON, "debian.tar", CERTIFICATES.name, "pip.conf")

    def _beam(self) -> None:
        target = self._folder / "beam/opt/apache/beam"
        target.mkdir(parents=True)
        module = self._folder / "boot"
        module.mkdir()
        go = {**os.environ, "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
        requirement = f"require github.com/apache/beam/sdks/v2 {BOOT_VERSION}"
        (module / "go.mod").write_text(f"module boot\n\n{requirement}\n")
        package = "github.com/apache/beam/sdks/v2/python/container"
        execute(*("go", "build", "-o", target / "boot", package), cwd=module, env=go, timeout=1200)
        for notice in ("LICENSE", "NOTICE"):
            (target / notice).write_text("Apache Beam\n")
        self._base("beam", "FROM scratch\nCOPY beam /\n", "beam")

    def _java(self) -> None:
        javac = shutil.which("javac")
        assert javac is not None
        # Debian's are full of links to elsewhere, some to nothing.
        for source, target in (
            (Path(javac).resolve().parents[1], "java/opt/java/openjdk"),
            (Path("/usr/share/maven"), "maven/usr/share/maven"),
        ):
            shutil.copytree(source, self._folder / target, ignore=_dangling)
        self._base("java", "FROM scratch\nCOPY java /\n", "java")


def _dangling(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not os.path.exists(os.path.join(folder, name))]


# As in the Python image, `python` and what pip installs are in /usr/local.
PYTHON = """\
FROM scratch
ADD debian.tar /
COPY ca-certificates.crt /etc/ssl/certs/
COPY pip.conf /etc/
RUN python3 -m venv --copies /usr/local
"""
MAVEN = """\
FROM localhost/python
COPY java /
COPY maven /
RUN ln -s /usr/share/maven/bin/mvn /usr/bin/mvn
ENV JAVA_HOME=/opt/java/openjdk
"""


class Container:
    """A container of an image.

    Args:
      buildah: The command, with its storage.
      name: The container's.
      configuration: The image's.
    """

    def __init__(self, buildah: Sequence[str], name: str, configuration: Any) -> None:
        self._buildah = buildah
        self._name = name
        self._configuration = configuration

    def command(
        self,
        *arguments: str | os.PathLike[str],
        entrypoint: Sequence[str] | None = None,
        volumes: Sequence[str] = (),
        user: str | None = None,
    ) -> list[str]:
        """What runs the image with arguments, as `docker run` would."""
        mounts = [word for volume in volumes for word in ("--volume", volume)]
        identity = [] if user is None else ["--user", user]
        words = [*(self._configuration["Entrypoint"] if entrypoint is None else entrypoint)]
        words += map(os.fspath, arguments)
        # A container engine makes the name of its host one that can be looked up.
        run = [*self._buildah, "run", "--isolation", "chroot", "--hostname", "localhost"]
        return [*run, *mounts, *identity, self._name, "--", *words]

    def run(self, *arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs the image to its end."""
        return subprocess.run(
            self.command(*arguments, **options),
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
