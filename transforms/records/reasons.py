"""The closed list of reasons for which an image is invalid."""

from __future__ import annotations

BAD_NAME = "bad_name"
BAD_TIMESTAMP = "bad_timestamp"
TIMESTAMP_NOT_UTC = "timestamp_not_utc"
TIMESTAMP_IN_FUTURE = "timestamp_in_future"
UNKNOWN_CAMERA = "unknown_camera"
EMPTY_FILE = "empty_file"
FILE_TOO_LARGE = "file_too_large"
NOT_JPEG = "not_jpeg"
CORRUPT_JPEG = "corrupt_jpeg"
RESOLUTION_TOO_LOW = "resolution_too_low"
RESOLUTION_TOO_HIGH = "resolution_too_high"
DUPLICATE = "duplicate"
READ_FAILED = "read_failed"
INFERENCE_FAILED = "inference_failed"

ALL = (
    BAD_NAME,
    BAD_TIMESTAMP,
    TIMESTAMP_NOT_UTC,
    TIMESTAMP_IN_FUTURE,
    UNKNOWN_CAMERA,
    EMPTY_FILE,
    FILE_TOO_LARGE,
    NOT_JPEG,
    CORRUPT_JPEG,
    RESOLUTION_TOO_LOW,
    RESOLUTION_TOO_HIGH,
    DUPLICATE,
    READ_FAILED,
    INFERENCE_FAILED,
)

OF_NAMES = (BAD_NAME, BAD_TIMESTAMP, TIMESTAMP_NOT_UTC)
"""The reasons for which no camera and time is known."""

OF_CONTENT = tuple(reason for reason in ALL if reason not in OF_NAMES)
"""The reasons for which a file with a valid name is invalid now, and may be valid later."""

OF_THE_ATTEMPT = (READ_FAILED, INFERENCE_FAILED)
"""The reasons that don't depend on the bytes: another attempt may have another result."""


def duplicate_detail(camera: str, timestamp: str) -> str:
    """Returns the detail for an image that loses against another one of its capture time."""
    return (
        f"another image of {camera} at {timestamp} takes precedence: it is more severe, is in no "
        "cooldown, has a higher score, or else the smaller sha256"
    )
