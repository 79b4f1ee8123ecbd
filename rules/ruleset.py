"""The rules of all cameras, ready to judge by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rules.effective import CameraRules
from rules.history import History
from rules.judging import judge_image
from rules.records import Image, ThreatSeverity, Verdict
from rules.targets import Alerting, Target


@dataclass(frozen=True)
class Rules:
    """A rule file that was read and found right. Made by `load_rules` or `parse_rules`; immutable,
    and picklable, so that workers need not read the file.

    Attributes:
        version: the first 12 hex digits of the sha256 of the file's bytes, as `sha256sum` shows.
        strict_ids: whether images of a camera that the file does not name are to be refused. Who
            validates the images refuses them, by `knows`; `judge` gives them the defaults.
        defaults: what holds for a camera that the file does not name.
        by_camera: what holds for each camera that it does name, in the order of the file.
        alerting: whom alerts go to, and how.
    """

    version: str
    strict_ids: bool
    defaults: CameraRules
    by_camera: Mapping[str, CameraRules]
    alerting: Alerting = field(default_factory=Alerting)

    @property
    def cameras(self) -> tuple[str, ...]:
        """The ids that the file names, in its order."""
        return tuple(self.by_camera)

    def knows(self, camera_id: str) -> bool:
        """Whether the file names the camera."""
        return camera_id in self.by_camera

    def for_camera(self, camera_id: str) -> CameraRules:
        """What holds for a camera; the defaults where the file does not name it."""
        return self.by_camera.get(camera_id, self.defaults)

    def needs_history(self, camera_id: str) -> bool:
        """Whether any rule of a camera looks at its earlier pictures."""
        return self.for_camera(camera_id).needs_history

    @property
    def looks_back(self) -> bool:
        """Whether any rule of any camera looks at earlier pictures."""
        cameras = (self.defaults, *self.by_camera.values())
        return any(camera.needs_history for camera in cameras)

    @property
    def notified(self) -> frozenset[str]:
        """The names of the targets that any camera's alerts go to."""
        cameras = (self.defaults, *self.by_camera.values())
        return frozenset(name for camera in cameras for name in camera.notify)

    def judge(self, image: Image, history: History | None = None) -> Verdict:
        """Judge an image by the rules of its camera.

        Args:
            image: what was seen.
            history: what its camera has shown before, to which the image is added; give the same
                one to all images of a camera, in the order of time. Without one the image is
                judged as the first that its camera ever sent.
        """
        return judge_image(image, self.for_camera(image.id), self.version, history)

    def targets_for(self, camera_id: str, severity: ThreatSeverity) -> tuple[Target, ...]:
        """The targets that are told of a picture of a camera and severity."""
        targets = (self.alerting.targets[name] for name in self.for_camera(camera_id).notify)
        return tuple(target for target in targets if severity in target.severities)
