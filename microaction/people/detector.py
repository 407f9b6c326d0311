"""Finds people in a frame: boxes and 17 keypoints, by MoveNet MultiPose Lightning in OpenCV's DNN module.

The network: Google, Apache 2.0 (see THIRD_PARTY.md); `microaction.people.weights` makes the file. Its heads are read here in
numpy, so that more than the six people of the original graph can be found.

Shapes: H height, W width, C = 3 (RGB, uint8); h×w cells of the heads, each 4×4 pixels of the network's input; K = 17 keypoints in
COCO's order: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles, the left ones first.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from microaction.errors import UsageError
from microaction.installation import PACKAGE, find_packaged

WEIGHTS_FILE = "people/movenet_multipose.onnx"
WEIGHTS = PACKAGE / WEIGHTS_FILE
WEIGHTS_SHA256 = "7c9af4df2489597377c21a70e51a926589bc08ebdf034ce735fab588809b5eca"
NUM_KEYPOINTS = 17
HEADS = ("center", "box_scale", "box_offset", "kpt_heatmap", "kpt_regress", "kpt_offset")
CELL = 4  # pixels of the network's input
STEP = 32  # its sides are multiples of it
PEAK_CELLS = 5  # two people's centers are farther apart
KEYPOINT_SPREAD = 0.3  # of a keypoint's place around where the center expects it, as a fraction of the shorter side
MIN_KEYPOINT_SCORE = 0.127  # of keypoints that count for a person's score
LEFT, RIGHT = slice(1, None, 2), slice(2, None, 2)  # keypoints after the nose
NOSE = 0
SHOULDERS, HIPS, KNEES, ANKLES = [5, 6], [11, 12], [13, 14], [15, 16]

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""


@dataclass(frozen=True)
class Detection:
    """A person in a frame, in pixels of that frame.

    keypoints_K3: x, y and score, 0 to 1. score: 0 to 1.
    """

    box: Box
    keypoints_K3: np.ndarray
    score: float


class Detector(Protocol):
    """Finds people in frames. Another network can stand in for MoveNet's; its keypoints must be COCO's 17.

    `turn` counts the looks at a video: whom a detector is blind to in one way, it may find in another.
    """

    @property
    def digest(self) -> str:
        """Identifies all that decides what is found."""
        ...

    def detect(self, frame_HWC: np.ndarray, turn: int = 0) -> list[Detection]:
        """Return the people in a frame, the likeliest first."""
        ...


class DetectorError(UsageError, ValueError):
    """The weights of the person detector are missing or damaged."""


@dataclass(frozen=True)
class MoveNet:
    """MoveNet MultiPose Lightning.

    The frame's longer side is resized to about `longer_sides[0]` pixels, in odd turns to `longer_sides[1]` and mirrored: of 112
    drawn people in 56 interviews, 5 are found in no turn if all are alike, and none is if they alternate. Finds up to
    `max_people` people of at least `min_score`: the lowest score of people who were there was 0.22 on real footage, the highest
    of what is nobody 0.18. Results do not depend on the number of OpenCV's threads.
    """

    weights: Path = field(default_factory=lambda: find_packaged(WEIGHTS_FILE))
    longer_sides: tuple[int, int] = (256, 384)
    max_people: int = 12
    min_score: float = 0.2

    @property
    def digest(self) -> str:
        """Identifies the network and how it is used."""
        used = f"{WEIGHTS_SHA256} {self.longer_sides} {self.max_people} {self.min_score}"
        return hashlib.sha256(used.encode()).hexdigest()[:16]

    @cached_property
    def _net(self) -> cv2.dnn.Net:
        return cv2.dnn.readNetFromONNX(np.frombuffer(self._content(), np.uint8))

    def check(self) -> None:
        """Raise `DetectorError` unless the weights exist and are the package's own."""
        self._content()

    def _content(self) -> bytes:
        try:
            content = self.weights.read_bytes()
        except FileNotFoundError:
            raise DetectorError(
                f"{self.weights} is missing, the weights of the person detector: install the package where this runs, or "
                "set people to off"
            ) from None
        found = hashlib.sha256(content).hexdigest()
        if found != WEIGHTS_SHA256:
            raise DetectorError(
                f"{self.weights} is not the person detector: its SHA-256 is {found}; install the package again"
            )
        return content

    def detect(self, frame_HWC: np.ndarray, turn: int = 0) -> list[Detection]:
        """Return the people in a frame, the likeliest first. Raises `DetectorError` for other weights than the package's."""
        if turn % 2:
            width = frame_HWC.shape[1]
            found = self._found(frame_HWC, self.longer_sides[1], mirrored=True)
            return [_mirrored(person, width) for person in found]
        return self._found(frame_HWC, self.longer_sides[0])

    def _found(self, frame_HWC: np.ndarray, longer_side: int, *, mirrored: bool = False) -> list[Detection]:
        input_1CHW, scale = _prepare(frame_HWC, longer_side, mirrored=mirrored)
        self._net.setInput(input_1CHW)
        heads = {name: head[0] for name, head in zip(HEADS, self._net.forward(HEADS), strict=True)}
        people = _people(heads, CELL / scale, self.max_people, self.min_score)
        found = sorted(people, key=lambda person: -person.score)
        return [person for person in found if person.score >= self.min_score]


