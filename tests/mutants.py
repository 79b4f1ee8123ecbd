"""Changes the code a little, one change at a time, and says which changes no test notices.

    python -m tests.mutants --sample 200 --seed 1
    python -m tests.mutants --module rules/schedule.py --minutes 5

The changes are cosmic-ray's (another operator, another number, a loop that never runs ...), and one
of our own: a keyword argument that is given None. Each module is held against its own test files
only, in a copy of the checkout, and in a process that is forked with every large library loaded, so
that a change costs seconds. A change of a type annotation is left out: it can't have an effect. So
are those of `mutants_explained.yaml`, which says why no user could see them.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXPLAINED = Path(__file__).with_name("mutants_explained.yaml")
_RULES = ("judging", "filters", "image_and_verdict", "track")

TESTS: dict[str, tuple[str, ...]] = {
    "rules/__init__.py": (),  # Names only.
    "rules/camera_ids.py": ("rules/test_name_patterns.py",),
    "rules/name_presets.py": ("rules/test_name_patterns.py",),
    "rules/names.py": ("rules/test_names.py", "rules/test_name_patterns.py"),
    "rules/cooldown.py": (
        *("rules/test_cooldown.py", "rules/test_history.py", "rules/test_properties.py"),
    ),
    "rules/describing.py": ("rules/test_describing.py",),
    "rules/document.py": ("rules/test_document.py", "rules/test_mistakes.py"),
    "rules/effective.py": (
        *("rules/test_loading.py", "rules/test_describing.py", "rules/test_history.py"),
        "rules/test_cooldown.py",
        *("rules/test_filters.py", "rules/test_schedule.py", "rules/test_geometry.py"),
    ),
    "rules/errors.py": ("rules/test_mistakes.py",),
    "rules/explaining.py": ("rules/test_explaining.py",),
    "rules/frozen.py": ("rules/test_loading.py",),
    "rules/geometry.py": ("rules/test_geometry.py", "rules/test_track.py"),
    "rules/history.py": (
        *("rules/test_history.py", "rules/test_track.py", "rules/test_cooldown.py"),
        "rules/test_properties.py",
    ),
    "rules/local_times.py": ("rules/test_local_times.py",),
    "rules/json_schema.py": ("rules/test_schema_file.py",),
    "rules/judging.py": tuple(f"rules/test_{name}.py" for name in (*_RULES, "explaining")),
    "rules/loading.py": ("rules/test_loading.py", "rules/test_mistakes.py"),
    "rules/mistakes.py": ("rules/test_mistakes.py", "rules/test_targets.py"),
    "rules/records.py": ("rules/test_image_and_verdict.py", "rules/test_explaining.py"),
    "rules/retention_schema.py": ("rules/test_retention.py",),
    "rules/ruleset.py": ("rules/test_loading.py", "rules/test_judging.py"),
    "rules/schedule.py": ("rules/test_schedule.py",),
    "rules/schema.py": ("rules/test_mistakes.py", "rules/test_loading.py"),
    "rules/schema_types.py": ("rules/test_mistakes.py", "rules/test_loading.py"),
    "rules/target_schema.py": ("rules/test_targets.py", "rules/test_mistakes.py"),
    "rules/targets.py": ("rules/test_targets.py",),
    "rules/templates.py": ("rules/test_templates.py",),
    "rules/text.py": ("rules/test_mistakes.py",),
    "beam_pipeline/job/options.py": (
        "beam_pipeline/job/test_options.py",
        "beam_pipeline/job/test_options_by_effect.py",
        "beam_pipeline/test_usage.py::test_a_wrong_option_is_reported_in_one_line",
        "deploy/test_dataflow.py",
    ),
    "beam_pipeline/job/pipeline.py": (
        "beam_pipeline/job/test_options_by_effect.py",
        "beam_pipeline/job/test_pipeline.py",
    ),
    "transforms/__init__.py": (),
    "transforms/alerting/alerts.py": (
        "transforms/test_send_alerts.py",
        "transforms/records/test_clocks.py",
        "transforms/alerting/test_delivery.py",
    ),
    "transforms/alerting/answers.py": (
        *("transforms/alerting/test_answers.py", "transforms/alerting/test_target_clients.py"),
        "transforms/alerting/test_delivery.py",
    ),
    "transforms/read_detections.py": ("beam_pipeline/test_detections_job.py",),
    "transforms/storage/archive.py": (
        "transforms/storage/test_archive.py",
        "transforms/test_store_packed.py",
    ),
    "transforms/storage/packed_rows.py": ("transforms/storage/test_packed_output.py",),
    "transforms/storage/packed_output.py": (
        "transforms/storage/test_packed_output.py",
        "transforms/test_store_packed.py",
        "beam_pipeline/test_packed_job.py",
    ),
    "transforms/store_packed.py": (
        "transforms/test_store_packed.py",
        "beam_pipeline/test_packed_job.py",
    ),
    "transforms/store_packed_stream.py": (
        "transforms/test_resolve_versions.py",
        "beam_pipeline/test_packed_job.py",
    ),
    "transforms/packed_decisions.py": ("transforms/test_resolve_versions.py",),
    "transforms/packed_row_writer.py": ("transforms/test_resolve_versions.py",),
    "transforms/store_plans.py": ("transforms/test_resolve_versions.py",),
    "transforms/backtest.py": ("beam_pipeline/evaluation/test_backtest.py",),
    "transforms/records/clocks.py": ("transforms/records/test_clocks.py",),
    "transforms/records/count_rows.py": (
        "transforms/records/test_count_rows.py",
        "beam_pipeline/fleet/test_counts.py",
    ),
    "transforms/alerting/target_checks.py": (
        "transforms/alerting/test_target_checks.py",
        "beam_pipeline/fleet/test_waiting_alerts.py",
        "beam_pipeline/fleet/test_trial_messages.py",
    ),
    "transforms/alerting/delivery.py": (
        "transforms/alerting/test_delivery.py",
        "transforms/test_send_alerts.py",
    ),
    "transforms/alerting/decisions.py": (
        "transforms/alerting/test_decisions.py",
        "transforms/test_limit_alerts.py",
        "transforms/test_limit_alerts_search.py",
        "transforms/test_judge_threats.py",
        "transforms/test_judge_threats_search.py",
    ),
    "transforms/storage/shadow_alerts.py": ("transforms/test_judge_shadow.py",),
    "transforms/judge_threats.py": (
        "transforms/test_judge_threats.py",
        "transforms/test_judge_threats_state.py",
        "transforms/test_judge_threats_search.py",
    ),
    "transforms/alerting/digests.py": (
        "transforms/test_limit_alerts.py",
        "transforms/test_limit_alerts_search.py",
    ),
    "transforms/limit_alerts.py": (
        "transforms/test_limit_alerts.py",
        "transforms/test_limit_alerts_search.py",
    ),
    "transforms/images/annotating.py": ("transforms/alerting/test_messages.py",),
    "transforms/images/jpeg_decoding.py": ("transforms/images/test_jpeg.py",),
    "transforms/images/jpeg_stream.py": ("transforms/images/test_jpeg.py",),
    "transforms/alerting/ledger.py": (
        "transforms/alerting/test_delivery.py",
        "transforms/test_send_alerts.py",
    ),
    "transforms/storage/object_stores.py": ("stores/test_object_stores.py",),
    "transforms/pack.py": ("beam_pipeline/evaluation/test_pack.py",),
    "transforms/storage/packed.py": (
        "beam_pipeline/evaluation/test_pack.py",
        "transforms/storage/test_archive.py",
    ),
    "transforms/records/reasons.py": ("transforms/test_validate_image.py",),
    "transforms/records/images.py": ("transforms/records/test_codecs.py", "test_golden.py"),
    "transforms/alerting/signed_links.py": ("stores/test_signed_links.py",),
    "transforms/alerting/target_clients.py": (
        *("transforms/alerting/test_target_clients.py", "transforms/alerting/test_delivery.py"),
        "transforms/alerting/test_exchanges.py",
    ),
    "transforms/models/converted.py": ("transforms/models/test_conversion.py",),
    "transforms/models/partition.py": ("transforms/models/test_conversion.py",),
    "transforms/models/runtime_names.py": ("transforms/models/test_runtimes.py",),
    "transforms/models/tflite.py": ("transforms/models/test_detector.py",),
    "transforms/models/tensorflow_runtime.py": (
        "transforms/models/test_tensorflow_runtime.py",
        "transforms/models/test_detector.py",
    ),
    "transforms/records/file_names.py": (
        "transforms/test_parse_filename.py",
        "transforms/records/test_received_names.py",
    ),
    "transforms/records/text.py": (
        "transforms/test_parse_filename.py",
        "transforms/storage/test_stores.py",
    ),
    "transforms/records/times.py": (
        "transforms/records/test_times.py",
        "transforms/test_parse_filename.py",
        "transforms/test_count_threats.py",
    ),
    "transforms/alerting/html_messages.py": ("transforms/alerting/test_messages.py",),
    "transforms/alerting/mqtt.py": ("transforms/alerting/test_mqtt.py",),
    "transforms/alerting/mails.py": ("transforms/alerting/test_target_clients.py",),
    "transforms/alerting/withheld_logs.py": ("transforms/alerting/test_target_clients.py",),
    "transforms/records/precedence.py": ("transforms/test_resolve_versions.py",),
    "transforms/known_versions.py": ("transforms/test_resolve_versions.py",),
    "transforms/forget_earlier_verdicts.py": ("beam_pipeline/test_resume_job.py",),
}
"""The test files of a module, or tests of them, below `tests`.

