"""The keys of a rule file about retention, as pydantic models."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field, WithJsonSchema, model_validator

from rules.retention import FOR_GOOD, KEPT, parse_age
from rules.schema_types import Expects, Model, custom_error, parsed_by, unset

_ALWAYS = "always"


def _parse_kept(text: str) -> timedelta:
    return FOR_GOOD if text == _ALWAYS else parse_age(text)


Age = Annotated[
    timedelta,
    parsed_by(parse_age, str),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,4}[hd]$"}),
    Expects("an age such as 12h or 30d"),
]
KeptAge = Annotated[
    timedelta,
    parsed_by(_parse_kept, str),
    WithJsonSchema({"type": "string", "pattern": "^([1-9][0-9]{0,4}[hd]|always)$"}),
    Expects("an age such as 365d, or always"),
]


class KeepSettings(Model):
    """What is kept longer: an age, or always."""

    validated: KeptAge = Field(
        default_factory=unset, title="Validated", description="The valid images as received."
    )
    detections: KeptAge = Field(
        default_factory=unset, title="Detections", description="The detections of each image."
    )
    final: KeptAge = Field(
        default_factory=unset, title="Final", description="The verdict of each image."
    )
    invalid: KeptAge = Field(
        default_factory=unset, title="Invalid", description="Invalid images and their records."
    )
    alerts: KeptAge = Field(
        default_factory=unset,
        title="Alerts",
        description="All files of images with an alert, and the record of the alert.",
    )
    threats: KeptAge = Field(
        default_factory=unset,
        title="Threats",
        description="All files of images with a threat, also of severity detection.",
    )
    marked: KeptAge = Field(
        default_factory=unset,
        title="Marked",
        description="All files of images that an operator has marked.",
    )

    @property
    def ages(self) -> dict[str, timedelta]:
        """The ages that are set, by what is kept."""
        return {name: getattr(self, name) for name in KEPT if name in self.model_fields_set}


class RetentionSettings(Model):
    """How long `prune` keeps images and their records."""

    older_than: Age = Field(
        title="Older than", description="The age beyond which files are deleted, such as 30d."
    )
    keep: Annotated[
        KeepSettings | None, Expects("a mapping, such as {alerts: 365d, marked: always}")
    ] = Field(default=None, title="Keep", description="What is kept longer than the other files.")

    @model_validator(mode="after")
    def _check_keep(self) -> RetentionSettings:
        for name, age in {} if self.keep is None else self.keep.ages.items():
            if age < self.older_than:
                raise custom_error(
                    f"keep.{name} is shorter than older_than, so it keeps nothing",
                    "give the shortest time to older_than, and longer ones to keep",
                )
        return self
