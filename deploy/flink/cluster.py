#!/usr/bin/env python3
"""A Flink session cluster on this machine for the portable Beam job, without Docker.

    python deploy/flink/cluster.py fetch    # once: Flink, and Beam's job server for it
    python deploy/flink/cluster.py up
    python -m beam_pipeline $(python deploy/flink/cluster.py args) ...
    python deploy/flink/cluster.py down

A cluster is a run directory: configuration, logs, checkpoints, savepoints, and `cluster.json`,
which says where it listens. Several run side by side, each with `--run_dir` and free ports
(`--rest_port 0 --worker_pool_port 0`). Run it with the interpreter that has the job installed: its
workers are processes of that interpreter.

For pytest: `up(run_dir, ...)`, `down(run_dir)`, `read(run_dir).pids()`, `restart(run_dir, name)`.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import socket
import string
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
JOB_SERVER = HERE / "job-server"
FLINK_VERSION = "1.20.5"
# Flink's jars as the Python package index has them; of 230 MB, a session needs about half.
FLINK_PACKAGE = "apache-flink-libraries"
FLINK_SHA256 = "e6aee62ea1a1fe7b32e28894ad079f3f1a50a372a4caac3df52405267f4228c8"
NEEDED = re.compile(
    r"deps/(lib/(?:flink-dist|log4j)-[^/]+\.jar|bin/bash-java-utils\.jar"
    r"|plugins/metrics-prometheus/[^/]+\.jar)"
)
OLDEST_JAVA = 11

JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
# As in Flink's own config.yaml for Java 17; Kryo and the RPC need them.
OPENED = (
    *("java.lang", "java.net", "java.io", "java.nio", "sun.nio.ch", "java.lang.reflect"),
    *("java.text", "java.time", "java.util", "java.util.concurrent"),
    *("java.util.concurrent.atomic", "java.util.concurrent.locks"),
)
JAVA_OPTIONS = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED),
)
WORKERS = "workers"
STATE_FILE = "cluster.json"
GRACE_SECONDS = 10.0


class ClusterError(Exception):
    """An error that a person has to fix; the message is one line."""


# ---------------------------------------------------------------------------- fetch


@dataclass(frozen=True)
class Installation:
    """What `fetch` leaves behind.

    Attributes:
      flink: Flink's `lib`, `bin` and `plugins`.
      job_server_jar: Beam's job server for this Flink.
    """

    flink: Path
    job_server_jar: Path


def default_cache() -> Path:
    """Returns where the jars are kept."""
    return Path(os.environ.get("FLINK_HOME_CACHE") or "~/.cache/beam_pipeline/flink").expanduser()


def fetch(cache: Path | None = None) -> Installation:
    """Gets Flink and a job server, unless they are there.

    Raises:
      ClusterError: No Java, no Maven, no network.
    """
    cache = cache or default_cache()
    java()
    installation = installed(cache)
    if installation is not None:
        return installation
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Tests of several processes may all be the first.
        flink = _flink(cache)
        if not _complete(flink):
            _fetch_flink(flink)
        fitting, other = _job_server_jars(cache)
        if not fitting.exists() and not other.exists():
            _fetch_job_server(fitting, other)
    return Installation(flink, fitting if fitting.exists() else other)


def installed(cache: Path | None = None) -> Installation | None:
    """Returns what an earlier `fetch` left; None if it has to run."""
    cache = cache or default_cache()
    flink = _flink(cache)
    jar = next((jar for jar in _job_server_jars(cache) if jar.exists()), None)
    return Installation(flink, jar) if jar is not None and _complete(flink) else None


def java() -> str:
    """Returns the Java program.

    Raises:
      ClusterError: There is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    wanted = f"Flink needs Java {OLDEST_JAVA} or later, such as Debian's openjdk-17-jre-headless"
    if program is None:
        raise ClusterError(f"no java on the PATH and no JAVA_HOME; {wanted}")
    try:
        answer = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise ClusterError(f"{program}: {error.strerror}; {wanted}") from None
    version = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    if version is None:
        raise ClusterError(f"{program} -version does not say which Java it is; {wanted}")
    if int(version[1]) < OLDEST_JAVA:
        raise ClusterError(f"{program} is Java {version[1]}; {wanted}")
    return program


def _flink(cache: Path) -> Path:
    return cache / f"flink-{FLINK_VERSION}"


def _complete(flink: Path) -> bool:
    return (flink / ".complete").exists()


