"""Looks: who is seen in one frame every few seconds, and where the camera cuts.

A look is taken at the first key frame of every 2 s, which is decoded by itself; where none comes for 12 s, at the frame at the
beginning of these 12 s. So the same looks are taken whatever span of the video is asked for.

Shapes: H height, W width, C = 3 (RGB, uint8); h×w cells of a thumbnail; K = 17 keypoints.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import cv2
import numpy as np

from microaction.people.detector import HIPS, NOSE, SHOULDERS, Box, Detection, Detector
from microaction.video.decoding.av_backend import frames_at_times
from microaction.video.decoding.sources import Source
from microaction.video.decoding.timeline import SeekPoint
from microaction.video.keyframes import KeyFrame, key_frames
from microaction.video.windows import MICROSECONDS, Span

LOOK_EVERY_US = 2 * MICROSECONDS
MAX_GAP_US = 12 * MICROSECONDS  # a multiple of LOOK_EVERY_US
THUMBNAIL = (18, 32)  # rows, columns
CELL_SAMPLES = 8  # pixels of a cell in each direction, at least, that its color is the mean of
MIN_CHANGE = 0.06  # of a cell's color, 0 to 1, that counts as changed
MAX_CHANGE_BESIDE_LIGHT = 0.25  # in drawn interviews at most 0.23 within a shot, at least 0.27 where the camera cuts
MAX_LIGHT = 1.5  # times the light of another look: a lamp, clouds, the camera's exposure
CUT = 0.5  # fraction of changed cells: gestures and banners change up to 0.3, most cuts 0.6 and more
CUT_BETWEEN_OTHERS = 0.2  # where nobody of the look before is seen any more in the same size: close-ups before one wall
MIN_IOU = 0.3  # of the boxes of a person in two looks of a shot; of seated people 0.87 and more
MAX_DIFFERENCE = 0.55  # of a person's torso between looks of a shot; the median is 0.05 to 0.26
MAX_DIFFERENCE_AT_CHANGE = 0.45  # the same, where much of the picture has changed: more is a cut
MAX_ZOOM = 1.4  # a person who is so much larger is shown by another shot: one crop would not fit both
CUT_STEPS = 16  # frames looked at in each round of finding a cut between two looks
HISTOGRAM = (8, 4, 4)  # bins of hue, saturation and value
MIN_HIP_SCORE = 0.2
MIN_INSIDE, MIN_COMMON_WIDTH = (
    0.9,
    0.75,
)  # of a box that is part of another one; of their width. Two people differ sideways.
TWICE_IOU, TWICE_DISTANCE = 0.6, 0.1  # of boxes, and of keypoints as a fraction of the height: one person found twice


@dataclass(frozen=True)
class SeenPerson(Detection):
    """A person in a look: a detection, and the colors of the torso (a histogram, which sums to 1)."""

    colors: np.ndarray


@dataclass(frozen=True)
class Look:
    """What is seen at one moment. `thumbnail_hwC`: the frame, small. `cut_us`: when the shot begins that this look is the
    first of, if the camera cut since the look before."""

    time_us: int
    width: int
    height: int
    thumbnail_hwC: np.ndarray
    people: tuple[SeenPerson, ...]
    cut_us: int | None = None


def take_looks(source: Source, span: Span, detector: Detector, seek_points: Sequence[SeekPoint] = ()) -> Iterator[Look]:
    """Yield the looks in a span of a video, which starts at a multiple of 12 s.

    Spans that follow each other give the looks of the whole, bit for bit. A frame that cannot be decoded gives no look.
    `seek_points` are those that `probe` found. Raises `DecodeError` if the source is not a readable video.
    """
    if span.start_us % MAX_GAP_US:
        raise ValueError(f"the span must start at a multiple of {MAX_GAP_US} µs, not at {span.start_us}")
    # The look before the span tells whether the camera cut before its first look.
    wider = Span(max(span.start_us - MAX_GAP_US, 0), span.end_us)
    before: Look | None = None
    cell, place = -1, 0
    for frame in _chosen_frames(source, wider, seek_points):
        place = place + 1 if frame.time_us // MAX_GAP_US == cell else 0
        cell = frame.time_us // MAX_GAP_US
        # Turns alternate however far apart key frames are, and are the same whatever span is asked for.
        look = look_at(frame.frame_HWC, frame.time_us, detector, turn=cell + place)
        if frame.time_us >= span.start_us:
            cut_us = None if before is None else _cut_between(source, before, look, seek_points)
            yield replace(look, cut_us=cut_us)
        before = look


def look_at(frame_HWC: np.ndarray, time_us: int, detector: Detector, turn: int = 0) -> Look:
    """Return the look at a frame that is shown at a time of the video; `turn` is passed on to the detector."""
    found = _distinct(detector.detect(frame_HWC, turn))
    people = tuple(
        SeenPerson(person.box, person.keypoints_K3, person.score, torso_colors(frame_HWC, person)) for person in found
    )
    height, width = frame_HWC.shape[:2]
    return Look(time_us, width, height, thumbnail(frame_HWC), people)


def _distinct(found: Sequence[Detection]) -> list[Detection]:
    """Return the people without those who are found twice: the less likely one has the same box and the same keypoints."""
    kept: list[Detection] = []
    for person in found:
        height = person.box[3] - person.box[1]
        if not any(
            iou(person.box, other.box) > TWICE_IOU
            and np.median(np.hypot(*(person.keypoints_K3 - other.keypoints_K3)[:, :2].T)) < TWICE_DISTANCE * height
            for other in kept
        ):
            kept.append(person)
    return kept


def iou(one: Box, other: Box) -> float:
    """Return the intersection over the union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height)


