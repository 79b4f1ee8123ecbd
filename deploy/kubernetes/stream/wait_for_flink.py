"""Waits until a Flink session cluster has room for the stream, and refuses where a job runs.

The submitting Job runs it first (submit.yaml): it and the cluster are applied together, and a
stream that was submitted twice would do all its work twice. It needs nothing but Python.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from typing import Any

# https://nightlies.apache.org/flink/flink-docs-release-1.20/docs/internals/job_scheduling
ENDED = {"FINISHED", "CANCELED", "FAILED"}
SECONDS_BETWEEN_LOOKS = 2.0


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def main() -> int:
    """0: the stream may be submitted; 1: there was no room in time; 2: a job runs already."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rest", required=True, help="Flink's REST service, http://HOST:PORT")
    parser.add_argument("--slots", type=int, required=True, help="free slots that the job needs")
    parser.add_argument("--timeout_seconds", type=float, default=900, help="(%(default)s)")
    options = parser.parse_args()
    deadline = time.monotonic() + options.timeout_seconds
    printed = ""
    while True:
        try:
            jobs = _get(f"{options.rest}/jobs/overview")["jobs"]
            running = [
                f"{job['jid']} ({job['state']})" for job in jobs if job["state"] not in ENDED
            ]
            if running:
                print(
                    f"{options.rest} runs a job already: {', '.join(running)}; nothing is "
                    "submitted. Stop it with a savepoint first, if this one is to take its place",
                    file=sys.stderr,
                )
                return 2
            free = _get(f"{options.rest}/overview")["slots-available"]
            if free >= options.slots:
                return 0
            state = f"{free} free slots of the {options.slots} that are needed"
        except (OSError, ValueError, KeyError, TypeError) as error:  # It is starting.
            state = f"no answer yet ({type(error).__name__})"
        if state != printed:
            print(f"{options.rest}: {state}", file=sys.stderr, flush=True)
            printed = state
        if time.monotonic() > deadline:
            print(f"{options.rest}: given up", file=sys.stderr)
            return 1
        time.sleep(SECONDS_BETWEEN_LOOKS)


if __name__ == "__main__":
    sys.exit(main())