`transforms/ROOM/NAME.py` has `transforms/ROOM/test_NAME.py` where nothing else is said."""

_PRELOADED = (
    *("apache_beam", "apprise", "boto3", "google.cloud.storage", "google.cloud.pubsub_v1"),
    *("hypothesis", "jinja2", "matplotlib.pyplot", "msgspec", "orjson", "PIL.Image", "pyarrow"),
    *("pydantic", "pytest", "requests", "ruamel.yaml", "scipy.stats", "shapely", "tensorflow"),
    *("tqdm", "apache_beam.runners.portability.fn_api_runner", "apache_beam.testing.test_stream"),
    *("apache_beam.ml.inference.base", "apache_beam.runners.direct.direct_runner", "moto"),
)


def modules() -> list[str]:
    """All that can be changed: the rules, the steps, and the job's options."""
    found = [
        path.relative_to(ROOT).as_posix()
        for package in ("rules", "transforms")
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "__init__.py" or path.parent.name == package
    ]
    return [*found, "beam_pipeline/job/options.py", "beam_pipeline/job/pipeline.py"]


def tests_of(module: str) -> tuple[str, ...]:
    """The test files that a module is held against, below `tests`."""
    folder, _, name = module.rpartition("/")
    return TESTS.get(module, (f"{folder}/test_{name}",))


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
      module: What is changed.
      line: The number of the line.
      code: The module's whole text.
      before: What the line was, or the lines.
      after: What it became.
    """

    module: str
    line: int
    code: str
    before: str
    after: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from others in any version of its module."""
        return self.module, self.before, self.after


