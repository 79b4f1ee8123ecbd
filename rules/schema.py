"""The keys of a rule file, with their units and ranges, as pydantic models.

Editors get the same as `rules.schema.json`, which `python -m rules.json_schema` prints.

The models hold what the file says, and nothing else: a value that is not given is not among
`model_fields_set`, and `rules.effective` then takes it from what the layer inherits from. A section
may be empty (``cameras:``), a value may not (``min_score:``).

The object keys are Frigate's where it has one:
https://docs.frigate.video/configuration/object_filters
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from rules.geometry import Anchor
from rules.records import Severity
from rules.schema_types import (
    CameraId,
    Count,
    Days,
    Duration,
    End,
    Expects,
    Label,
    Model,
    Polygon,
    Ratio,
    Share,
    Size,
    Start,
    known_profile,
    known_timezone,
    no_text,
    unset,
    version_1,
)
from rules.target_schema import (
    HealthSettings,
    LimitsSettings,
    MessageSettings,
    TargetNames,
    TargetSettings,
)


class ObjectSettings(Model):
    """What makes an object of this label a threat. The checks are made in the order: severity,
    min_score, min_area, max_area, min_ratio, max_ratio, then the camera's mask, zones and schedule,
    min_score_at_night, repeats, min_count, max_count, confirm. A value equal to a bound passes."""

    severity: Annotated[Severity, Expects("alert, detection or ignore")] = Field(
        default_factory=unset,
        title="Severity",
        description="alert: a threat, and an alert is sent. detection: a threat that is recorded "
        "and counted; nothing is sent. ignore: tolerated, no threat. alert where nothing is said.",
    )
    min_score: Share = Field(
        default_factory=unset,
        title="Minimum score",
        description="The least score of the model, 0 to 1. 0.5 where nothing is said.",
    )
    min_area: Share = Field(
        default_factory=unset,
        title="Minimum area",
        description="The least area of the box as a fraction of the frame, 0 to 1. "
        "No bound where nothing is said.",
    )
    max_area: Share = Field(
        default_factory=unset,
        title="Maximum area",
        description="The greatest area of the box as a fraction of the frame, 0 to 1. "
        "No bound where nothing is said.",
    )
    min_ratio: Ratio = Field(
        default_factory=unset,
        title="Minimum ratio",
        description="The least ratio of the box, width over height, both in pixels; above 0. "
        "No bound where nothing is said.",
    )
    max_ratio: Ratio = Field(
        default_factory=unset,
        title="Maximum ratio",
        description="The greatest ratio of the box, width over height, both in pixels; above 0. "
        "No bound where nothing is said.",
    )

    min_score_at_night: Share = Field(
        default_factory=unset,
        title="Minimum score at night",
        description="The least score, 0 to 1, when it is night by the camera's night section; "
        "min_score holds there too. No further bound where nothing is said.",
    )
    min_count: Count = Field(
        default_factory=unset,
        title="Minimum count",
        description="Fewer objects of the label than this in one picture, after all checks before, "
        "are no threat. No bound where nothing is said.",
    )
    max_count: Count = Field(
        default_factory=unset,
        title="Maximum count",
        description="More objects of the label than this in one picture, after all checks before, "
        "are no threat. No bound where nothing is said.",
    )
    repeats: Annotated[bool, Expects("true or false")] = Field(
        default_factory=unset,
        title="Repeats",
        description="Whether the camera's repeats section holds for this label. Where nothing is "
        "said: true, but false for person.",
    )
    confirm: Annotated[bool, Expects("true or false")] = Field(
        default_factory=unset,
        title="Confirm",
        description="Whether the camera's confirm section holds for this label. true where nothing "
        "is said.",
    )


class _AreaSettings(Model):
    polygon: Polygon = Field(
        default_factory=unset,
        title="Polygon",
        description="The corners [x, y] as fractions of the frame, origin top left, in order "
        "around the area.",
    )
    anchor: Annotated[Anchor, Expects("bottom_center, center or overlap")] = Field(
        default_factory=unset,
        title="Anchor",
        description="What of a box must lie in the polygon: the middle of its lower edge "
        "(bottom_center, where nothing is said), its center, or a part of its area (overlap).",
    )
    min_overlap: Annotated[
        float, Field(gt=0, le=1, allow_inf_nan=False), Expects("a number above 0, at most 1")
    ] = Field(
        default_factory=unset,
        title="Minimum overlap",
        description="With anchor: overlap, the least fraction of the box that must lie in the "
        "polygon. 0.5 where nothing is said.",
    )


class ZoneSettings(_AreaSettings):
    """An area in which objects are looked for. A label that some zone of a camera takes is a threat
    only in such a zone; of several zones the first in the file counts."""

    objects: Annotated[
        dict[Label, ObjectSettings | None] | None,
        Expects("a mapping of labels, such as {person: {min_score: 0.6}}"),
    ] = Field(
        default=None,
        title="Objects",
        description="The labels that the zone takes, each with what differs there from the "
        "camera's own settings. All labels of the camera where nothing is said.",
    )


class MaskSettings(_AreaSettings):
    """An area in which objects are ignored."""

    objects: Annotated[list[Label], Expects("a list of labels, such as [car]")] = Field(
        default_factory=unset,
        title="Objects",
        description="The labels that are ignored there. All where nothing is said.",
    )


class PeriodSettings(Model):
    """A time of the week, in the camera's timezone."""

    days: Days = Field(
        default_factory=unset,
        title="Days",
        description="mon, tue, wed, thu, fri, sat, sun: the days on which it starts. Every day "
        "where nothing is said.",
    )
    start: Start = Field(
        default_factory=unset, title="Start", description="Its first minute, such as 18:00."
    )
    end: End = Field(
        default_factory=unset,
        title="End",
        description="The first minute after it, such as 06:00; before the start: on the next day.",
    )


