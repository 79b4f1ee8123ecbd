"""How far tests search for counterexamples: thousands of examples in `make test`, 100,000 or as
many as asked for by `make search`.

`make test` tries the same examples each time, so that a counterexample appears with the change that
brings it, not by chance; `make search` tries other examples in each run.

A test that takes part is decorated, or its state machine's settings are set, by :func:`search`, and
is marked `search`:

    @pytest.mark.search
    @search(2000)
    @given(...)
    def test_nothing_is_lost(...): ...

`make search ARGS="-k watching"` runs some of them. Each counterexample that is found is kept as a
plain test.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

_EXAMPLES = "SEARCH_EXAMPLES"


def search(examples: int, **others: Any) -> settings:
    """Settings of a test that searches.

    Args:
      examples: How many are tried in `make test`; `make search` tries as many as it says.
      others: Further settings of hypothesis.
    """
    asked = int(os.environ.get(_EXAMPLES, "0"))
    return settings(
        max_examples=asked or examples,
        deadline=None,
        database=None,
        derandomize=not asked,
        suppress_health_check=list(HealthCheck),
        **others,
    )


def quiet(logger: str) -> Any:
    """A fixture for a whole module: what fails is not logged in each of thousands of examples.

    Args:
      logger: The name of the logger that says what fails.
    """

    @pytest.fixture(autouse=True)
    def is_quiet(caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.CRITICAL, logger)

    return is_quiet
