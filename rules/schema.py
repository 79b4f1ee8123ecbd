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

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from rules.errors import suggestion
from rules.records import Severity

CAMERA_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


@dataclass(frozen=True)
class Expects:
    """What a key takes, in words that follow "must be"."""

    words: str


@dataclass(frozen=True)
class Names:
    """What names in a file may refer to: the context of validation.

    Attributes:
        labels: the labels that the model can give; None where any will do.
        profiles: the profiles of the file; None where they cannot be told.
    """

    labels: tuple[str, ...] | None
    profiles: tuple[str, ...] | None


def custom_error(problem: str, remedy: str) -> PydanticCustomError:
    """A validation error that brings its own wording; see `rules.loading`."""
    return PydanticCustomError("rules", "{problem}", {"problem": problem, "remedy": remedy})


def _known_label(label: str, info: ValidationInfo) -> str:
    names = info.context
    if isinstance(names, Names) and names.labels is not None and label not in names.labels:
        remedy = suggestion(label, names.labels, "labels of the model")
        raise custom_error("the model does not give this label", remedy)
    return label


def _known_profile(profile: str, info: ValidationInfo) -> str:
    names = info.context
    if isinstance(names, Names) and names.profiles is not None and profile not in names.profiles:
        remedy = suggestion(profile, names.profiles, "profiles")
        raise custom_error(f"there is no profile {profile!r}", remedy)
    return profile


def _version_1(value: object) -> object:
    # Literal[1] alone takes True and 1.0 for 1.
    if type(value) is not int or value != 1:
        raise custom_error("not a version that this release reads", "write version: 1")
    return value


def _unset() -> Any:
    """The default of a value that may be left out but not be null; it never reaches a rule."""
    return None


CameraId = Annotated[
    str,
    Field(
        pattern=CAMERA_ID_PATTERN,
        description="A camera's id, as in the names of its images: 1 to 64 of A-Z a-z 0-9 . _ -, "
        "beginning with a letter or digit.",
    ),
]
Label = Annotated[
    str,
    Field(min_length=1, description="A label of the model, e.g. person."),
    AfterValidator(_known_label),
]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), Expects("a number from 0 to 1")]
Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False), Expects("a number greater than 0")]
Pixels = Annotated[int, Field(ge=1)]
Size = Annotated[
    list[Pixels],
    Field(min_length=2, max_length=2),
    Expects("[width, height] in pixels, two whole numbers of at least 1"),
]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ObjectSettings(_Model):
    """What makes an object of this label a threat. The checks are made in the order: severity,
    min_score, min_area, max_area, min_ratio, max_ratio. A value equal to a bound passes."""

    severity: Annotated[Severity, Expects("alert, detection or ignore")] = Field(
        default_factory=_unset,
        title="Severity",
        description="alert: a threat, and an alert is sent. detection: a threat that is recorded "
        "and counted; nothing is sent. ignore: tolerated, no threat. alert where nothing is said.",
    )
    min_score: Share = Field(
        default_factory=_unset,
        title="Minimum score",
        description="The least score of the model, 0 to 1. 0.5 where nothing is said.",
    )
    min_area: Share = Field(
        default_factory=_unset,
        title="Minimum area",
        description="The least area of the box as a fraction of the frame, 0 to 1. "
        "No bound where nothing is said.",
    )
    max_area: Share = Field(
        default_factory=_unset,
        title="Maximum area",
        description="The greatest area of the box as a fraction of the frame, 0 to 1. "
        "No bound where nothing is said.",
    )
    min_ratio: Ratio = Field(
        default_factory=_unset,
        title="Minimum ratio",
        description="The least ratio of the box, width over height, both in pixels; above 0. "
        "No bound where nothing is said.",
    )
    max_ratio: Ratio = Field(
        default_factory=_unset,
        title="Maximum ratio",
        description="The greatest ratio of the box, width over height, both in pixels; above 0. "
        "No bound where nothing is said.",
    )


class ResolutionSettings(_Model):
    """The sizes of image that are taken, in pixels; others are set aside as invalid, with the
    reason resolution_too_low or resolution_too_high."""

    min: Size = Field(
        default_factory=_unset,
        title="Minimum size",
        description="The least [width, height] of an image, in pixels. "
        "No bound where nothing is said.",
    )
    max: Size = Field(
        default_factory=_unset,
        title="Maximum size",
        description="The greatest [width, height] of an image, in pixels. "
        "No bound where nothing is said.",
    )


class Layer(_Model):
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


class CameraSettings(Layer):
    """One camera: what differs from its profile and from the defaults."""

    profile: Annotated[
        str, AfterValidator(_known_profile), Expects("the name of a profile of this file")
    ] = Field(
        default_factory=_unset,
        title="Profile",
        description="The profile that the camera inherits from, value by value. Without one it "
        "inherits from the defaults.",
    )


class RuleFile(_Model):
    """What is a threat, camera by camera. A camera inherits from its profile, and that from the
    defaults, value by value."""

    version: Annotated[Literal[1], BeforeValidator(_version_1), Expects("1")] = Field(
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
    """The model that a type is or may be, and the type of a mapping's values."""
    for option in (kind, *get_args(kind)):
        if get_origin(option) is dict:
            return None, get_args(option)[1]
        # Python 3.10 takes list[int] for a type, and then fails to say whose subclass it is.
        is_class = get_origin(option) is None and isinstance(option, type)
        if is_class and issubclass(option, BaseModel):
            return option, None
    return None, None
