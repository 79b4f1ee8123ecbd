"""The default input of the job: samples, a detector for them, and rules."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
BUNDLED = "bundled"
"""What `--model` calls the samples' detector."""
BUNDLED_SAMPLES = _HERE / "samples"
BUNDLED_RULES = _HERE / "rules.yaml"
BUNDLED_MODEL = _HERE / "detector"
DEFAULT_RULES = _HERE / "default_rules.yaml"
BUNDLED_TRUTH = _HERE / "truth.json"
"""What is in the samples."""
