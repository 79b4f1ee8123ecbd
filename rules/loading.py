"""Reads a rule file, and reports its mistakes in one line each.

The checks: the text is UTF-8 and YAML (`rules.document`); its keys, values and names are valid
(`rules.schema`); and, if all of them are, no lower bound is above its upper bound, whichever layers
set the two. `rules.mistakes` words what they find.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import get_args

from pydantic import ValidationError

from rules.document import Document, read_document
from rules.effective import CameraRules, inherit, inherit_names
from rules.errors import Mistake, RulesError, raise_first
from rules.frozen import FrozenMapping
from rules.mistakes import (
    crossed_bounds,
    incomplete_settings,
    missing_settings,
    schema_mistake,
    target_mistakes,
    two_ways_of_naming,
)
from rules.retention import Retention
from rules.ruleset import Rules
from rules.schema import Layer, RuleFile
from rules.schema_types import KnownNames
from rules.target_schema import LimitSettings
from rules.targets import Alerting, ConsoleLinks, Limit, Target, TargetKind

VERSION_DIGITS = 12


def load_rules(path: str | os.PathLike[str], labels: Collection[str] | None = None) -> Rules:
    """Reads a rule file from the local disk.

    Args:
        path: The file.
        labels: The labels of the model; None to accept any label.

    Raises:
        RulesError: The file cannot be read or is wrong; one line for a person.
    """
    source = os.fspath(path)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise RulesError(source, None, f"cannot be read: {reason}", "check the path") from error
    return parse_rules(content, source, labels)


def parse_rules(text: str | bytes, source: str, labels: Collection[str] | None = None) -> Rules:
    """Reads the content of a rule file.

    Args:
        text: The content; preferably the bytes, because `Rules.version` is their hash, and a text
            with translated line ends has another one.
        source: The name of the file, for messages.
        labels: The labels of the model; None to accept any label.

    Raises:
        RulesError: The content is wrong; one line for a person.
    """
    return ParsedRules.from_text(text, source, labels).rules


@dataclass(frozen=True)
class ParsedRules:
    """The rules of a file, whose labels can be checked later.

    A job reads its rules before it fetches the model that has the labels. A file of many cameras
    takes seconds to parse, so it is parsed only once.

    Attributes:
        rules: The rules of the file.
    """

    rules: Rules
    _document: Document
    _source: str

    @classmethod
    def from_text(
        cls, text: str | bytes, source: str, labels: Collection[str] | None = None
    ) -> ParsedRules:
        """Parses the content of a rule file; see `parse_rules`."""
        content = text if isinstance(text, bytes) else _encode(text, source)
        document = read_document(_decode(content, source), source)
        settings = _validate(document, source, labels)
        rules, mistakes = _effective_rules(settings, document, hashlib.sha256(content).hexdigest())
        raise_first(source, mistakes)
        return cls(rules, document, source)

    def check_labels(self, labels: Collection[str]) -> None:
        """Checks the labels of the file against those of the model.

        Raises:
            RulesError: The model does not have one of them; one line for a person.
        """
        _validate(self._document, self._source, labels)


def _encode(text: str, source: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise RulesError(
            source, line, "half a surrogate pair is not a character", "give the file's bytes"
        ) from error


def _decode(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RulesError(source, line, "not UTF-8 text", "save the file as UTF-8") from error


def _validate(document: Document, source: str, labels: Collection[str] | None) -> RuleFile:
    value = _with_profile_names_as_text(document)
    names = KnownNames(
        None if labels is None else tuple(labels),
        profiles=_names(value, "profiles"),
        targets=_names(value, "targets"),
    )
    try:
        settings = RuleFile.model_validate(value, context=names)
    except ValidationError as error:
        mistakes = [schema_mistake(detail, document) for detail in error.errors(include_url=False)]
        raise_first(source, [*document.mistakes, *mistakes])
        raise  # Not reached: a ValidationError has at least one error.
    raise_first(source, document.mistakes)
    return settings


def _with_profile_names_as_text(document: Document) -> object:
    """Turns ``profile: 007`` into the name of the profile 007, as the key ``007:`` is."""
    cameras = document.value.get("cameras") if isinstance(document.value, dict) else None
    for camera_id, camera in cameras.items() if isinstance(cameras, dict) else ():
        name = document.scalar_texts.get(("cameras", camera_id, "profile"))
        if isinstance(camera, dict) and name is not None:
            camera["profile"] = name
    return document.value


def _names(value: object, section: str) -> tuple[str, ...] | None:
    names = value.get(section) if isinstance(value, dict) else None
    if names is None:
        return ()
    return tuple(names) if isinstance(names, dict) else None


def _effective_rules(
    settings: RuleFile, document: Document, digest: str
) -> tuple[Rules, list[Mistake]]:
    mistakes: list[Mistake] = []

    def merge(parent: CameraRules, layer: Layer | None, path: tuple[str, ...]) -> CameraRules:
        rules = inherit(parent, layer, ".".join(path))
        if layer is not None:
            mistakes.extend(crossed_bounds(rules, layer, path, document))
            mistakes.extend(incomplete_settings(rules, layer, path, document))
        return rules

    mistakes.extend(two_ways_of_naming(settings.names, (), document))
    for_all = inherit_names(CameraRules(), settings.names, "names")
    defaults = merge(for_all, settings.defaults, ("defaults",))
    if not settings.strict_ids:
        mistakes.extend(missing_settings(defaults, ("defaults",), document))
    profiles = {}
    for name, profile in (settings.profiles or {}).items():
        profiles[name] = merge(replace(defaults, profile=name), profile, ("profiles", name))
    cameras = {}
    for camera_id, camera in (settings.cameras or {}).items():
        has_profile = camera is not None and "profile" in camera.model_fields_set
        parent = profiles[camera.profile] if camera is not None and has_profile else defaults
        path = ("cameras", camera_id)
        cameras[camera_id] = merge(parent, camera, path)
        mistakes.extend(missing_settings(cameras[camera_id], path, document))
    rules = Rules(
        version=digest[:VERSION_DIGITS],
        strict_ids=settings.strict_ids,
        defaults=defaults,
        by_camera=FrozenMapping(cameras),
        alerting=_alerting(settings),
        retention=_retention(settings),
    )
    mistakes.extend(target_mistakes(settings, document))
    return rules, mistakes


def _alerting(settings: RuleFile) -> Alerting:
    targets = {}
    for name, target in (settings.targets or {}).items():
        if target is not None:
            kinds: tuple[TargetKind, ...] = get_args(TargetKind)
            # A target without an address is a mistake that is reported later.
            kind = next((kind for kind in kinds if kind in target.model_fields_set), kinds[0])
            severities = frozenset(target.severities or ("alert",))
            url = getattr(target, kind)
            targets[name] = Target(
                name, kind, url, target.token, target.secret, target.ca, severities
            )
    limits, message, health = settings.limits, settings.message, settings.health
    console = settings.console
    return Alerting(
        targets=FrozenMapping(targets),
        per_id=_limit(None if limits is None else limits.per_id),
        fleet=_limit(None if limits is None else limits.fleet),
        subject=None if message is None else message.subject,
        body=None if message is None else message.body,
        link_hours=(message and message.link_hours) or Alerting.link_hours,
        health=() if health is None else tuple(dict.fromkeys(health.targets or ())),
        console=None
        if console is None
        else ConsoleLinks(console.url, console.key, console.link_days or ConsoleLinks.link_days),
    )


def _retention(settings: RuleFile) -> Retention | None:
    retention = settings.retention
    if retention is None:
        return None
    keep = {} if retention.keep is None else retention.keep.ages
    return Retention(retention.older_than, FrozenMapping(keep))


def _limit(settings: LimitSettings | None) -> Limit | None:
    return None if settings is None else Limit(settings.alerts, settings.within)