Periods = Annotated[
    list[Annotated[PeriodSettings, BeforeValidator(no_text)]],
    BeforeValidator(no_text),
    Expects('a list of periods, such as [{days: [sat, sun]}, {start: "18:00", end: "06:00"}]'),
]


class ScheduleSettings(Model):
    """When a camera is armed: at any other time nothing is a threat."""

    armed: Periods = Field(
        default_factory=unset,
        title="Armed",
        description="The times at which it is armed. Always where nothing is said.",
    )
    disarmed: Periods = Field(
        default_factory=unset,
        title="Disarmed",
        description="The times that are taken out of those.",
    )


class NightSettings(Model):
    """When it is night, for min_score_at_night: by the time of day, by the brightness of the
    picture, or by either."""

    start: Start = Field(
        default_factory=unset, title="Start", description="Its first minute, such as 20:00."
    )
    end: End = Field(
        default_factory=unset,
        title="End",
        description="The first minute after it, such as 06:00.",
    )
    max_brightness: Share = Field(
        default_factory=unset,
        title="Maximum brightness",
        description="A picture whose mean brightness, 0 to 1, is at most this is one of the night.",
    )


class RepeatsSettings(Model):
    """A detection of the same label at the same place in several earlier pictures is a repeat and
    no threat, such as a parked car."""

    enabled: Annotated[bool, Expects("true or false")] = Field(
        default_factory=unset,
        title="Enabled",
        description="false turns off what a layer beneath has turned on.",
    )
    iou: Annotated[
        float, Field(gt=0, le=1, allow_inf_nan=False), Expects("a number above 0, at most 1")
    ] = Field(
        default_factory=unset,
        title="Intersection over union",
        description="How much two boxes must have in common to be at the same place. 0.85 where "
        "nothing is said.",
    )
    occurrences: Annotated[int, Field(ge=1, le=20), Expects("a whole number from 1 to 20")] = Field(
        default_factory=unset,
        title="Occurrences",
        description="In how many earlier pictures it must have been seen. 3 where nothing is said.",
    )
    within: Duration = Field(
        default_factory=unset,
        title="Within",
        description="How far back pictures count. 24h where nothing is said.",
    )
    forget_after: Annotated[int, Field(ge=1, le=50), Expects("a whole number from 1 to 50")] = (
        Field(
            default_factory=unset,
            title="Forget after",
            description="An object that is missing from so many pictures in a row counts as new. "
            "10 where nothing is said.",
        )
    )
    min_score: Share = Field(
        default_factory=unset,
        title="Minimum score",
        description="The least score, 0 to 1, of a detection that counts as seen; below an "
        "object's own min_score, as scores waver. 0.25 where nothing is said.",
    )


