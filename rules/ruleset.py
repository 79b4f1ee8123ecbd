"""The rules of all cameras, ready for use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rules.effective import CameraRules
from rules.frozen import FrozenMapping
from rules.history import History
from rules.judging import judge_image
from rules.names import Names, NameSettings
from rules.records import Image, ThreatSeverity, Verdict
from rules.retention import Retention
from rules.targets import Alerting, Target


@dataclass(frozen=True)
class Rules:
    """A rule file that was read and checked, by `load_rules` or `parse_rules`.

    Immutable, and picklable, so that workers need not read the file.

    Attributes:
        version: The first 12 hex digits of the sha256 of the file's bytes, as `sha256sum` shows.
        strict_ids: Whether images of a camera that the file does not name are invalid. The
            validation of images refuses them, by `has_camera`; `judge` applies the defaults.
        defaults: The rules of a camera that the file does not name.
        by_camera: The rules of each camera that the file names, in the order of the file.
        alerting: The targets of alerts, limits and templates.
        retention: How long `prune` keeps what; None if the file does not say it.
    """

    version: str
    strict_ids: bool
    defaults: CameraRules
    by_camera: Mapping[str, CameraRules]
    alerting: Alerting = field(default_factory=Alerting)
    retention: Retention | None = None

    @property
    def cameras(self) -> tuple[str, ...]:
        """The ids of the cameras that the file names, in the order of the file."""
        return tuple(self.by_camera)

    def has_camera(self, camera_id: str) -> bool:
        """Returns whether the file names a camera."""
        return camera_id in self.by_camera

    def for_camera(self, camera_id: str) -> CameraRules:
        """Returns the rules of a camera; the defaults if the file does not name it."""
        return self.by_camera.get(camera_id, self.defaults)

    def names(self, default: NameSettings | None = None) -> Names:
        """Returns how the names of images are read.

        Args:
            default: What holds where the file says nothing: the options of the job.
        """
        base = default or NameSettings()
        for_all = self.defaults.names.over(base)
        settings = {id: camera.names.over(base) for id, camera in self.by_camera.items()}
        own = {id: one for id, one in settings.items() if one != for_all}
        return Names(for_all, FrozenMapping(own))

    def timezone_of(self, camera_id: str, default: str | None = None) -> str:
        """Returns the time zone in which times of a camera are shown, by its IANA name.

        It is the camera's ``timezone``, or that of its ``names`` if the file sets no other.

        Args:
            camera_id: The id of the camera.
            default: The zone if the file sets none; None for UTC.
        """
        camera = self.for_camera(camera_id)
        has_zone = "timezone" in camera.origins or camera.names.timezone is not None
        return camera.local_zone if has_zone else default or camera.local_zone

    def needs_history(self, camera_id: str) -> bool:
        """Returns whether any rule of a camera depends on its earlier images."""
        return self.for_camera(camera_id).needs_history

    @property
    def any_needs_history(self) -> bool:
        """Whether any rule of any camera depends on earlier images."""
        cameras = (self.defaults, *self.by_camera.values())
        return any(camera.needs_history for camera in cameras)

    @property
    def notified_targets(self) -> frozenset[str]:
        """The names of the targets that receive alerts of any camera."""
        cameras = (self.defaults, *self.by_camera.values())
        return frozenset(name for camera in cameras for name in camera.notify)

    def judge(self, image: Image, history: History | None = None) -> Verdict:
        """Judges an image by the rules of its camera.

        Args:
            image: The image with its detections.
            history: The history of the camera, to which the image is added. Pass the same history
                for all images of a camera, in the order of their capture times. Without a
                history, the image is judged as the first one of its camera.
        """
        camera = self.for_camera(image.id)
        alerting: frozenset[ThreatSeverity] = frozenset(("alert",))
        if camera.cooldown is not None and self.targets_for(image.id, "detection"):
            alerting |= {"detection"}
        return judge_image(image, camera, self.version, history, alerting)

    def targets_for(self, camera_id: str, severity: ThreatSeverity) -> tuple[Target, ...]:
        """Returns the targets that receive images of a camera and severity."""
        targets = (self.alerting.targets[name] for name in self.for_camera(camera_id).notify)
        return tuple(target for target in targets if severity in target.severities)
