"""Micro-action recognition in large archives of interview video."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microaction.labeling.video import LabeledVideo, label_video

__version__ = "0.2.0"
__all__ = ["LabeledVideo", "__version__", "label_video"]


def __getattr__(name: str) -> Any:
    if name in ("LabeledVideo", "label_video"):  # imported when used: they need torch
        from microaction.labeling import video

        return getattr(video, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
