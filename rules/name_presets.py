"""The names that makers of cameras and recorders give their images, as patterns.

docs/names.md says where each form was found. Forms are tried in their order; the first that fits
reads the name.
"""

from __future__ import annotations

from types import MappingProxyType

_FOLDERS = (
    "{camera}/**/{time:%Y%m%d%H%M%S%3f}.jpg",
    "{camera}/**/{time:%Y%m%d%H%M%S}.jpg",
    "{camera}/**/{time:%Y%m%d_%H%M%S}.jpg",
    "{camera}/**/{time:%Y%m%d-%H%M%S}.jpg",
    "{camera}/**/{time:%Y%m%dT%H%M%S}.jpg",
    "{camera}/**/{time:%Y-%m-%d_%H-%M-%S}.jpg",
    "{camera}/**/{time:%Y-%m-%dT%H-%M-%S}.jpg",
    "{camera}/**/{time:%Y-%m-%d %H-%M-%S}.jpg",
    "{camera}/{time:%Y/%m/%d}/{time:%H%M%S%3f}.jpg",
    "{camera}/{time:%Y/%m/%d}/{time:%H%M%S}.jpg",
    "{camera}/{time:%Y/%m/%d}/{time:%H-%M-%S}.jpg",
    "{camera}/{time:%Y/%m/%d}/{time:%H_%M_%S}.jpg",
    "{camera}/{time:%Y/%m/%d}/{time:%H.%M.%S}.jpg",
    "{camera}/{time:%Y/%m/%d}/{time:%H/%M/%S}.jpg",
    "{camera}/{time:%Y-%m-%d}/{time:%H%M%S}.jpg",
    "{camera}/{time:%Y-%m-%d}/{time:%H-%M-%S}.jpg",
    "{camera}/{time:%Y-%m-%d}/{time:%H.%M.%S}.jpg",
    "{camera}/{time:%Y%m%d}/{time:%H%M%S}.jpg",
    "{camera}/{time:%Y%m%d}/{time:%H-%M-%S}.jpg",
    "{camera}/**/{time:%s%3f}.jpg",
    "{camera}/**/{time:%s}.jpg",
)

_DAHUA = (
    "**/{camera}/{time:%Y-%m-%d}/{channel}/jpg/{time:%H/%M/%S}[*.jpg",
    "**/{camera}/{time:%Y-%m-%d}/{channel}/jpg/{time:%H/%M.%S}[*.jpg",
    "**/{camera}/{time:%Y-%m-%d}/{channel}/jpg/{time:%H.%M.%S}[*.jpg",
)

PRESETS = MappingProxyType(
    {
        "reolink": ("{camera}_{sequence}_{time:%Y%m%d%H%M%S}.jpg",),
        "hikvision": (
            "{camera}_{channel}_{time:%Y%m%d%H%M%S%3f}_*.jpg",
            "{camera}_{channel}_{time:%Y%m%d%H%M%S%3f}.jpg",
            "{camera}_{channel}_{time:%Y%m%d%H%M%S}_*.jpg",
        ),
        "dahua": _DAHUA,
        "amcrest": _DAHUA,
        "axis": (
            "**/{camera}/*{time:%y-%m-%d_%H-%M-%S}-{time:%f}_*.jpg",
            "**/{camera}/*{time:%y-%m-%d_%H-%M-%S}-{time:%f}.jpg",
            "**/{camera}/*{time:%y-%m-%d_%H-%M-%S}.jpg",
        ),
        "foscam": (
            "**/{camera}/snap/*_{time:%Y%m%d-%H%M%S}.jpg",
            "**/{camera}/snap/*_{time:%Y%m%d_%H%M%S}.jpg",
            "**/{camera}/*_{time:%Y%m%d-%H%M%S}.jpg",
            "{camera}(*)_*_{time:%Y%m%d%H%M%S}_{sequence}.jpg",
        ),
        "vivotek": (
            "{camera}_{time:%Y%m%d%H%M%S}_{sequence}_*.jpg",
            "{camera}_{time:%Y%m%d%H%M%S}.jpg",
            "{camera}_{time:%Y%m%d_%H%M%S}_{channel}.jpg",
            "{camera}@{time:%Y%m%d_%H%M%S}.jpg",
        ),
        "synology": ("{camera}-{time:%Y%m%d-%H%M%S}*.jpg",),
        "unifi": (
            "{camera} - {time:%Y-%m-%d - %H.%M.%S%z}.jpg",
            "{camera} - {time:%Y-%m-%d - %H.%M.%S}.jpg",
        ),
        "motion": (
            "**/{camera}/*-{time:%Y%m%d%H%M%S}-*.jpg",
            "**/{camera}/{time:%Y%m%d%H%M%S}-*.jpg",
            "**/{camera}/{time:%Y/%m/%d/%H/%M/%S}-*.jpg",
        ),
        "motioneye": (
            "**/{camera}/{time:%Y-%m-%d/%H-%M-%S}.jpg",
            "**/{camera}/{time:%Y-%m-%d/%H-%M-%S}-{sequence}.jpg",
        ),
        "zoneminder": (
            "**/{camera}/{time:%y/%m/%d/%H/%M/%S}/{sequence}-*.jpg",
            "**/{camera}/{time:%y/%m/%d/%H/%M/%S}/*.jpg",
        ),
        "frigate": ("{camera}-{time:%s.%f}-*.jpg",),
        "blueiris": (
            "{camera}.{time:%Y%m%d_%H%M%S%3f}.jpg",
            "{camera}.{time:%Y%m%d_%H%M%S}.jpg",
            "{camera}.{time:%Y%m%d_%H%M%S}.*.jpg",
        ),
        "folders": _FOLDERS,
    }
)
"""The patterns of each preset."""