class ConfirmSettings(Model):
    """A threat counts once its label was a threat in several pictures in a short time."""

    enabled: Annotated[bool, Expects("true or false")] = Field(
        default_factory=unset,
        title="Enabled",
        description="false turns off what a layer beneath has turned on.",
    )
    pictures: Annotated[int, Field(ge=2, le=20), Expects("a whole number from 2 to 20")] = Field(
        default_factory=unset,
        title="Pictures",
        description="In how many pictures, this one included. 2 where nothing is said.",
    )
    within: Duration = Field(
        default_factory=unset,
        title="Within",
        description="How far back pictures count. 30s where nothing is said.",
    )


class ResolutionSettings(Model):
    """The sizes of image that are taken, in pixels; others are set aside as invalid, with the
    reason resolution_too_low or resolution_too_high."""

    min: Size = Field(
        default_factory=unset,
        title="Minimum size",
        description="The least [width, height] of an image, in pixels. "
        "No bound where nothing is said.",
    )
    max: Size = Field(
        default_factory=unset,
        title="Maximum size",
        description="The greatest [width, height] of an image, in pixels. "
        "No bound where nothing is said.",
    )


class Layer(Model):
    """What holds for every camera (defaults), or for the cameras that name it (a profile)."""

    objects: Annotated[
        dict[Label, ObjectSettings | None] | None,
        Expects("a mapping of labels, such as {person: {min_score: 0.6}}"),
    ] = Field(
        default=None,
        title="Objects",
        description="The labels to look for; one that is not listed is no threat. Joined label by "
        "label and value by value with what the layers beneath say.",
    )
    resolution: Annotated[
        ResolutionSettings | None, Expects("a mapping, such as {min: [640, 480]}")
    ] = Field(
        default=None,
        title="Resolution",
        description="The sizes of image that are taken, in pixels.",
    )
    timezone: Annotated[
        str, AfterValidator(known_timezone), Expects("a time zone such as Europe/Berlin")
    ] = Field(
        default_factory=unset,
        title="Time zone",
        description="Where the camera is, by its IANA name; schedule and night go by its time. "
        "UTC where nothing is said.",
    )
    zones: Annotated[
        dict[str, ZoneSettings | None] | None,
        Expects("a mapping of names, such as {drive: {polygon: [[0, 0.5], [1, 0.5], [1, 1]]}}"),
    ] = Field(
        default=None,
        title="Zones",
        description="Areas in which objects are looked for, by name. Joined name by name.",
    )
    mask: Annotated[
        dict[str, MaskSettings | None] | None,
        Expects("a mapping of names, such as {flag: {polygon: [[0, 0], [0.2, 0], [0.2, 0.2]]}}"),
    ] = Field(
        default=None,
        title="Mask",
        description="Areas in which objects are ignored, by name. Joined name by name.",
    )
    schedule: Annotated[
        ScheduleSettings | None,
        BeforeValidator(no_text),
        Expects("a mapping with armed or disarmed or both"),
    ] = Field(
        default=None, title="Schedule", description="When the camera is armed, in its own time."
    )
    night: Annotated[
        NightSettings | None, Expects("a mapping with start and end, or max_brightness")
    ] = Field(default=None, title="Night", description="When it is night, for min_score_at_night.")
    repeats: Annotated[
        RepeatsSettings | None, Expects("a mapping, such as {occurrences: 3, within: 24h}")
    ] = Field(
        default=None,
        title="Repeats",
        description="What was seen at the same place before is no threat. Off where nothing is "
        "said; an empty section turns it on.",
    )
    confirm: Annotated[
        ConfirmSettings | None, Expects("a mapping, such as {pictures: 2, within: 30s}")
    ] = Field(
        default=None,
        title="Confirm",
        description="A threat counts when it is seen again. Off where nothing is said; an empty "
        "section turns it on.",
    )
    cooldown: Duration = Field(
        default_factory=unset,
        title="Cooldown",
        description="How long after an alert the camera is quiet, such as 5m, unless a label is "
        "seen that it did not tell of. 0s, where nothing is said, for not at all.",
    )
    notify: TargetNames = Field(
        default_factory=unset,
        title="Notify",
        description="The targets that the camera's alerts go to. None where nothing is said, but "
        "for those of --alert_url.",
    )