def mutants(module: str, text: str) -> Iterator[Mutant]:
    """All changes of a module that could have an effect."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code

    passed_over = _annotations(text)
    keys = set()
    for operator in _operators():
        positions = (
            position
            for node in ast_nodes(get_ast(text))
            for position in operator.mutation_positions(node)
        )
        for occurrence, (start, _) in enumerate(positions):
            if any(first <= start < last for first, last in passed_over):
                continue
            try:
                code = mutate_code(text, operator, occurrence)
            except AttributeError:  # cosmic-ray can't replace some of `except (A, module.B)`.
                continue
            if code is None or code in keys or not _compiles(code):
                continue
            keys.add(code)
            yield Mutant(module, start[0], code, *_difference(text, code))


def _operators() -> list[Any]:
    """The changes that are made: one of ours, and those of cosmic-ray without arguments."""
    import cosmic_ray.plugins
    from cosmic_ray.operators.operator import Operator
    from parso.python.tree import Name

    class GiveNone(Operator):
        """Gives a keyword argument the value None."""

        def mutation_positions(self, node: Any) -> Iterator[Any]:
            if node.type == "argument" and len(node.children) == 3 and _value(node) != "None":
                name, equals, _ = node.children
                if getattr(equals, "value", "") == "=" and name.type == "name":
                    yield node.start_pos, node.end_pos

        def mutate(self, node: Any, index: int) -> Any:
            node.children[2] = Name("None", node.children[2].start_pos)
            return node

        @classmethod
        def examples(cls) -> Any:
            return ()

    def _value(node: Any) -> str:
        code: str = node.children[2].get_code().strip()
        return code

    operators: list[Any] = [GiveNone()]
    for name in cosmic_ray.plugins.operator_names():
        kind = cosmic_ray.plugins.get_operator(name)
        if not kind.arguments() and "NoOp" not in name:
            operators.append(kind())
    return operators


def _compiles(code: str) -> bool:
    try:
        warnings.simplefilter("ignore", SyntaxWarning)
        compile(code, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def _difference(text: str, code: str) -> tuple[str, str]:
    lines = list(difflib.ndiff(text.splitlines(), code.splitlines()))
    before, after = (
        " / ".join(line[2:].strip() for line in lines if line.startswith(sign)) for sign in "-+"
    )
    return before, after


def _annotations(text: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where types are written, which nothing reads while the program runs."""
    found: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.append(node.returns)
        elif isinstance(node, (ast.arg, ast.AnnAssign)):
            found.append(node.annotation)
        elif isinstance(node, ast.Assign) and _is_alias_of_types(node):
            found.append(node.value)
    return [
        ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
        for node in found
        if node is not None
    ]


def _is_alias_of_types(node: ast.Assign) -> bool:
    (target, *_), value = node.targets, node.value
    if not (isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)):
        return False
    return isinstance(target, ast.Name) and target.id.lstrip("_")[:1].isupper()


def explained() -> dict[tuple[str, str, str], str]:
    """Why changes have no effect that a user could see, by their keys."""
    import yaml

    entries = yaml.safe_load(EXPLAINED.read_text(encoding="utf-8")) or []
    return {(entry["module"], entry["before"], entry["after"]): entry["why"] for entry in entries}


