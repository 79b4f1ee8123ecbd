"""The keys of a rule file, with their units and ranges, as pydantic models.

Editors use the same keys, in `rules.schema.json`, which `python -m rules.json_schema` prints.

The models contain the values of the file, and no others: a value that the file does not set is not
in `model_fields_set`, and the layer inherits it (`rules.effective`). A section can be empty
(``cameras:``), a value cannot (``min_score:``).

The object keys are Frigate's, if it has one:
https://docs.frigate.video/configuration/object_filters
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from rules.geometry import Anchor
from rules.records import Severity
from rules.retention_schema import RetentionSettings
from rules.schema_types import (
    CameraId,
    Count,
    Days,
    Duration,
    End,
    Expects,
    Fraction,
    Label,
    Length,
    Model,
    Polygon,
    Ratio,
    Size,
    Start,
    TimeZone,
    TrackedTime,
    check_one_line,
    check_pattern,
    check_preset,
    check_profile,
    check_version,
    reject_text,
    unset,
)
from rules.target_schema import (
    ConsoleSettings,
    HealthSettings,
    LimitsSettings,
    MessageSettings,
    TargetNames,
    TargetSettings,
)


class ObjectSettings(Model):
    """The conditions for an object of this label to be a threat. They are checked in the order:
    severity, min_score, min_area, max_area, min_ratio, max_ratio, then the camera's mask, zones and
    schedule, min_score_at_night, repeats, track, min_count, max_count, confirm. A value equal to a
    bound passes."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=100),
        AfterValidator(check_one_line),
        Expects("a short text, such as A person on the drive"),
    ] = Field(
        default_factory=unset,
        title="Name",
        description="What messages and reports call this rule, in words for people. Default: the "
        "label, and where the rule stands in the file.",
    )
    severity: Annotated[Severity, Expects("alert, detection or ignore")] = Field(
        default_factory=unset,
        title="Severity",
        description="alert: a threat, and an alert is sent. detection: a threat that is recorded "
        "and counted, but not sent. ignore: no threat. Default: alert.",
    )
    min_score: Fraction = Field(
        default_factory=unset,
        title="Minimum score",
        description="The minimum score of the detection, 0 to 1. Default: 0.5.",
    )
    min_area: Fraction = Field(
        default_factory=unset,
        title="Minimum area",
        description="The minimum area of the box as a fraction of the frame, 0 to 1. Default: no "
        "bound.",
    )
    max_area: Fraction = Field(
        default_factory=unset,
        title="Maximum area",
        description="The maximum area of the box as a fraction of the frame, 0 to 1. Default: no "
        "bound.",
    )
    min_ratio: Ratio = Field(
        default_factory=unset,
        title="Minimum ratio",
        description="The minimum ratio of the box, width divided by height in pixels, above 0. "
        "Default: no bound.",
    )
    max_ratio: Ratio = Field(
        default_factory=unset,
        title="Maximum ratio",
        description="The maximum ratio of the box, width divided by height in pixels, above 0. "
        "Default: no bound.",
    )

    min_score_at_night: Fraction = Field(
        default_factory=unset,
        title="Minimum score at night",
        description="The minimum score at night, 0 to 1, as the camera's night section defines "
        "it, in addition to min_score. Default: no further bound.",
    )
    min_count: Count = Field(
        default_factory=unset,
        title="Minimum count",
        description="The minimum number of objects of the label in one image after all earlier "
        "filters; fewer are no threat. Default: no bound.",
    )
    max_count: Count = Field(
        default_factory=unset,
        title="Maximum count",
        description="The maximum number of objects of the label in one image after all earlier "
        "filters; more are no threat. Default: no bound.",
    )
    repeats: Annotated[bool, Expects("true or false")] = Field(
        default_factory=unset,
        title="Repeats",
        description="Whether the camera's repeats section applies to this label. Default: false "
        "for person, true for all other labels.",
    )
    track: Annotated[bool, Expects("true or false")] = Field(
        default_factory=unset,
        title="Track",
        description="Whether the camera's track section applies to this label. Default: true.",
    )
    confirm: Annotated[bool, Expects("true or false")] = Field(
        default_factory=unset,
        title="Confirm",
        description="Whether the camera's confirm section applies to this label. Default: true.",
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
        description="The part of a box that must lie in the polygon: the middle of its lower edge "
        "(bottom_center, the default), its center, or a fraction of its area (overlap).",
    )
    min_overlap: Annotated[
        float, Field(gt=0, le=1, allow_inf_nan=False), Expects("a number above 0, at most 1")
    ] = Field(
        default_factory=unset,
        title="Minimum overlap",
        description="With anchor: overlap, the minimum fraction of the box that must lie in the "
        "polygon. Default: 0.5.",
    )


