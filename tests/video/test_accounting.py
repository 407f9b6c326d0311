"""Of every situation that archives hold, every second that a player shows is labeled, or has failed with a reason."""

import shutil
import subprocess
from pathlib import Path

import pytest

import microaction
from microaction.models import Checkpoint, load_checkpoint
from microaction.video import probe
from microaction.video.windows import Span, merge_spans, microseconds
from tests.archives import write_model
from tests.video import matrix
from tests.video.gray import FPS
from tests.video.screens import check_screens, screens_of
from tests.video.situations import SITUATIONS, Situation

# Clocks of 1 ms and the encoders of sound that start a little before 0 s shift times by less than half a frame.
TOLERANCE_S = 0.5 / FPS
# Whole chunks of AVI files have no presentation timestamps: their B-frames may move all times by a frame.
SHIFTED = ("avi-mpeg4-b-frames", "avi-mpeg4-packed", "avi-h264-copied-b-frames", "avi-h264-copied")
SLOW = {"dv", "vob-wide-pixels"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(write_model(tmp_path_factory.mktemp("model")))


# The scope makes pytest run all tests of one situation before those of the next.
@pytest.fixture(
    scope="module",
    params=[pytest.param(name, id=name, marks=pytest.mark.slow if name in SLOW else ()) for name in SITUATIONS],
)
def video(request: pytest.FixtureRequest, matrix_videos: matrix.VideoCache) -> tuple[Path, Situation]:
    situation = SITUATIONS[request.param]
    if situation.needs_ffmpeg and not shutil.which("ffmpeg"):
        pytest.skip("the command ffmpeg is missing, and PyAV is built without this codec")
    return matrix_videos.get(f"{request.param}{situation.suffix}", situation.write), situation


def test_the_catalog_has_what_a_player_shows(video: tuple[Path, Situation]) -> None:
    path, truth = video
    info = probe(path)
    assert info.num_frames == truth.num_frames or truth.num_frames is None
    assert truth.min_duration_s - TOLERANCE_S <= info.duration_s <= truth.duration_s + TOLERANCE_S
    tolerance_s = 1.1 / FPS if path.stem in SHIFTED else TOLERANCE_S
    assert info.video_start_s == pytest.approx(float(truth.start_s), abs=tolerance_s)
    assert (info.width, info.height) == truth.size
    assert info.num_video_tracks == truth.num_video_tracks


def test_every_frame_is_the_one_on_the_screen(video: tuple[Path, Situation]) -> None:
    path, truth = video
    screens = screens_of(path)
    check_screens(screens, truth.slots)
    assert bool(screens.missing) == bool(screens.damage), "what is missing has a reason, and nothing else has"
    if truth.is_healthy:
        assert not screens.missing
    else:
        assert screens.missing


@pytest.mark.parametrize("name", ["avi-mpeg4", "avi-mpeg4-b-frames", "avi-h264-copied-b-frames"])
def test_chunks_of_avi_begin_at_any_key_frame(
    name: str, matrix_videos: matrix.VideoCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microaction.video.probing.SEEK_POINT_INTERVAL_S", 0)
    situation = SITUATIONS[name]
    path = matrix_videos.get(f"{name}.avi", situation.write)
    screens = screens_of(path, chunk_us=300_000)
    assert len(screens.info.seek_points) > 4
    assert not screens.missing
    check_screens(screens, situation.slots)


@pytest.mark.slow  # a sandbox for each
def test_every_second_is_labeled_or_has_failed(video: tuple[Path, Situation], model: Checkpoint) -> None:
    path, truth = video
    labeled = microaction.label_video(path, model, chunk_s=2.0, people="off")
    assert None not in labeled.failures["end_s"].to_pylist(), labeled.failures["reason"].to_pylist()
    windows, failures = (
        [Span(microseconds(row["start_s"]), microseconds(row["end_s"])) for row in table.to_pylist()]
        for table in (labeled.windows, labeled.failures)
    )
    assert bool(failures) != truth.is_healthy, labeled.failures["reason"].to_pylist()
    (whole,) = merge_spans([*windows, *failures])
    tolerance_s = 1.1 / FPS if path.stem in SHIFTED else TOLERANCE_S
    assert whole.start_s == pytest.approx(float(truth.start_s), abs=tolerance_s)
    duration_s = whole.end_s - whole.start_s
    assert truth.min_duration_s - TOLERANCE_S <= duration_s <= truth.duration_s + TOLERANCE_S


@pytest.mark.slow
def test_ffprobe_counts_the_packets_of_the_truth(video: tuple[Path, Situation]) -> None:
    """This checks the tests' truth, not the package."""
    path, truth = video
    if not shutil.which("ffprobe"):
        pytest.skip("the command ffprobe is missing")
    if truth.num_packets is None:
        pytest.skip("ffprobe does not read the file, or it is damaged")
    track = f"v:{truth.num_video_tracks - 1}"
    command = ["ffprobe", "-v", "error", "-select_streams", track, "-count_packets", "-of", "csv=p=0"]
    command += ["-show_entries", "stream=nb_read_packets", str(path)]
    counted = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert {int(line.split(",")[0]) for line in counted.splitlines() if line.strip(",")} == {truth.num_packets}