def is_part(one: Box, other: Box) -> bool:
    """Return whether one of two boxes is the other without its upper or lower part, as of a person who is found without legs."""
    overlap = (max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3]))
    width, height = overlap[2] - overlap[0], overlap[3] - overlap[1]
    if width <= 0 or height <= 0:
        return False
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    span = max(one[2], other[2]) - min(one[0], other[0])
    return width * height >= MIN_INSIDE * smaller and width >= MIN_COMMON_WIDTH * span


def hellinger_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the Hellinger distance of two histograms, 0 to 1."""
    return float(hellinger_distances(one, other[None])[0])


def hellinger_distances(one: np.ndarray, others_MK: np.ndarray) -> np.ndarray:
    """Return the Hellinger distances [M] of a histogram and of others."""
    distances_M: np.ndarray = np.sqrt(np.maximum(0.0, 1.0 - np.sqrt(one * others_MK).sum(axis=-1)))
    return distances_M


def is_cut(before: Look, after: Look) -> bool:
    """Return whether the camera cut between two looks."""
    changed = changed_fraction(before.thumbnail_hwC, after.thumbnail_hwC)
    if changed > CUT:
        return True
    if changed <= CUT_BETWEEN_OTHERS or not before.people or not after.people:
        return False
    return not any(
        iou(one.box, other.box) > MIN_IOU
        and hellinger_distance(one.colors, other.colors) < MAX_DIFFERENCE_AT_CHANGE
        and 1 / MAX_ZOOM < _zoom(one, other) < MAX_ZOOM
        for one in before.people
        for other in after.people
    )


def _zoom(one: Detection, other: Detection) -> float:
    """Return how much larger a person is shown the second time: the lesser change of two measures, since somebody who turns
    changes the width of the shoulders, and somebody who bows the height of the head above them."""
    ratios = [theirs / mine for mine, theirs in zip(_sizes(one), _sizes(other), strict=True)]
    return min(ratios, key=lambda ratio: abs(np.log(ratio)))


def _sizes(person: Detection) -> tuple[float, float]:
    """Return the width of the shoulders, and how high the nose is above them, in pixels; at least 1."""
    left, right = person.keypoints_K3[SHOULDERS, :2]
    above = (left[1] + right[1]) / 2 - person.keypoints_K3[NOSE, 1]
    return max(abs(float(left[0] - right[0])), 1.0), max(float(above), 1.0)


def thumbnail(frame_HWC: np.ndarray) -> np.ndarray:
    """Return the frame as 18×32 cells: the means of evenly spaced pixels of each, of all in small frames."""
    rows, columns = THUMBNAIL
    step = max(1, min(frame_HWC.shape[0] // rows, frame_HWC.shape[1] // columns) // CELL_SAMPLES)
    pixels_HWC = np.ascontiguousarray(frame_HWC[::step, ::step])  # a tenth of the time of looking at all of 1080p
    cells: np.ndarray = cv2.resize(pixels_HWC, (columns, rows), interpolation=cv2.INTER_AREA)
    return cells


def changed_fraction(one_hwC: np.ndarray, other_hwC: np.ndarray) -> float:
    """Return the fraction of cells, 0 to 1, whose color differs between two thumbnails; without the light, if that is most of it.

    Light, and exposure, multiply each color channel of the whole picture by about one factor: the median one. The walls of two
    views may differ by a factor as well, but then what stands before them differs too.
    """
    one_hwC, other_hwC = one_hwC.astype(np.float32), other_hwC.astype(np.float32)
    changed = _differing(one_hwC, other_hwC)
    if changed <= CUT_BETWEEN_OTHERS:
        return changed
    light_C = np.clip(np.median((other_hwC + 1) / (one_hwC + 1), axis=(0, 1)), 1 / MAX_LIGHT, MAX_LIGHT) ** 0.5
    beside_light = _differing(one_hwC * light_C, other_hwC / light_C)
    return min(changed, beside_light) if beside_light <= MAX_CHANGE_BESIDE_LIGHT else changed


def _differing(one_hwC: np.ndarray, other_hwC: np.ndarray) -> float:
    difference_hw = np.abs(one_hwC - other_hwC).max(axis=2) / 255
    return float((difference_hw > MIN_CHANGE).mean())


def torso_colors(frame_HWC: np.ndarray, person: Detection) -> np.ndarray:
    """Return the histogram [128] of the colors of the torso, or of where it should be; uniform if that is too small."""
    H, W = frame_HWC.shape[:2]
    left, _, right, bottom = person.box
    keypoints_K3 = person.keypoints_K3
    x0, x1 = sorted(keypoints_K3[SHOULDERS, 0].tolist())
    y0 = float(keypoints_K3[SHOULDERS, 1].mean())
    hips_23 = keypoints_K3[HIPS]
    y1 = float(hips_23[:, 1].mean()) if hips_23[:, 2].min() > MIN_HIP_SCORE else y0 + 1.3 * max(x1 - x0, 1)
    if x1 - x0 < (right - left) / 4:  # seen from the side
        x0, x1 = left + 0.3 * (right - left), right - 0.3 * (right - left)
    x0, x1, y0, y1 = max(x0, left, 0), min(x1, right, W), max(y0, 0), min(y1, bottom, H)
    torso_HWC = frame_HWC[int(y0) : max(int(y1), 0), int(x0) : max(int(x1), 0)]
    if min(torso_HWC.shape[:2]) < 4:
        return np.full(np.prod(HISTOGRAM), 1 / np.prod(HISTOGRAM), np.float32)
    hsv_HWC = cv2.cvtColor(np.ascontiguousarray(torso_HWC), cv2.COLOR_RGB2HSV)
    counts: np.ndarray = cv2.calcHist([hsv_HWC], [0, 1, 2], None, HISTOGRAM, [0, 180, 0, 256, 0, 256]).ravel()
    histogram: np.ndarray = (counts / counts.sum()).astype(np.float32)
    return histogram


def _chosen_frames(source: Source, span: Span, seek_points: Sequence[SeekPoint]) -> Iterator[KeyFrame]:
    """Yield the frames to look at, ascending: key frames, and others in each 12 s that have none."""
    next_cell = span.start_us // MAX_GAP_US
    for frame in key_frames(source, span, LOOK_EVERY_US, seek_points):
        cell = frame.time_us // MAX_GAP_US
        yield from _frames_at(source, range(next_cell, cell), seek_points)
        next_cell = cell + 1
        yield frame
    yield from _frames_at(source, range(next_cell, -(-span.end_us // MAX_GAP_US)), seek_points)


def _frames_at(source: Source, cells: range, seek_points: Sequence[SeekPoint]) -> Iterator[KeyFrame]:
    if not cells:
        return
    times_s = [Fraction(cell * MAX_GAP_US, MICROSECONDS) for cell in cells]
    for first, last, image, _ in frames_at_times(source, times_s, np.copy, seek_points):
        if image is not None:
            for time_s in times_s[first : last + 1]:
                yield KeyFrame(int(time_s * MICROSECONDS), image)


def _cut_between(source: Source, before: Look, after: Look, seek_points: Sequence[SeekPoint]) -> int | None:
    """Return when the first frame of the later look's shot is shown, to the microsecond; None if the camera did not cut."""
    if not is_cut(before, after):
        return None
    # The shot begins after first_us and not after end_us. Encoders like to put a key frame there: the look itself.
    first_us, end_us, times_us = before.time_us, after.time_us, [after.time_us - 1]
    while times_us:
        is_after = _belongs_to_later(source, times_us, before, after, seek_points)
        last_before = max((time_us for time_us, is_later in is_after.items() if not is_later), default=first_us)
        first_after = min(
            (time_us for time_us, is_later in is_after.items() if is_later and time_us > last_before), default=end_us
        )
        if not is_after:
            break
        first_us, end_us = last_before, first_after
        steps = min(CUT_STEPS, end_us - first_us)
        times_us = [first_us + (end_us - first_us) * step // steps for step in range(1, steps)]
    return end_us


def _belongs_to_later(
    source: Source, times_us: list[int], before: Look, after: Look, seek_points: Sequence[SeekPoint]
) -> dict[int, bool]:
    """Return whether the frames at ascending times look like the later look's shot; without those that cannot be decoded."""
    found: dict[int, bool] = {}
    times_s = [Fraction(time_us, MICROSECONDS) for time_us in times_us]
    for first, last, image, _ in frames_at_times(source, times_s, thumbnail, seek_points):
        if image is not None:
            to_before, to_after = (changed_fraction(image, look.thumbnail_hwC) for look in (before, after))
            found.update((time_us, to_after <= to_before) for time_us in times_us[first : last + 1])
    return found
