"""Pictures as players show them: display matrices, sample aspect ratios, and the default one of several video tracks."""

import io
from fractions import Fraction
from itertools import product

import av
import numpy as np
import pytest

from microaction.video import Framing, Region, decode_chunk, decode_frames, probe
from microaction.video.windows import Span
from tests.video.gray import B_FRAMES, FPS, LOSSY, Track, patched_matrix, write

# x' = a·x + c·y, y' = b·x + d·y for [a, b, c, d], as in the header of an MP4's track: all that EXIF's orientations 1 to 8 do.
MATRICES = [(a, 0, 0, d) for a, d in product((1, -1), repeat=2)] + [(0, b, c, 0) for b, c in product((1, -1), repeat=2)]
ROTATIONS = {(1, 0, 0, 1): 0, (0, 1, -1, 0): 90, (-1, 0, 0, -1): 180, (0, -1, 1, 0): 270}
MIRRORED = (-1, 0, 0, 1)
WIDTH, HEIGHT = 96, 64
LEVELS = ((40, 90), (140, 200))  # the lumas of the quarters: every orientation differs
WINDOW = Span(0, 400_000)


@pytest.fixture(scope="module")
def quartered() -> bytes:
    """An MP4 of ten frames whose quarters have four gray levels."""
    planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
    planes[:HEIGHT] = np.array(LEVELS, np.uint8).repeat(HEIGHT // 2, 0).repeat(WIDTH // 2, 1)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=B_FRAMES)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
    return file.getvalue()


def quarters_after(matrix: tuple[int, int, int, int]) -> list[list[int]]:
    """Return the lumas of the quarters as a player shows them, by moving the center of each as the matrix says."""
    a, b, c, d = matrix
    shown = np.zeros((2, 2), int)
    for row, column in product((0, 1), repeat=2):
        x, y = 2 * column - 1, 2 * row - 1
        shown[(b * x + d * y + 1) // 2, (a * x + c * y + 1) // 2] = LEVELS[row][column]
    return [list(map(int, line)) for line in shown]


def quarters_of(frame_HWC: np.ndarray) -> list[list[int]]:
    """Return the nearest of the lumas for each quarter of a frame."""
    H, W = frame_HWC.shape[:2]
    lumas = [level for levels in LEVELS for level in levels]
    grays = [[float(frame_HWC[H * row // 4, W * column // 4].mean()) for column in (1, 3)] for row in (1, 3)]
    return [[min(lumas, key=lambda luma: abs((luma - 16) * 255 / 219 - gray)) for gray in line] for line in grays]


@pytest.mark.parametrize("matrix", MATRICES)
def test_display_matrices_are_applied(quartered: bytes, matrix: tuple[int, int, int, int]) -> None:
    data = patched_matrix(quartered, matrix)
    is_transposed = matrix[0] == 0
    info = probe(data)
    assert (info.width, info.height) == ((HEIGHT, WIDTH) if is_transposed else (WIDTH, HEIGHT))
    if matrix in ROTATIONS:
        assert info.rotation == ROTATIONS[matrix]
    elif matrix == MIRRORED:
        assert info.rotation == 0
    else:
        assert info.rotation % 180 == (90 if is_transposed else 0)
    frame = decode_frames(data, [4])[0]
    assert frame.shape == (info.height, info.width, 3)
    assert quarters_of(frame) == quarters_after(matrix)
    chunk = decode_chunk(data, WINDOW, [WINDOW], num_segments=2, framing=Framing(32, 32))
    assert quarters_of(chunk.frames_NHWC[-1]) == quarters_after(matrix)


def test_pixels_are_stretched_before_the_picture_is_turned(quartered: bytes) -> None:
    turned = patched_matrix(write("mp4", Track(numbers=range(10), pixel_aspect=Fraction(4, 3))), (0, 1, -1, 0))
    info = probe(turned)
    assert (info.width, info.height, info.rotation) == (96, 213, 90)
    assert decode_frames(turned, [0]).shape == (1, 213, 96, 3)


@pytest.mark.parametrize(
    ("format_name", "track", "size"),
    [
        ("mp4", Track(pixel_aspect=Fraction(4, 3)), (213, 96)),
        ("mp4", Track(pixel_aspect=Fraction(3, 4)), (160, 128)),
        ("matroska", Track(pixel_aspect=Fraction(64, 45)), (228, 96)),
        ("mpegts", Track(pixel_aspect=Fraction(16, 11)), (233, 96)),
        ("vob", Track("mpeg2video", LOSSY, size=(720, 576), pixel_aspect=Fraction(64, 45)), (1024, 576)),
        ("avi", Track("mpeg4", LOSSY | {"bf": "0"}, size=(176, 144), pixel_aspect=Fraction(12, 11)), (192, 144)),
    ],
)
def test_pixels_that_are_not_square_are_stretched(format_name: str, track: Track, size: tuple[int, int]) -> None:
    short = Track(track.codec, track.options, range(10), track.size, pixel_aspect=track.pixel_aspect)
    data = write(format_name, short)
    info = probe(data)
    assert (info.width, info.height) == size
    assert decode_frames(data, [3]).shape == (1, size[1], size[0], 3)
    assert decode_frames(data, [3], short_side=24).shape == (1, 24, round(24 * size[0] / size[1]), 3)


def test_a_region_is_of_the_displayed_picture() -> None:
    data = write("mp4", Track(numbers=range(10), pixel_aspect=Fraction(4, 3)))
    framing = Framing(40, 40, region=Region(150, 20, 60, 60))  # beyond the 160 columns that are stored
    chunk = decode_chunk(data, WINDOW, [WINDOW], num_segments=2, framing=framing)
    assert chunk.frames_NHWC.shape[1:] == (40, 40, 3)
