"""The pictures of a contact sheet: frames of a video, and in each what the network sees of every person. Knows no Ray, no torch.

Shapes: H height, W width, C = 3 (RGB, uint8).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import cv2
import numpy as np

from microaction.errors import DecodeError, InvalidRegionError
from microaction.labeling.contact import Part
from microaction.labeling.people import crop_of
from microaction.labeling.probe import check_version
from microaction.preprocessing import Preprocessing
from microaction.video import Framing, SeekPoint
from microaction.video.decoding.av_backend import frames_at_times
from microaction.video.decoding.sources import Source
from microaction.video.sandbox import Limits, sandboxed
from microaction.video.windows import MICROSECONDS

MAX_SIDE = 640  # pixels of a frame on the page
JPEG_QUALITY = 82
NOT_DECODED = "the video ends before this frame"


@dataclass(frozen=True)
class FramePicture:
    """A frame as JPEG files: the whole, at most 640 pixels wide and high, and the square of each person, None where a crop shows
    nothing of the frame.

    `width` and `height` are those of the frame itself, in pixels. Without a picture, `reason` says why.
    """

    width: int
    height: int
    frame: bytes
    squares: tuple[bytes | None, ...]
    reason: str = ""


def load_pictures(
    video: Mapping[str, Any], parts: Sequence[Part], preprocessing: Preprocessing, limits: Limits
) -> list[FramePicture]:
    """Return the picture of each part of a video (a row of `schema.CATALOG`), decoded in a separate process.

    Squares are in the order of the part's people. Raises `DecodeError` if the video cannot be read, `VideoChangedError` if it is
    not the cataloged one, `StorageError`, and `RuntimeError` for a fault of the decoder.
    """
    check_version(video["video"], video["version"])
    moments = [(part.moment_us, [Framing.of(preprocessing, crop_of(span)) for span in part.people]) for part in parts]
    seek_points = [SeekPoint(**point) for point in video["seek_points"] or ()]
    found = sandboxed(video["video"], limits, pictures_at, video["video"], moments, seek_points)
    return [FramePicture(*fields) for fields in found]


def pictures_at(
    source: Source, moments: Sequence[tuple[int, Sequence[Framing]]], seek_points: Sequence[SeekPoint] = ()
) -> list[tuple[int, int, bytes, tuple[bytes | None, ...], str]]:
    """Return the fields of a `FramePicture` for each ascending time, in microseconds, and the framings of its people.

    Plain values: a process of its own returns no classes but those of errors. Raises `DecodeError` if the source is not a
    readable video.
    """
    pictures: list[tuple[int, int, bytes, tuple[bytes | None, ...], str]] = [(0, 0, b"", (), NOT_DECODED)] * len(
        moments
    )
    times_s = [Fraction(time_us, MICROSECONDS) for time_us, _ in moments]
    for first, last, frame_HWC, reason in frames_at_times(source, times_s, np.copy, seek_points):
        for number in range(first, last + 1):
            if frame_HWC is None:
                pictures[number] = (0, 0, b"", (), reason)
                continue
            H, W = frame_HWC.shape[:2]
            squares = tuple(_square(framing, frame_HWC) for framing in moments[number][1])
            pictures[number] = (W, H, _jpeg(_small(frame_HWC)), squares, "")
    return pictures


def _square(framing: Framing, frame_HWC: np.ndarray) -> bytes | None:
    try:
        return _jpeg(framing.square(frame_HWC))
    except InvalidRegionError:
        return None


def _small(frame_HWC: np.ndarray) -> np.ndarray:
    H, W = frame_HWC.shape[:2]
    scale = min(MAX_SIDE / max(H, W), 1.0)
    if scale == 1:
        return frame_HWC
    size = (max(1, round(W * scale)), max(1, round(H * scale)))
    return np.asarray(cv2.resize(frame_HWC, size, interpolation=cv2.INTER_AREA))


def _jpeg(image_HWC: np.ndarray) -> bytes:
    is_encoded, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image_HWC, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not is_encoded:
        raise DecodeError("", f"a frame of {image_HWC.shape[1]}×{image_HWC.shape[0]} pixels cannot be shown as JPEG")
    return bytes(data)
