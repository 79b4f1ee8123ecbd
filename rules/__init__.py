"""The rule file, and the judgement of an image by it.

The package is plain Python, so that it runs in a notebook as in the job:

    >>> from rules import Image, load_rules
    >>> verdict = load_rules("rules.yaml").judge(Image.from_json(json.load(file)))
    >>> verdict.is_threat, verdict.severity
    (True, 'alert')

The keys of the rule file (``objects``, ``min_score``, ``min_area``, ``max_ratio``, ...) are those
of Frigate's object filters: https://docs.frigate.video/configuration/object_filters
"""

from rules.camera_ids import is_camera_id
from rules.cooldown import PastAlert, alert_id, restore_alerts
from rules.describing import describe, describe_camera
from rules.effective import CameraRules, ObjectRule, Resolution
from rules.errors import RulesError
from rules.explaining import explain, explain_detections
from rules.history import History, PastImage
from rules.judging import FILTERS
from rules.loading import ParsedRules, load_rules, parse_rules
from rules.name_patterns import NameMatch, NamePattern, parse_pattern
from rules.name_presets import PRESETS
from rules.names import (
    AmbiguousNameError,
    NameForm,
    Names,
    NameSettings,
    choose_moment,
    moments,
    preset_problem,
)
from rules.records import (
    Check,
    Detection,
    FollowUp,
    Image,
    MoreObjects,
    Rejected,
    Severity,
    Threat,
    ThreatSeverity,
    Trace,
    Verdict,
)
from rules.retention import FOR_GOOD, KEPT, Retention, parse_age
from rules.ruleset import Rules
from rules.schedule import timezone_problem
from rules.targets import Alerting, ConsoleLinks, Limit, MissingVariableError, Target, expand
from rules.tiling import Region, Tiles

__all__ = [
    "FILTERS",
    "FOR_GOOD",
    "KEPT",
    "PRESETS",
    "Alerting",
    "AmbiguousNameError",
    "CameraRules",
    "Check",
    "ConsoleLinks",
    "Detection",
    "FollowUp",
    "History",
    "Image",
    "Limit",
    "MissingVariableError",
    "MoreObjects",
    "NameForm",
    "NameMatch",
    "NamePattern",
    "NameSettings",
    "Names",
    "ObjectRule",
    "ParsedRules",
    "PastAlert",
    "PastImage",
    "Region",
    "Rejected",
    "Resolution",
    "Retention",
    "Rules",
    "RulesError",
    "Severity",
    "Target",
    "Threat",
    "ThreatSeverity",
    "Tiles",
    "Trace",
    "Verdict",
    "alert_id",
    "choose_moment",
    "describe",
    "describe_camera",
    "expand",
    "explain",
    "explain_detections",
    "is_camera_id",
    "load_rules",
    "moments",
    "parse_age",
    "parse_pattern",
    "parse_rules",
    "preset_problem",
    "restore_alerts",
    "timezone_problem",
]