def _mirrored(found: Detection, width: int) -> Detection:
    """Return what was found in the mirror image of a frame in its own pixels, and with the person's own left and right."""
    left, top, right, bottom = found.box
    keypoints_K3 = found.keypoints_K3.copy()
    keypoints_K3[LEFT], keypoints_K3[RIGHT] = found.keypoints_K3[RIGHT], found.keypoints_K3[LEFT]
    keypoints_K3[:, 0] = width - keypoints_K3[:, 0]
    return Detection((width - right, top, width - left, bottom), keypoints_K3, found.score)


def _prepare(frame_HWC: np.ndarray, longer_side: int, *, mirrored: bool) -> tuple[np.ndarray, float]:
    """Return the network's input, and how many of its pixels a pixel of the frame is."""
    H, W = frame_HWC.shape[:2]
    scale = longer_side / max(H, W)
    height, width = (math.ceil(round(side * scale) / STEP) * STEP for side in (H, W))
    scale = min(height / H, width / W)
    resized_h, resized_w = round(H * scale), round(W * scale)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = np.zeros((height, width, 3), np.float32)
    resized_HWC = cv2.resize(frame_HWC, (resized_w, resized_h), interpolation=interpolation)
    image[:resized_h, :resized_w] = resized_HWC[:, ::-1] if mirrored else resized_HWC
    return np.ascontiguousarray((image / 127.5 - 1).transpose(2, 0, 1)[None]), scale


def _people(
    heads: dict[str, np.ndarray], pixels_per_cell: float, max_people: int, min_score: float
) -> Iterator[Detection]:
    """Yield the people at the highest peaks of the centers' heatmap; a score is at most the peak's."""
    center_hw = _sigmoid(heads["center"][0])
    w = center_hw.shape[1]
    highest_hw = cv2.dilate(center_hw, np.ones((PEAK_CELLS, PEAK_CELLS), np.uint8))
    peaks = np.where(np.abs(center_hw - highest_hw) < 1e-6, center_hw, 0).ravel()
    heat_Khw = _sigmoid(heads["kpt_heatmap"])
    for cell in np.argsort(-peaks, kind="stable")[:max_people]:
        if peaks[cell] < min_score:
            return
        y, x = divmod(int(cell), w)
        box = _box(heads, x, y)
        keypoints_K3 = _keypoints(heads, heat_Khw, x, y, box)
        is_sure_K = keypoints_K3[:, 2] > MIN_KEYPOINT_SCORE
        score = float(peaks[cell] * keypoints_K3[is_sure_K, 2].sum() / max(is_sure_K.sum(), 1))
        keypoints_K3[:, :2] *= pixels_per_cell
        left, top, right, bottom = (float(side * pixels_per_cell) for side in box)
        yield Detection((left, top, right, bottom), keypoints_K3, score)


def _box(heads: dict[str, np.ndarray], x: int, y: int) -> np.ndarray:
    """Return left, top, right and bottom of the box of a center, in cells."""
    h, w = heads["center"].shape[1:]
    size_y, size_x = np.maximum(heads["box_scale"][:, y, x], 0)
    offset_y, offset_x = heads["box_offset"][:, y, x]
    middle_x, middle_y = x + offset_x, y + offset_y
    sides = [middle_x - size_x / 2, middle_y - size_y / 2, middle_x + size_x / 2, middle_y + size_y / 2]
    box: np.ndarray = np.clip(sides, 0, [w, h, w, h])
    return box


def _keypoints(heads: dict[str, np.ndarray], heat_Khw: np.ndarray, x: int, y: int, box: np.ndarray) -> np.ndarray:
    """Return x, y (in cells) and score of the keypoints [K, 3]: the warmest cell inside the box, near where the center
    expects each."""
    h, w = heat_Khw.shape[1:]
    rows_hw, columns_hw = np.mgrid[:h, :w].astype(np.float32)
    expected_yx = heads["kpt_regress"][:, y, x].reshape(NUM_KEYPOINTS, 2) + np.array([y, x])
    expected_y, expected_x = expected_yx.T[:, :, None, None]
    distance = (rows_hw - expected_y) ** 2 + (columns_hw - expected_x) ** 2
    left, top, right, bottom = box
    is_inside = (rows_hw >= top) & (columns_hw >= left) & (rows_hw < bottom) & (columns_hw < right)
    near_Khw = heat_Khw * np.exp(-distance / (KEYPOINT_SPREAD * min(h, w))) * is_inside
    flat = near_Khw.reshape(NUM_KEYPOINTS, -1)
    rows, columns = np.divmod(flat.argmax(axis=1), w)
    offset_K2hw = heads["kpt_offset"].reshape(NUM_KEYPOINTS, 2, h, w)
    offset_y, offset_x = offset_K2hw[np.arange(NUM_KEYPOINTS), :, rows, columns].T
    return np.stack([columns + offset_x, rows + offset_y, flat.max(axis=1)], axis=1).astype(np.float32)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    sigmoid: np.ndarray = 1 / (1 + np.exp(-values))
    return sigmoid