class ZoneSettings(_AreaSettings):
    """An area in which objects can be threats. A label that a zone covers is a threat only in such
    a zone. If zones overlap, an object is a threat if any of them lets it through."""

    objects: Annotated[
        dict[Label, ObjectSettings | None] | None,
        Expects("a mapping of labels, such as {person: {min_score: 0.6}}"),
    ] = Field(
        default=None,
        title="Objects",
        description="The labels that the zone covers, each with the values that differ from the "
        "camera's own settings. Default: all labels of the camera.",
    )


class MaskSettings(_AreaSettings):
    """An area in which objects are ignored."""

    objects: Annotated[list[Label], Expects("a list of labels, such as [car]")] = Field(
        default_factory=unset,
        title="Objects",
        description="The labels that are ignored there. Default: all labels.",
    )


class PeriodSettings(Model):
    """A period of the week, in the camera's time zone."""

    days: Days = Field(
        default_factory=unset,
        title="Days",
        description="The days on which it starts: mon, tue, wed, thu, fri, sat, sun. Default: "
        "every day.",
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
    list[Annotated[PeriodSettings, BeforeValidator(reject_text)]],
    BeforeValidator(reject_text),
    Expects('a list of periods, such as [{days: [sat, sun]}, {start: "18:00", end: "06:00"}]'),
]


class ScheduleSettings(Model):
    """When a camera is armed; at any other time nothing is a threat."""

    armed: Periods = Field(
        default_factory=unset,
        title="Armed",
        description="The periods in which it is armed. Default: always.",
    )
    disarmed: Periods = Field(
        default_factory=unset,
        title="Disarmed",
        description="The periods that are subtracted from those.",
    )


class NightSettings(Model):
    """When it is night, for min_score_at_night: by the time of day, by the brightness of the image,
    or by either."""

    start: Start = Field(
        default_factory=unset, title="Start", description="Its first minute, such as 20:00."
    )
    end: End = Field(
        default_factory=unset,
        title="End",
        description="The first minute after it, such as 06:00.",
    )
    max_brightness: Fraction = Field(
        default_factory=unset,
        title="Maximum brightness",
        description="It is night if the mean brightness of the image, 0 to 1, is at most this.",
    )


class RepeatsSettings(Model):
    """An object, such as a parked car, is a repeat and no threat if several earlier images have a
    detection of the same label in the same place."""

    enabled: Annotated[bool, Expects("true or false")] = Field(
        default_factory=unset,
        title="Enabled",
        description="false turns off what a lower layer has turned on.",
    )
    iou: Annotated[
        float, Field(gt=0, le=1, allow_inf_nan=False), Expects("a number above 0, at most 1")
    ] = Field(
        default_factory=unset,
        title="Intersection over union",
        description="The minimum intersection over union of two boxes in the same place. Default: "
        "0.5.",
    )
    occurrences: Annotated[int, Field(ge=1, le=20), Expects("a whole number from 1 to 20")] = Field(
        default_factory=unset,
        title="Occurrences",
        description="The number of earlier images that must show the object. Default: 3.",
    )
    within: Duration = Field(
        default_factory=unset,
        title="Within",
        description="The maximum age of the earlier images. Default: 24h.",
    )
    forget_after: Annotated[int, Field(ge=1, le=50), Expects("a whole number from 1 to 50")] = (
        Field(
            default_factory=unset,
            title="Forget after",
            description="An object that is absent from this many consecutive images counts as "
            "new. Default: 10.",
        )
    )
    min_score: Fraction = Field(
        default_factory=unset,
        title="Minimum score",
        description="The minimum score, 0 to 1, of an earlier detection; less than the min_score "
        "of objects, because scores fluctuate. Default: 0.25.",
    )