def _fetch_flink(flink: Path) -> None:
    _say(f"fetching Flink {FLINK_VERSION} (230 MB)")
    if importlib.util.find_spec("pip") is None:
        raise ClusterError(f"{sys.executable} has no pip; run `{sys.executable} -m ensurepip`")
    with tempfile.TemporaryDirectory(dir=flink.parent) as temporary:
        wanted = Path(temporary) / "requirements.txt"
        wanted.write_text(f"{FLINK_PACKAGE}=={FLINK_VERSION} --hash=sha256:{FLINK_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--no-binary", ":all:", "--require-hashes"]
        if importlib.util.find_spec("setuptools") is not None:
            command.append("--no-build-isolation")  # Otherwise pip gets setuptools first.
        command += ["--requirement", str(wanted), "--dest", temporary]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            raise ClusterError(
                f"pip could not download {FLINK_PACKAGE} {FLINK_VERSION}: "
                f"{_reason(answer.stderr + answer.stdout)}; is the package index reachable?"
            )
        unpacked = Path(temporary) / "flink"
        with tarfile.open(next(Path(temporary).glob("*.tar.gz"))) as archive:
            for member in archive:
                needed = NEEDED.fullmatch(member.name.partition("/")[2])
                content = archive.extractfile(member) if needed else None
                if needed and content is not None:
                    target = unpacked / needed[1]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as file:
                        shutil.copyfileobj(content, file)
        (unpacked / ".complete").touch()
        shutil.rmtree(flink, ignore_errors=True)
        unpacked.rename(flink)


def beam_profile() -> str:
    """Returns the profile of pom.xml that makes the job server of the Beam that is installed here.

    Raises:
      ClusterError: No Beam is installed.
    """
    try:
        major, minor, *_ = importlib.metadata.version("apache-beam").split(".")
    except importlib.metadata.PackageNotFoundError:
        raise ClusterError(
            f"{sys.executable} has no apache-beam; run this with the interpreter that has the job "
            "installed"
        ) from None
    return f"beam-{major}.{minor}"


def _job_server_jars(cache: Path) -> tuple[Path, Path]:
    """Returns where the job server that fits Beam is kept, and the one without a profile."""
    recipe = hashlib.sha256()
    for file in _recipe():
        recipe.update(b"%s\0%s\0" % (file.name.encode(), file.read_bytes()))
    folder, digest = cache / "job-server", recipe.hexdigest()[:12]
    return folder / f"{beam_profile()}-{digest}.jar", folder / f"assembled-{digest}.jar"


def _recipe() -> list[Path]:
    return [JOB_SERVER / "pom.xml", *sorted((JOB_SERVER / "src").rglob("*.java"))]


def _fetch_job_server(fitting: Path, other: Path) -> None:
    """Makes the job server that fits Beam; where its parts can't be had, the other."""
    maven = shutil.which("mvn")
    if maven is None:
        raise ClusterError("no mvn on the PATH; install Maven (Debian: maven)")
    if not Path(java()).resolve().with_name("javac").exists():
        raise ClusterError(
            f"{java()} has no javac beside it; install a JDK, such as Debian's "
            "openjdk-17-jdk-headless"
        )
    fitting.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=fitting.parent) as temporary:
        _say("assembling Beam's job server from its parts, some minutes")
        for file in _recipe():
            target = Path(temporary) / file.relative_to(JOB_SERVER)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        jar = fitting
        failed = _maven(
            maven, "--activate-profiles", beam_profile(), "package", directory=temporary
        )
        if failed is not None:
            _say(f"no job server of {beam_profile()} ({failed}): making that of pom.xml's version")
            jar = other
            failed = _maven(maven, "package", directory=temporary)
        if failed is not None:
            raise ClusterError(
                f"Maven could not make the job server: {failed}; is Maven Central, or the mirror "
                "in ~/.m2/settings.xml, reachable?"
            )
        built = Path(temporary) / "target" / "beam-flink-1.20-job-server.jar"
        built.rename(jar)


