"""Networks that see skeletons label the square around the people in each window."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import microaction
from microaction.labeling.execution import settings_digest
from microaction.labeling.settings import VideoLabelSettings
from microaction.labeling.skeletons import WindowSkeletons, decode_around_people
from microaction.models import Checkpoint, load_checkpoint
from microaction.models.classifier import Execution
from microaction.preprocessing import Preprocessing
from microaction.registry.versions import register
from microaction.schema import CLIPS_FILE, TRAINING_CLIPS, parquet_bytes
from microaction.skeletons import Skeleton, SkeletonError, read_skeletons, write_skeletons
from microaction.skeletons.archive import ArchiveSkeletons
from microaction.skeletons.framing import PeopleFraming
from microaction.synthetic.interview import interview_keypoints, make_interview
from microaction.video import FrameSampling, decode_frames
from microaction.video.windows import Span
from tests.models.networks import SIDE, people_checkpoint

FPS, DURATION_S = 30, 6
SIZE = (96, 116)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interview, and the table of its skeletons among those of other videos."""
    folder = tmp_path_factory.mktemp("people")
    how: dict[str, Any] = {"subject_seed": 3, "seed": 4, "duration_s": DURATION_S, "size": SIZE}
    make_interview(folder / "a.mp4", **how)
    keypoints = interview_keypoints(**how)
    other = Skeleton(keypoints.keypoints_MNK2[:, :9] + 1, keypoints.scores_MNK[:, :9], *SIZE)
    write_skeletons(iter([("0.mp4", other), ("a.mp4", keypoints), ("z.mp4", other)]), str(folder / "skeletons.parquet"))
    return folder


def label(
    archive: Path, model: str | Checkpoint, skeletons: str = "skeletons.parquet", **settings: Any
) -> microaction.LabeledVideo:
    table = str(archive / skeletons)
    return microaction.label_video(archive / "a.mp4", model, precision="fp32", skeletons=table, **settings)


@pytest.mark.parametrize("preset", ["pcan", "pcan-rgb"])
def test_chunked_equals_unchunked(preset: str, archive: Path, tmp_path: Path) -> None:
    folder = Path(people_checkpoint(tmp_path, preset))
    (folder / CLIPS_FILE).write_bytes(parquet_bytes(TRAINING_CLIPS.empty_table()))
    version = register(str(tmp_path / "registry"), str(folder))
    model = load_checkpoint(version.ref(str(tmp_path / "registry")))
    whole, parts = (label(archive, model, chunk_s=chunk_s) for chunk_s in (120.0, 2.0))
    assert len(whole.windows) == DURATION_S - 1, whole.failures.to_pylist()
    assert whole.failures.num_rows == parts.failures.num_rows == 0
    probabilities = whole.windows["probabilities"].combine_chunks()
    assert probabilities.equals(parts.windows["probabilities"].combine_chunks())
    assert len({tuple(row) for row in probabilities.to_pylist()}) == len(whole.windows), "windows differ"


def test_a_window_is_the_square_around_its_people(archive: Path) -> None:
    ((_, skeleton),) = [each for each in read_skeletons(str(archive / "skeletons.parquet")) if each[0] == "a.mp4"]
    preprocessing = Preprocessing(short_side=SIDE, crop=SIDE, fit="people", sampling="bins")
    table = ArchiveSkeletons(str(archive / "skeletons.parquet"), str(archive))
    of_windows = WindowSkeletons(table, 16, preprocessing)
    windows = [Span(0, 2_000_000), Span(1_000_000, 3_000_000)]
    row = {"video": str(archive / "a.mp4"), "fps": 30.0}
    sampling = FrameSampling.of(4, preprocessing)
    sampled = of_windows.read(row, windows)
    pixels, keypoints_WMTK3 = decode_around_people(
        str(archive / "a.mp4"),
        Span(0, 120_000_000),
        windows,
        skeletons=sampled,
        num_pose_sampled=16,
        sampling=sampling,
        side=SIDE,
        seek_points=(),
    )
    for number, start in enumerate((0, 30)):
        indices = start + sampling.indices(60)
        pose = start + FrameSampling.of(16, preprocessing).indices(60)
        framing = PeopleFraming(skeleton.at(pose), SIDE)
        expected = np.stack([framing.square(frame) for frame in decode_frames(archive / "a.mp4", indices.tolist())])
        shown = pixels.frames_NHWC[pixels.window_frames_WT[number]]
        np.testing.assert_array_equal(shown, expected)
        np.testing.assert_array_equal(keypoints_WMTK3[number], framing.keypoints())


def test_windows_without_people_are_accounted_for(archive: Path, tmp_path: Path) -> None:
    table = pq.read_table(archive / "skeletons.parquet")
    frame = table["frame"].to_numpy()
    pq.write_table(table.filter(frame < 3 * FPS), archive / "begins.parquet")
    model = people_checkpoint(tmp_path, "pcan")
    labeled = label(archive, model, "begins.parquet")
    assert labeled.windows["start_s"].to_pylist() == [0, 1, 2]
    (failure,) = labeled.failures.to_pylist()
    assert failure["reason"] == "nobody was found in 2 windows: the table has no keypoints of them"
    # The same name, another table: nothing of the one before is remembered.
    pq.write_table(table.filter(table["video"].to_numpy(zero_copy_only=False) != "a.mp4"), archive / "begins.parquet")
    labeled = label(archive, model, "begins.parquet")
    assert labeled.windows.num_rows == 0
    (failure,) = labeled.failures.to_pylist()
    assert failure["error"] == "no_skeleton"
    assert "has no skeleton of a.mp4 here" in failure["reason"]


def test_what_does_not_fit_is_refused(archive: Path, model: str, tmp_path: Path) -> None:
    pcan, pose = people_checkpoint(tmp_path, "pcan"), people_checkpoint(tmp_path, "pcan-pose")
    with pytest.raises(SkeletonError, match=r"pcan sees the skeletons of people: give a table"):
        microaction.label_video(archive / "a.mp4", pcan)
    with pytest.raises(SkeletonError, match="does not see skeletons: leave skeletons out"):
        label(archive, model)
    with pytest.raises(SkeletonError, match="no table of skeletons at"):
        label(archive, pcan, "absent.parquet")
    with pytest.raises(SkeletonError, match="is a pcan-pose, which sees no frames"):
        label(archive, pose)


def test_a_changed_table_labels_again(archive: Path) -> None:
    def digest(**settings: Any) -> str:
        chosen = VideoLabelSettings(**settings)
        return settings_digest(chosen, Execution("fp32", is_compiled=False), device="CPU", batch_windows=8)

    tables = [archive / "one.parquet", archive / "other.parquet"]
    for number, path in enumerate(tables):
        path.write_bytes(b"x" * (number + 1))
    digests = {digest(), *(digest(skeletons=str(path)) for path in tables)}
    assert len(digests) == 3
    tables[0].write_bytes(b"changed")
    assert digest(skeletons=str(tables[0])) not in digests