class TrackSettings(Model):
    """An object with a low score is a threat, too, if it has moved: a recent image shows the same
    label nearby, and neither object was in the place of the other, also in the images up to three
    times as old."""

    enabled: Annotated[bool, Expects("true or false")] = Field(
        default_factory=unset,
        title="Enabled",
        description="false turns off what a lower layer has turned on.",
    )
    min_score: Fraction = Field(
        default_factory=unset,
        title="Minimum score",
        description="The minimum score, 0 to 1, of an object that has moved, and of the earlier "
        "detection; less than the min_score of objects. Default: 0.1.",
    )
    within: TrackedTime = Field(
        default_factory=unset,
        title="Within",
        description="The maximum age of the image that shows the object nearby, at most 30s. "
        "Default: 3s.",
    )


class ConfirmSettings(Model):
    """A label counts as a threat once several images within a short time show it."""

    enabled: Annotated[bool, Expects("true or false")] = Field(
        default_factory=unset,
        title="Enabled",
        description="false turns off what a lower layer has turned on.",
    )
    pictures: Annotated[int, Field(ge=2, le=20), Expects("a whole number from 2 to 20")] = Field(
        default_factory=unset,
        title="Pictures",
        description="The number of images that must show the label, including this one. Default: "
        "2.",
    )
    within: Length = Field(
        default_factory=unset,
        title="Within",
        description="The maximum time between these images and this one. Default: 30s.",
    )
    unless_score: Fraction = Field(
        default_factory=unset,
        title="Unless score",
        description="An object of at least this score, 0 to 1, needs no confirmation. Default: "
        "every object needs it.",
    )


class ResolutionSettings(Model):
    """The permitted sizes of images, in pixels; other images are invalid, with the reason
    resolution_too_low or resolution_too_high."""

    min: Size = Field(
        default_factory=unset,
        title="Minimum size",
        description="The minimum [width, height] of an image, in pixels. Default: no bound.",
    )
    max: Size = Field(
        default_factory=unset,
        title="Maximum size",
        description="The maximum [width, height] of an image, in pixels. Default: no bound.",
    )


class TilesSettings(Model):
    """The model looks at the whole image, and also at parts of it that overlap, so that it sees
    small objects larger. Each part costs an inference."""

    enabled: Annotated[bool, Expects("true or false")] = Field(
        default_factory=unset,
        title="Enabled",
        description="false turns off what a lower layer has turned on.",
    )
    columns: Annotated[int, Field(ge=1, le=8), Expects("a whole number from 1 to 8")] = Field(
        default_factory=unset,
        title="Columns",
        description="The number of tiles next to each other. Default: 3.",
    )
    rows: Annotated[int, Field(ge=1, le=8), Expects("a whole number from 1 to 8")] = Field(
        default_factory=unset,
        title="Rows",
        description="The number of tiles above each other; columns times rows is 2 to 16. "
        "Default: 2.",
    )
    overlap: Annotated[
        float, Field(ge=0, le=0.5, allow_inf_nan=False), Expects("a number from 0 to 0.5")
    ] = Field(
        default_factory=unset,
        title="Overlap",
        description="The part of its width, and of its height, that a tile shares with its "
        "neighbour, 0 to 0.5. Default: 0.2.",
    )
    min_score: Fraction = Field(
        default_factory=unset,
        title="Minimum score",
        description="The minimum score, 0 to 1, of a detection in a tile; lower ones are not kept. "
        "Default: 0.3.",
    )


class NamesSettings(Model):
    """How the files of a camera are named; docs/names.md has the presets and the pattern's
    fields."""

    preset: Annotated[
        str, AfterValidator(check_preset), Expects("the name of a preset, such as reolink")
    ] = Field(
        default_factory=unset,
        title="Preset",
        description="A maker of cameras or a recorder, such as reolink. Default: --name_preset.",
    )
    pattern: Annotated[
        str,
        AfterValidator(check_pattern),
        Expects("a pattern such as '{camera}/{time:%Y%m%d_%H%M%S}.jpg'"),
    ] = Field(
        default_factory=unset,
        title="Pattern",
        description="A pattern with {camera} and {time:FORMAT}, matched against the path below "
        "--input. Default: --name_pattern.",
    )
    timezone: TimeZone = Field(
        default_factory=unset,
        title="Time zone",
        description="The time zone in which names without an offset are written, by its IANA "
        "name. Default: --timezone, or UTC.",
    )


CameraNames = Annotated[
    NamesSettings | None,
    Expects("a mapping, such as {preset: reolink, timezone: Europe/Berlin}"),
]


