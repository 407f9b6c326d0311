"""Published pickles of skeletons, read without running code: numpy's arrays and plain Python types only.

Source of their layout: the published code of PCAN (Li et al. 2025).
"""

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from microaction.skeletons.errors import SkeletonError
from microaction.skeletons.skeleton import Skeleton

CLIP_SUFFIX = ".mp4"


def load_pickle(data: bytes) -> Any:
    """Return the content of a pickle of plain types and numpy arrays of numbers.

    Raises `SkeletonError` for anything else before any of it runs: a pickle may name any function, and call it.
    """
    try:
        return _PlainUnpickler(io.BytesIO(data)).load()
    except SkeletonError:
        raise
    except Exception as error:  # what a damaged pickle raises is of any kind
        raise SkeletonError(f"not a pickle, or cut short: {type(error).__name__}") from error


def published_skeletons(data: bytes) -> Iterator[tuple[str, Skeleton]]:
    """Yield the name of each clip (`0001_05_0001.mp4`) and its skeleton, from a published pickle. Raises `SkeletonError`."""
    content = load_pickle(data)
    annotations = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(annotations, list):
        raise SkeletonError(f"holds a {type(content).__name__}, not a list of clips")
    for number, annotation in enumerate(annotations, start=1):
        if not isinstance(annotation, dict):
            raise SkeletonError(f"clip {number} is a {type(annotation).__name__}, not a dict")
        try:
            name = PurePosixPath(str(annotation["frame_dir"])).name
            height, width = (int(side) for side in annotation["img_shape"])
            keypoints, scores = annotation["keypoint"], annotation["keypoint_score"]
        except (KeyError, TypeError, ValueError) as error:
            raise SkeletonError(f"clip {number} has no usable {error}") from error
        yield name + CLIP_SUFFIX, Skeleton.checked(keypoints, scores, width, height, name)


def _array(subtype: type, shape: tuple[int, ...], dtype: object) -> np.ndarray:
    """Stand in for numpy's `_reconstruct`, which pickles call with any type."""
    if subtype is not np.ndarray:
        raise SkeletonError(f"refused: an array of type {subtype!r}")
    del dtype  # of an empty array, which the pickle's state replaces
    return np.ndarray.__new__(np.ndarray, shape, np.int8)


def _scalar(dtype: np.dtype, data: bytes = b"") -> Any:
    if dtype.hasobject:
        raise SkeletonError("refused: an array of objects")
    return np.frombuffer(data, dtype)[0]


def _from_buffer(data: Any, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    if dtype.hasobject:
        raise SkeletonError("refused: an array of objects")
    values: np.ndarray = np.frombuffer(data, dtype)
    return values.reshape(shape, order="F" if order == "F" else "C")


def _bytes(text: str, encoding: str) -> bytes:
    """Stand in for `_codecs.encode`, which pickles of protocol 2 hold bytes with."""
    if encoding != "latin1":
        raise SkeletonError(f"refused: the codec {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stand in for `bytes`, with which pickles of protocol 2 make empty ones."""
    return b""


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    **{(builtins, "bytes"): _no_bytes for builtins in ("__builtin__", "builtins")},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _bytes,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle may name; refuse all else."""
        found = _ALLOWED.get((module, name))
        if found is None:
            raise SkeletonError(f"refused: the pickle names {module}.{name}, which could run code")
        return found

    def persistent_load(self, pid: Any) -> Any:  # noqa: ARG002 - the interface
        """Refuse references to the outside."""
        raise SkeletonError("refused: the pickle refers to something outside of it")