def _maven(program: str, *arguments: str, directory: str) -> str | None:
    """Runs Maven; None when it succeeded, else why it did not."""
    answer = subprocess.run(
        [program, "-B", "-q", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    return None if answer.returncode == 0 else _reason(answer.stdout + answer.stderr)


def _reason(output: str) -> str:
    """Returns the first error of a tool's output, without its decoration."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    error = next((line for line in lines if "ERROR" in line), lines[-1] if lines else "no output")
    error = re.sub(r"^\[?ERROR\]?:?\s*", "", error)
    error = re.sub(r"^Failed to execute goal .*? on project [^:]*: ", "", error)
    return error if len(error) <= 200 else error[:200] + "…"


# ---------------------------------------------------------------------------- the cluster


@dataclass(frozen=True)
class Cluster:
    """A cluster that was started; as `cluster.json` holds it."""

    run_dir: str
    rest_port: int
    worker_pool_port: int
    taskmanagers: int
    slots: int
    flink: str
    job_server_jar: str

    @property
    def rest(self) -> str:
        """The address of Flink's REST service and web page."""
        return f"http://127.0.0.1:{self.rest_port}"

    @property
    def names(self) -> list[str]:
        """Its processes, in the order in which they start."""
        numbers = range(1, self.taskmanagers + 1)
        return ["jobmanager", WORKERS, *(f"taskmanager-{number}" for number in numbers)]

    def path(self, *parts: str) -> Path:
        """Returns a path in the run directory."""
        return Path(self.run_dir, *parts)

    def pids(self) -> dict[str, int]:
        """Returns the process of each name; a name whose process is gone is left out."""
        running = set(_processes(self.path()))
        pids = {name: _read_pid(self.path("pids", f"{name}.pid")) for name in self.names}
        return {name: pid for name, pid in pids.items() if pid in running and pid is not None}

    def pipeline_options(self) -> list[str]:
        """Returns the options with which a Beam pipeline runs on it."""
        return [
            *("--runner", "FlinkRunner"),
            *("--flink_master", f"127.0.0.1:{self.rest_port}"),
            *("--flink_job_server_jar", self.job_server_jar),
            *("--environment_type", "EXTERNAL"),
            *("--environment_config", f"127.0.0.1:{self.worker_pool_port}"),
            *("--parallelism", str(self.taskmanagers * self.slots)),
        ]

    def get(self, path: str, timeout: float = 10) -> Any:
        """Returns what REST answers.

        Raises:
          OSError: It does not.
        """
        with urllib.request.urlopen(self.rest + path, timeout=timeout) as answer:
            return json.load(answer)


def default_run_dir() -> Path:
    """Returns the run directory of a cluster for which none is given."""
    return (
        Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state")
        .expanduser()
        .joinpath("beam_pipeline", "flink")
    )


def read(run_dir: Path) -> Cluster:
    """Returns the cluster of a run directory.

    Raises:
      ClusterError: None was started there.
    """
    try:
        return Cluster(**json.loads((run_dir / STATE_FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        raise ClusterError(
            f"no cluster was started in {run_dir}; run `make flink-up` first"
        ) from None


def up(
    run_dir: Path,
    *,
    rest_port: int = 8081,
    worker_pool_port: int = 50000,
    taskmanagers: int = 1,
    slots: int = 2,
    metrics_ports: str | None = None,
    settings: Mapping[str, str] | None = None,
    cache: Path | None = None,
    timeout: float = 120,
) -> Cluster:
    """Starts a cluster and waits until all its slots are there.

    Checkpoints and savepoints of an earlier cluster in the directory stay; jobs do not.

    Args:
      run_dir: Where everything of it goes.
      rest_port: 0 for a free one, here and for the next.
      metrics_ports: Where each Java process serves metrics to Prometheus, as one or a range of
        ports, like 9250-9260; on every interface of the machine, which Flink gives no choice in.
      settings: Keys of Flink's configuration with other values than `config.yaml` has.
      timeout: Seconds.

    Raises:
      ClusterError: It is running, a port is taken, or a process of it ended.
    """
    program = java()
    installation = installed(cache) or fetch(cache)
    run_dir = run_dir.resolve()
    if _processes(run_dir):
        raise ClusterError(f"a cluster is running in {run_dir}; run `down` first")
    with ExitStack() as ports:  # Held together, so that no two are the same.
        chosen = [ports.enter_context(_port(port)) for port in (rest_port, worker_pool_port, 0)]
    cluster = Cluster(
        run_dir=str(run_dir),
        rest_port=chosen[0],
        worker_pool_port=chosen[1],
        taskmanagers=taskmanagers,
        slots=slots,
        flink=str(installation.flink),
        job_server_jar=str(installation.job_server_jar),
    )
    for name in ("conf", "log", "pids", "state", "tmp"):
        cluster.path(name).mkdir(parents=True, exist_ok=True)
    values = {
        "rest_port": chosen[0],
        "rpc_port": chosen[2],
        "slots": slots,
        "state_uri": cluster.path("state").as_uri(),
        "tmp_dir": cluster.path("tmp"),
        "metrics": _metrics(metrics_ports),
    }
    template = string.Template((HERE / "config.yaml").read_text())
    config = template.substitute(values)
    for key, value in (settings or {}).items():
        config = re.sub(rf"^{re.escape(key)}:.*\n", "", config, flags=re.MULTILINE)
        config += f"{key}: {value}\n"
    cluster.path("conf", "config.yaml").write_text(config)
    shutil.copy(HERE / "log4j.properties", cluster.path("conf"))
    cluster.path(STATE_FILE).write_text(json.dumps(asdict(cluster), indent=2) + "\n")
    try:
        for name in cluster.names:
            _start(cluster, name, program)
        _wait_until_ready(cluster, timeout)
    except BaseException:
        down(run_dir)
        raise
    return cluster


def down(run_dir: Path) -> int:
    """Ends every process of a cluster, also orphans of killed ones; how many there were."""
    run_dir = run_dir.resolve()
    processes = _processes(run_dir)
    _end(run_dir, processes)
    for file in (run_dir / "pids").glob("*.pid"):
        file.unlink(missing_ok=True)
    shutil.rmtree(run_dir / "tmp", ignore_errors=True)
    return len(processes)


def restart(run_dir: Path, name: str, timeout: float = 120) -> int:
    """Starts a process of a running cluster again, ending it first if it still runs; its pid.

    Args:
      run_dir: The cluster's.
      name: Such as `taskmanager-1` or `workers`.
      timeout: Seconds to wait for all slots to be back.

    Raises:
      ClusterError: There is no such process, or it does not start.
    """
    cluster = read(run_dir.resolve())
    if name not in cluster.names:
        raise ClusterError(f"no process {name}; there are {', '.join(cluster.names)}")
    pid = cluster.pids().get(name)
    if pid is not None:
        # The pool's workers are in its session.
        group = [process for process in _processes(cluster.path()) if _session(process) == pid]
        _end(cluster.path(), group)
    _start(cluster, name, java())
    _wait_until_ready(cluster, timeout)
    return cluster.pids()[name]


def _start(cluster: Cluster, name: str, java_program: str) -> None:
    log = cluster.path("log")
    environment = {
        **os.environ,
        "FLINK_CONF_DIR": str(cluster.path("conf")),
        "FLINK_PLUGINS_DIR": str(Path(cluster.flink, "plugins")),
        "PYTHONUNBUFFERED": "1",
    }
    if name == WORKERS:
        command = [
            *(sys.executable, str(HERE / "worker_pool.py")),
            *("--port", str(cluster.worker_pool_port), "--log_dir", str(log)),
            # One word, as argparse would take what begins with -- for an option of its own.
            *(f"--mark={_mark(cluster.path())}", _mark(cluster.path())),
        ]
    else:
        command = _java_command(cluster, name, java_program)
    with (log / f"{name}.out").open("ab") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=cluster.path(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    cluster.path("pids", f"{name}.pid").write_text(f"{process.pid}\n")


def _java_command(cluster: Cluster, name: str, program: str) -> list[str]:
    conf = str(cluster.path("conf"))
    logging = f"-Dlog4j.configurationFile={cluster.path('conf', 'log4j.properties').as_uri()}"
    jars = os.pathsep.join(sorted(str(jar) for jar in Path(cluster.flink, "lib").glob("*.jar")))
    is_master = name == "jobmanager"
    kind = "JM" if is_master else "TM"
    # Flink works out the sizes of heap, direct memory and so on from the configuration.
    answer = subprocess.run(
        [
            *(program, logging, f"-Dlog.file={cluster.path('log', 'sizes.log')}"),
            *("-classpath", f"{Path(cluster.flink, 'bin', 'bash-java-utils.jar')}:{jars}"),
            "org.apache.flink.runtime.util.bash.BashJavaUtils",
            *(f"GET_{kind}_RESOURCE_PARAMS", "--configDir", conf),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    results = re.findall(r"^BASH_JAVA_UTILS_EXEC_RESULT:(.*)$", answer.stdout, re.MULTILINE)
    if answer.returncode != 0 or len(results) != 2:
        raise ClusterError(f"Flink refuses {conf}/config.yaml: {_java_error(answer.stderr)}")
    java_sizes, flink_sizes = (shlex.split(result) for result in results)
    command = [program, *java_sizes, *JAVA_OPTIONS, _mark(cluster.path(), java=True)]
    command += [logging, f"-Dlog.file={cluster.path('log', f'{name}.log')}"]
    command += ["-classpath", jars, JOB_MANAGER if is_master else TASK_MANAGER]
    command += ["--configDir", conf, *flink_sizes]
    if not is_master:
        command += ["-D", f"taskmanager.resource-id={name}-{int(time.time())}"]
    return command


def _java_error(text: str) -> str:
    errors = [line for line in text.splitlines() if "Exception" in line or "rror:" in line]
    return errors[-1].strip() if errors else "no reason given"


def _metrics(ports: str | None) -> str:
    if ports is None:
        return (
            "# ---- Metrics for Prometheus: off. `cluster.py up --metrics_ports 9250-9260` makes\n"
            "# each Java process serve them at the first of these ports that is free.\n"
        )
    return (
        "metrics.reporter.prom.factory.class: "
        "org.apache.flink.metrics.prometheus.PrometheusReporterFactory\n"
        f"metrics.reporter.prom.port: {ports}\n"
    )


def _wait_until_ready(cluster: Cluster, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    wanted = cluster.taskmanagers * cluster.slots
    missing: set[str] = set()
    while True:
        slots = 0
        try:
            # A task manager that was killed is listed until its heartbeat is missed.
            alive = cluster.get("/taskmanagers", timeout=5)["taskmanagers"]
            started = _ids_in_use(cluster)
            slots = sum(
                taskmanager["slotsNumber"] for taskmanager in alive if taskmanager["id"] in started
            )
        except (OSError, ValueError, KeyError):
            pass
        if slots >= wanted and _listens(cluster.worker_pool_port):
            return
        # Twice in a row: a process that was only just started has no command line at first.
        missing, before = set(cluster.names) - cluster.pids().keys(), missing
        for name in sorted(missing & before):
            raise ClusterError(f"{name} ended right after its start: {_last_words(cluster, name)}")
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{slots} of {wanted} slots after {timeout:g} s; see {cluster.path('log')}"
            )
        time.sleep(0.2)


def _ids_in_use(cluster: Cluster) -> set[str]:
    pids = cluster.pids().values()
    commands = (_arguments(pid) for pid in pids)
    return {
        argument.partition("=")[2]
        for command in commands
        for argument in command
        if argument.startswith("taskmanager.resource-id=")
    }


def _last_words(cluster: Cluster, name: str) -> str:
    for ending in ("log", "out"):
        try:
            lines = cluster.path("log", f"{name}.{ending}").read_text(errors="replace").splitlines()
        except OSError:
            continue
        errors = [line for line in lines if re.search(r"Exception|Error|error", line)]
        if errors:
            return f"{errors[-1].strip()[:300]} ({cluster.path('log')})"
    return f"see {cluster.path('log')}"


@contextmanager
def _port(port: int) -> Iterator[int]:
    with socket.socket() as probe:
        # As servers do: the port of a cluster that was just stopped is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ClusterError(
                f"port {port} is taken; choose another, or 0 for a free one"
            ) from None
        yield probe.getsockname()[1]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


# ---------------------------------------------------------------------------- processes
# An argument of each process shows to which cluster it belongs, not its pid file:
# that is lost with the directory, and its number may be another process's by now.


def _mark(run_dir: Path, java: bool = False) -> str:
    return f"{'-D' if java else '--'}beam_pipeline.cluster={run_dir}"


def _processes(run_dir: Path) -> list[int]:
    marks = {_mark(run_dir), _mark(run_dir, java=True)}
    return [pid for pid, arguments in _all_processes() if marks.intersection(arguments)]


def _all_processes() -> Iterator[tuple[int, list[str]]]:
    if os.path.isdir("/proc/self"):
        for name in os.listdir("/proc"):
            if name.isdecimal() and int(name) != os.getpid():
                yield int(name), _arguments(int(name))
        return
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,stat=,args="], capture_output=True, text=True, check=True
    )
    for line in listed.stdout.splitlines():
        pid, state, *arguments = line.split()
        if not state.startswith("Z"):
            yield int(pid), arguments


def _arguments(pid: int) -> list[str]:
    """Empty for a process that has ended, also if its parent has not noticed."""
    if os.path.isdir("/proc/self"):
        try:
            return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
        except OSError:
            return []
    return next((arguments for process, arguments in _all_processes() if process == pid), [])


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _read_pid(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _end(run_dir: Path, pids: Sequence[int]) -> None:
    deadline = time.monotonic() + GRACE_SECONDS
    number = signal.SIGTERM
    left = list(pids)
    while left:
        for pid in left:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        while left and time.monotonic() < deadline:
            time.sleep(0.1)
            # Those that this process started are its children, to be waited for.
            for pid in left:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    pass
            left = [pid for pid in left if pid in _processes(run_dir)]
        number, deadline = signal.SIGKILL, time.monotonic() + 2


# ---------------------------------------------------------------------------- command line


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ClusterError(f"{message} (see --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=text, description=text)
        subparser.add_argument(
            "--run_dir",
            type=Path,
            default=default_run_dir(),
            help="the cluster's directory (default: %(default)s)",
        )
        return subparser

    def cache(subparser: argparse.ArgumentParser) -> None:
        subparser.add_argument(
            "--cache",
            type=Path,
            default=default_cache(),
            help="where the jars are kept (default: FLINK_HOME_CACHE or %(default)s)",
        )

    cache(commands.add_parser("fetch", help="get Flink and Beam's job server, unless there"))
    start = command("up", "start a cluster")
    cache(start)
    start.add_argument("--rest_port", type=int, default=8081, help="0: a free one (%(default)s)")
    start.add_argument(
        "--worker_pool_port", type=int, default=50000, help="0: a free one (%(default)s)"
    )
    start.add_argument("--taskmanagers", type=int, default=1, metavar="N", help="(%(default)s)")
    start.add_argument("--slots", type=int, default=2, help="of each (%(default)s)")
    start.add_argument(
        "--metrics_ports",
        metavar="PORTS",
        help="serve Flink's metrics to Prometheus, like 9250-9260; on every interface",
    )
    command("down", "stop a cluster")
    command("status", "what a cluster is doing")
    command("args", "the pipeline options with which a job runs on a cluster")
    subparser = command("restart-taskmanager", "start a task manager again")
    subparser.add_argument("--index", type=int, default=1, help="(%(default)s)")
    command("restart-workers", "start the Python workers again")
    return parser


def _status(cluster: Cluster) -> str:
    running = cluster.pids()
    lines = [f"{name}: {running.get(name, 'not running')}" for name in cluster.names]
    try:
        overview = cluster.get("/overview")
        jobs = cluster.get("/jobs/overview")["jobs"]
    except OSError as error:
        raise ClusterError(f"{cluster.rest} does not answer: {error}; {'; '.join(lines)}") from None
    free, total = overview["slots-available"], overview["slots-total"]
    lines.append(
        f"Flink {overview['flink-version']} at {cluster.rest}, {free} of {total} slots free"
    )
    lines += [f"job {job['jid']} {job['state']} {job['name']}" for job in jobs]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; its exit code: 0 done, 1 not."""
    try:
        options = _parser().parse_args(arguments)
        run_dir: Path = getattr(options, "run_dir", default_run_dir()).expanduser().resolve()
        if options.command == "fetch":
            installation = fetch(options.cache)
            print(f"Flink {FLINK_VERSION}: {installation.flink}")
            print(f"job server: {installation.job_server_jar}")
        elif options.command == "up":
            cluster = up(
                run_dir,
                rest_port=options.rest_port,
                worker_pool_port=options.worker_pool_port,
                taskmanagers=options.taskmanagers,
                slots=options.slots,
                metrics_ports=options.metrics_ports,
                cache=options.cache,
            )
            print(_status(cluster))
        elif options.command == "down":
            print(f"{down(run_dir)} processes ended")
        elif options.command == "status":
            print(_status(read(run_dir)))
        elif options.command == "args":
            print(shlex.join(read(run_dir).pipeline_options()))
        elif options.command == "restart-taskmanager":
            print(restart(run_dir, f"taskmanager-{options.index}"))
        else:
            print(restart(run_dir, WORKERS))
    except ClusterError as error:
        print(f"cluster.py: {error}", file=sys.stderr)
        if options.command == "args":  # In $(make -s flink-args): the job is not to run elsewhere.
            print("--no_flink_cluster_was_started")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