class Layer(Model):
    """Settings for every camera (defaults), or for the cameras that select them (a profile)."""

    objects: Annotated[
        dict[Label, ObjectSettings | None] | None,
        Expects("a mapping of labels, such as {person: {min_score: 0.6}}"),
    ] = Field(
        default=None,
        title="Objects",
        description="The labels that can be threats; a label that is not listed is no threat. "
        "Merged with the lower layers, label by label and value by value.",
    )
    resolution: Annotated[
        ResolutionSettings | None, Expects("a mapping, such as {min: [640, 480]}")
    ] = Field(
        default=None,
        title="Resolution",
        description="The permitted sizes of images, in pixels.",
    )
    tiles: Annotated[
        TilesSettings | None, Expects("a mapping, such as {columns: 3, rows: 2, overlap: 0.2}")
    ] = Field(
        default=None,
        title="Tiles",
        description="The model also looks at parts of the image, for objects that are small in it. "
        "Default: off; an empty section turns it on.",
    )
    timezone: TimeZone = Field(
        default_factory=unset,
        title="Time zone",
        description="The camera's time zone, by its IANA name, for schedule and night. Default: "
        "that of names, or UTC.",
    )
    names: CameraNames = Field(
        default=None,
        title="Names",
        description="How the camera's files are named, if not <id>_<timestamp>.jpg in UTC.",
    )
    zones: Annotated[
        dict[str, ZoneSettings | None] | None,
        Expects("a mapping of names, such as {drive: {polygon: [[0, 0.5], [1, 0.5], [1, 1]]}}"),
    ] = Field(
        default=None,
        title="Zones",
        description="Areas in which objects can be threats, by name. Merged with the lower "
        "layers, name by name.",
    )
    mask: Annotated[
        dict[str, MaskSettings | None] | None,
        Expects("a mapping of names, such as {flag: {polygon: [[0, 0], [0.2, 0], [0.2, 0.2]]}}"),
    ] = Field(
        default=None,
        title="Mask",
        description="Areas in which objects are ignored, by name. Merged with the lower layers, "
        "name by name.",
    )
    schedule: Annotated[
        ScheduleSettings | None,
        BeforeValidator(reject_text),
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
        description="An object that was in the same place before is no threat. Default: off; an "
        "empty section turns it on.",
    )
    track: Annotated[
        TrackSettings | None, Expects("a mapping, such as {min_score: 0.1, within: 3s}")
    ] = Field(
        default=None,
        title="Track",
        description="An object with a low score is a threat, too, if it has moved. Default: off; "
        "an empty section turns it on.",
    )
    confirm: Annotated[
        ConfirmSettings | None, Expects("a mapping, such as {pictures: 2, within: 30s}")
    ] = Field(
        default=None,
        title="Confirm",
        description="A label counts as a threat once several images show it. Default: off; an "
        "empty section turns it on.",
    )
    cooldown: Duration = Field(
        default_factory=unset,
        title="Cooldown",
        description="The time after an alert, such as 5m, in which the camera sends no other "
        "alert, unless a label appears that the alert did not contain. Default: 30m, with an "
        "incident_gap of 5m. 0s: one alert per image.",
    )
    incident_gap: Duration = Field(
        default_factory=unset,
        title="Incident gap",
        description="The time without threats, such as 10m, after which the next threat is a new "
        "incident: it has an alert, although the cooldown has not ended. 0s: the cooldown always "
        "lasts as long as it says. Default: 5m with the default cooldown, otherwise 0s.",
    )
    notify: TargetNames = Field(
        default_factory=unset,
        title="Notify",
        description="The targets of the camera's alerts. Default: none, apart from --alert_url.",
    )


class CameraSettings(Layer):
    """The settings of one camera that differ from its profile and from the defaults."""

    profile: Annotated[
        str, AfterValidator(check_profile), Expects("the name of a profile of this file")
    ] = Field(
        default_factory=unset,
        title="Profile",
        description="The profile that the camera inherits from, value by value. Without one it "
        "inherits from the defaults.",
    )


