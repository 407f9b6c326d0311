"""Skeletons of people in clips: keypoints by frame and person, from published pickles and in a Parquet table.

Names are imported when they are first used, so that settings need neither Arrow nor storage.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microaction.skeletons.errors import SkeletonError
    from microaction.skeletons.skeleton import Skeleton
    from microaction.skeletons.table import read_skeletons, write_skeletons
    from microaction.skeletons.unpickling import load_pickle, published_skeletons

_MODULE_OF = {
    "Skeleton": "skeleton",
    "SkeletonError": "errors",
    "load_pickle": "unpickling",
    "published_skeletons": "unpickling",
    "read_skeletons": "table",
    "write_skeletons": "table",
}

__all__ = ["Skeleton", "SkeletonError", "load_pickle", "published_skeletons", "read_skeletons", "write_skeletons"]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
