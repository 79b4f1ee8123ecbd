"""One line for each file of tests, when the last of them has run, instead of a dot for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest


class FileByFile:
    """A plugin for the process that tells of what pytest-xdist's workers run.

    Args:
      config: Has the terminal.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._terminal: Any = config.pluginmanager.get_plugin("terminalreporter")
        self._left: Counter[str] = Counter()
        self._outcomes: dict[str, Counter[str]] = {}
        self._seconds: Counter[str] = Counter()

    def pytest_xdist_node_collection_finished(self, ids: Iterable[str]) -> None:
        # Every worker tells the same.
        self._left = Counter(map(_file, ids))

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = _file(report.nodeid)
        outcomes = self._outcomes.setdefault(file, Counter())
        self._seconds[file] += report.duration
        if report.when == "call" or report.outcome != "passed":
            outcomes[report.outcome] += 1
        if report.failed or report.outcome == "rerun":
            word = "FAILED" if report.failed else "RERUN"
            self._terminal.write_line(f"{word} {report.nodeid} ({report.when})")
        if report.when == "teardown":
            self._left[file] -= 1
            if not self._left[file]:
                summary = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
                self._terminal.write_line(f"{self._seconds[file]:6.1f} s  {file}: {summary}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport | pytest.CollectReport
    ) -> tuple[str, str, str] | None:
        return ("passed", "", "") if report.when == "call" and report.passed else None


def _file(nodeid: str) -> str:
    return nodeid.split("::")[0]