class RuleFile(Model):
    """What is a threat, camera by camera. A camera inherits from its profile, and a profile from
    the defaults, value by value."""

    version: Annotated[Literal[1], BeforeValidator(check_version), Expects("1")] = Field(
        title="Version", description="The version of this format: 1."
    )
    strict_ids: Annotated[bool, Expects("true or false")] = Field(
        default=False,
        title="Strict ids",
        description="true: images of cameras that are not listed under cameras are invalid "
        "(unknown_camera). false: the defaults apply to them.",
    )
    names: CameraNames = Field(
        default=None,
        title="Names",
        description="How the files of all cameras are named, if not <id>_<timestamp>.jpg in UTC; "
        "the same as names under defaults, which take precedence.",
    )
    defaults: Annotated[Layer | None, Expects("a mapping with objects and resolution")] = Field(
        default=None, title="Defaults", description="The settings that every camera starts from."
    )
    profiles: Annotated[
        dict[str, Layer | None] | None,
        Expects("a mapping of profile names, such as {outdoor: {objects: ...}}"),
    ] = Field(
        default=None,
        title="Profiles",
        description="Settings that cameras share, by name; a camera selects one of them.",
    )
    cameras: Annotated[
        dict[CameraId, CameraSettings | None] | None,
        Expects("a mapping of camera ids, such as {front-door: {profile: outdoor}}"),
    ] = Field(
        default=None,
        title="Cameras",
        description="The settings of each camera that differ, by its id.",
    )
    targets: Annotated[
        dict[str, TargetSettings | None] | None,
        Expects("a mapping of names, such as {guard: {webhook: https://example.com/hook}}"),
    ] = Field(
        default=None,
        title="Targets",
        description="The receivers of alerts, by name; cameras and profiles list them under "
        "notify.",
    )
    limits: Annotated[LimitsSettings | None, Expects("a mapping with per_id and fleet")] = Field(
        default=None,
        title="Limits",
        description="The number of messages after which the rest is combined in one digest.",
    )
    message: Annotated[
        MessageSettings | None, Expects("a mapping with subject, body and link_hours")
    ] = Field(
        default=None,
        title="Message",
        description="How a message reads, and how long its links open.",
    )
    console: Annotated[
        ConsoleSettings | None,
        Expects("a mapping, such as {url: https://console.example.com, key: ${MARK_KEY}}"),
    ] = Field(
        default=None,
        title="Console",
        description="Where the console is, to which messages link, and what signs the links in "
        "them that mark an alert.",
    )
    health: Annotated[HealthSettings | None, Expects("a mapping with targets")] = Field(
        default=None, title="Health", description="The receivers of health findings."
    )
    retention: Annotated[
        RetentionSettings | None,
        Expects("a mapping, such as {older_than: 30d, keep: {alerts: 365d}}"),
    ] = Field(
        default=None,
        title="Retention",
        description="How long images and their records are kept: `prune --rules` deletes what is "
        "older, and a stream does so once a day. Default: they are kept.",
    )


@dataclass(frozen=True)
class SchemaEntry:
    """The schema of one path in a rule file.

    Attributes:
        keys: The keys that are allowed, if the path is a section.
        expects: What is allowed, in words that follow "must be".
    """

    keys: tuple[str, ...]
    expects: str


def schema_at(path: tuple[str | int, ...]) -> SchemaEntry:
    """Returns the schema of a path; that of the list for an item of a list."""
    kind: Any = RuleFile
    expects = "a mapping that begins with version: 1"
    for key in path:
        model, values = _inside(kind)
        if model is not None and key in model.model_fields:
            field = model.model_fields[str(key)]
            kind = field.annotation
            words = [item.words for item in field.metadata if isinstance(item, Expects)]
            expects = words[0] if words else ""
        elif values is not None:
            kind = values
            keys = ", ".join(_keys(kind))
            expects = f"a mapping with any of {keys}" if keys else expects
        else:
            break
    return SchemaEntry(keys=_keys(kind), expects=expects)


def _keys(kind: Any) -> tuple[str, ...]:
    model, _ = _inside(kind)
    return () if model is None else tuple(model.model_fields)


def _inside(kind: Any) -> tuple[type[BaseModel] | None, Any]:
    """Returns the model that a type is or may be, and the type of a mapping's or list's values."""
    for option in (kind, *get_args(kind)):
        if get_origin(option) in (dict, list):
            return None, get_args(option)[-1]
        # In Python 3.10, list[int] is an instance of type, but issubclass() rejects it.
        is_class = get_origin(option) is None and isinstance(option, type)
        if is_class and issubclass(option, BaseModel):
            return option, None
    return None, None
