"""Micro-action recognition in large archives of interview video."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microaction.export.labels import Labels, read_labels
    from microaction.labeling.video import LabeledVideo, label_video

__version__ = "0.2.0"
__all__ = ["LabeledVideo", "Labels", "__version__", "label_video", "read_labels"]

_MODULE_OF = {
    "LabeledVideo": "microaction.labeling.video",
    "Labels": "microaction.export.labels",
    "label_video": "microaction.labeling.video",
    "read_labels": "microaction.export.labels",
}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:  # imported when used: some need torch
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