class Workshop:
    """A copy of the checkout in which modules are changed and tests are run."""

    def __init__(self, top: Path) -> None:
        self._top = top
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        for name in filter(None, listed.decode().split("\0")):
            target = top / "tree" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                shutil.copy(ROOT / name, target)
        if (ROOT.parent / "shared").exists():  # What some tests take from beside the checkout.
            (top / "shared").symlink_to((ROOT.parent / "shared").resolve())
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        warnings.simplefilter("ignore")
        for name in _PRELOADED:
            __import__(name)

    def outcome(self, mutant: Mutant | None, tests: Sequence[str], limit: float) -> str:
        """`noticed`, `survived` or, where the tests did not end in time, `timeout`."""
        if mutant is not None:
            file = self._top / "tree" / mutant.module
            original = file.read_text(encoding="utf-8")
            file.write_text(mutant.code, encoding="utf-8")
        try:
            return self._run(tests, limit)
        finally:
            if mutant is not None:
                file.write_text(original, encoding="utf-8")

    def _run(self, tests: Sequence[str], limit: float) -> str:
        child = os.fork()
        if child == 0:
            self._test(tests)
        deadline = time.monotonic() + limit
        try:
            while time.monotonic() < deadline:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    child = 0
                    return "survived" if os.waitstatus_to_exitcode(status) == 0 else "noticed"
                time.sleep(0.02)
            return "timeout"
        finally:
            if child:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)

    def _test(self, tests: Sequence[str]) -> None:
        """In the child: what is imported from here on is the changed code."""
        code = 70
        try:
            os.setsid()
            os.chdir(self._top / "tree")
            sys.path.insert(0, str(self._top / "tree"))
            # This program's own package comes from the checkout; the tests' must be the copy's.
            for name in [module for module in sys.modules if module.split(".")[0] == "tests"]:
                del sys.modules[name]
            with (self._top / "said").open("wb") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            import pytest

            files = [f"tests/{test}" for test in tests]
            options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--durations=0"]
            code = int(pytest.main([*options, "--hypothesis-seed=0", *files]))
            import rules

            assert Path(rules.__file__).is_relative_to(self._top), rules.__file__
        finally:
            os._exit(code)

    @property
    def said(self) -> str:
        """What the last tests said."""
        return (self._top / "said").read_text(errors="replace")


def main() -> int:
    """Runs it; 1 where a change survived that is not explained."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, metavar="N", help="changes to try (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default: 1)")
    parser.add_argument("--module", action="append", choices=modules(), metavar="FILE")
    parser.add_argument("--minutes", type=float, help="begin no other change after so long")
    args = parser.parse_args()
    known = explained()
    drawn = [
        mutant
        for module in args.module or modules()
        if tests_of(module)
        for mutant in mutants(module, (ROOT / module).read_text(encoding="utf-8"))
        if mutant.key not in known
    ]
    total = len(drawn)
    if args.sample is not None and args.sample < total:
        drawn = random.Random(args.seed).sample(drawn, args.sample)
    drawn.sort(key=lambda mutant: (mutant.module, mutant.line))
    print(f"{len(drawn)} of {total} changes; {len(known)} explained ones are left out", flush=True)
    ends = time.monotonic() + (args.minutes or 1e6) * 60
    outcomes: Counter[str] = Counter()
    by_module: dict[str, Counter[str]] = defaultdict(Counter)
    with tempfile.TemporaryDirectory(prefix="mutants-") as top:
        workshop = Workshop(Path(top))
        limits: dict[str, float] = {}
        for mutant in drawn:
            if time.monotonic() > ends:
                break
            tests = tests_of(mutant.module)
            if mutant.module not in limits:
                started = time.monotonic()
                outcome = workshop.outcome(None, tests, 600)
                if outcome != "survived":
                    sys.exit(f"{mutant.module}: its tests fail without a change\n{workshop.said}")
                limits[mutant.module] = 15 + 4 * (time.monotonic() - started)
            outcome = workshop.outcome(mutant, tests, limits[mutant.module])
            outcomes[outcome] += 1
            by_module[mutant.module][outcome] += 1
            if outcome == "survived":
                print(f"{mutant.module}:{mutant.line}\n  - {mutant.before}\n  + {mutant.after}")
                sys.stdout.flush()
    tried = sum(outcomes.values())
    for module, each in by_module.items():
        print(f"{module}: noticed {sum(each.values()) - each['survived']} of {sum(each.values())}")
    print(
        f"noticed {tried - outcomes['survived']} of {tried} "
        f"({100 * (tried - outcomes['survived']) / max(1, tried):.0f} %), of which "
        f"{outcomes['timeout']} by not ending"
    )
    return int(outcomes["survived"] > 0)


if __name__ == "__main__":
    sys.exit(main())
