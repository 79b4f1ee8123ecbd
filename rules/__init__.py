"""What counts as a threat: the rule file, and the judgement of an image by it.

Plain Python, so that it runs in a notebook as it runs in the job:

    >>> from rules import Image, load_rules
    >>> verdict = load_rules("rules.yaml").judge(Image.from_json(json.load(file)))
    >>> verdict.is_threat, verdict.severity
    (True, 'alert')

The words of the rule file (``objects``, ``min_score``, ``min_area``, ``max_ratio``, ...) are those
of Frigate's object filters: https://docs.frigate.video/configuration/object_filters
"""

from rules.describing import describe, describe_camera
from rules.effective import CameraRules, ObjectRule, Resolution
from rules.errors import RulesError
from rules.explaining import explain
from rules.history import History, alert_id
from rules.judging import FILTERS
from rules.loading import load_rules, parse_rules
from rules.records import (
    Check,
    Detection,
    Image,
    Rejected,
    Severity,
    Threat,
    ThreatSeverity,
    Trace,
    Verdict,
)
from rules.ruleset import Rules
from rules.targets import Alerting, Limit, MissingVariableError, Target, expand

__all__ = [
    "FILTERS",
    "Alerting",
    "CameraRules",
    "Check",
    "Detection",
    "History",
    "Image",
    "Limit",
    "MissingVariableError",
    "ObjectRule",
    "Rejected",
    "Resolution",
    "Rules",
    "RulesError",
    "Severity",
    "Target",
    "Threat",
    "ThreatSeverity",
    "Trace",
    "Verdict",
    "alert_id",
    "describe",
    "describe_camera",
    "expand",
    "explain",
    "load_rules",
    "parse_rules",
]