class CameraSettings(Layer):
    """One camera: what differs from its profile and from the defaults."""

    profile: Annotated[
        str, AfterValidator(known_profile), Expects("the name of a profile of this file")
    ] = Field(
        default_factory=unset,
        title="Profile",
        description="The profile that the camera inherits from, value by value. Without one it "
        "inherits from the defaults.",
    )


class RuleFile(Model):
    """What is a threat, camera by camera. A camera inherits from its profile, and that from the
    defaults, value by value."""

    version: Annotated[Literal[1], BeforeValidator(version_1), Expects("1")] = Field(
        title="Version", description="The version of this format: 1."
    )
    strict_ids: Annotated[bool, Expects("true or false")] = Field(
        default=False,
        title="Strict ids",
        description="true: images of a camera that is not named under cameras are set aside as "
        "invalid (unknown_camera). false: they get the defaults.",
    )
    defaults: Annotated[Layer | None, Expects("a mapping with objects and resolution")] = Field(
        default=None, title="Defaults", description="What every camera begins with."
    )
    profiles: Annotated[
        dict[str, Layer | None] | None,
        Expects("a mapping of profile names, such as {outdoor: {objects: ...}}"),
    ] = Field(
        default=None,
        title="Profiles",
        description="Settings that cameras share, by name; a camera names one.",
    )
    cameras: Annotated[
        dict[CameraId, CameraSettings | None] | None,
        Expects("a mapping of camera ids, such as {front-door: {profile: outdoor}}"),
    ] = Field(default=None, title="Cameras", description="What differs for each camera, by its id.")
    targets: Annotated[
        dict[str, TargetSettings | None] | None,
        Expects("a mapping of names, such as {guard: {webhook: https://example.com/hook}}"),
    ] = Field(
        default=None,
        title="Targets",
        description="Whom alerts go to, by name; cameras and profiles name them under notify.",
    )
    limits: Annotated[LimitsSettings | None, Expects("a mapping with per_id and fleet")] = Field(
        default=None,
        title="Limits",
        description="How many messages are sent before the rest are told of in one digest.",
    )
    message: Annotated[MessageSettings | None, Expects("a mapping with subject and body")] = Field(
        default=None, title="Message", description="How a message reads, by templates."
    )
    health: Annotated[HealthSettings | None, Expects("a mapping with targets")] = Field(
        default=None, title="Health", description="Who is told of broken cameras."
    )


@dataclass(frozen=True)
class Place:
    """What the schema says of one place in a file.

    Attributes:
        keys: the keys that it has, if it is a section.
        expects: what it takes, in words that follow "must be".
    """

    keys: tuple[str, ...]
    expects: str


def place_at(path: tuple[str | int, ...]) -> Place:
    """What the schema says of a path; an item of a list is described by the list."""
    kind: Any = RuleFile
    expects = "a mapping that begins with version: 1"
    for step in path:
        model, values = _inside(kind)
        if model is not None and step in model.model_fields:
            field = model.model_fields[str(step)]
            kind = field.annotation
            words = [item.words for item in field.metadata if isinstance(item, Expects)]
            expects = words[0] if words else ""
        elif values is not None:
            kind = values
            keys = ", ".join(_keys(kind))
            expects = f"a mapping with any of {keys}" if keys else expects
        else:
            break
    return Place(keys=_keys(kind), expects=expects)


def _keys(kind: Any) -> tuple[str, ...]:
    model, _ = _inside(kind)
    return () if model is None else tuple(model.model_fields)


def _inside(kind: Any) -> tuple[type[BaseModel] | None, Any]:
    """The model that a type is or may be, and the type of a mapping's or a list's values."""
    for option in (kind, *get_args(kind)):
        if get_origin(option) in (dict, list):
            return None, get_args(option)[-1]
        # Python 3.10 takes list[int] for a type, and then fails to say whose subclass it is.
        is_class = get_origin(option) is None and isinstance(option, type)
        if is_class and issubclass(option, BaseModel):
            return option, None
    return None, None
