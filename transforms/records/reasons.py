"""Why an image is invalid: the closed list."""

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


def duplicate_detail(camera: str, timestamp: str) -> str:
    """What is wrong with an image that another one of the same moment stands for."""
    return f"another image of {camera} at {timestamp} has other bytes and a smaller sha256"
