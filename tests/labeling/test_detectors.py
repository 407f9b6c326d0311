"""Labeling with a detector: what is committed, and what is made of it, whatever the chunks."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import microaction
from microaction.labeling.feature_labeler import FeatureLabeler
from microaction.models import ModelRef, load_checkpoint
from microaction.models.classifier import Execution
from microaction.models.golden import golden_difference, make_golden
from microaction.schema import PEOPLE_LIST, parquet_bytes
from tests.models.detectors import save_detector
from tests.videos import write_video

MIN_SCORE = 0.2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_detector(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    write_video(path, num_frames=180, fps=20)  # 9 s
    return path


def label_video(video: Path, model: str, **changes: object) -> microaction.LabeledVideo:
    chosen = {"precision": "fp32", "people": "off", "min_score": MIN_SCORE} | changes
    return microaction.label_video(video, model, **chosen)


def assert_same(a: microaction.LabeledVideo, b: microaction.LabeledVideo) -> None:
    for name in ("events", "activity", "people", "failures"):
        left, right = (getattr(each, name).drop_columns(["settings_digest"]) for each in (a, b))
        assert left.equals(right), name


@pytest.mark.parametrize("chunk_s", [1.1, 2.0, 8.9])
def test_chunked_equals_whole(video: Path, model: str, chunk_s: float) -> None:
    whole = label_video(video, model)
    assert len(whole.events) > 5, "the detector finds something"
    assert whole.people["covered_s"].to_pylist() == [9.0]
    assert_same(label_video(video, model, chunk_s=chunk_s), whole)


@pytest.mark.parametrize(
    "backbone",
    [
        {"preset": "manet", "width": 8, "depths": (1, 1, 1, 1), "num_frames": 4, "shift": False},
        pytest.param(
            {"preset": "video-swin-t", "width": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_family_is_a_backbone_whose_cuts_do_not_show(
    video: Path, tmp_path: Path, backbone: dict[str, object]
) -> None:
    model = save_detector(tmp_path / "model", backbone=backbone, mixing="attention", attention_window=5)
    assert_same(label_video(video, model, chunk_s=1.1), label_video(video, model))


def test_events_overlap_and_are_within_the_video(video: Path, model: str) -> None:
    events = label_video(video, model).events.to_pandas()
    assert (events["start_s"] < events["end_s"]).all()
    assert events["start_s"].min() >= 0
    assert events["end_s"].max() <= 9
    assert (events["probability"] >= MIN_SCORE).all()
    assert (events["num_windows"] == 0).all()
    overlapping = [
        (a, b)
        for a, left in events.iterrows()
        for b, right in events.iterrows()
        if left["action_id"] < right["action_id"]
        and left["start_s"] < right["end_s"]
        and right["start_s"] < left["end_s"]
    ]
    assert overlapping, "several actions at once"
    for _, of_action in events.groupby("action_id"):
        in_order = of_action.sort_values("start_s")
        assert (in_order["start_s"].to_numpy()[1:] > in_order["end_s"].to_numpy()[:-1]).all(), (
            "touching ones are joined"
        )


def test_activity_covers_all_steps(video: Path, model: str) -> None:
    (row,) = label_video(video, model).activity.to_pylist()
    assert (row["start_s"], row["end_s"], row["step_s"], row["num_steps"]) == (0, 9, 0.125, 72)
    activity = np.array(row["activity"], np.uint8).reshape(72, 52)
    assert activity.std(axis=0).max() > 1, "it changes over time"


def test_thresholds_join_and_drop(video: Path, model: str) -> None:
    few, many = (label_video(video, model, min_score=score).events for score in (0.5, 0.1))
    assert len(few) < len(many)
    assert label_video(video, model, min_event_s=100).events.num_rows == 0
    assert len(label_video(video, model, max_gap_s=100).events) < len(label_video(video, model).events)


def people_list(video: Path, path: Path) -> str:
    """Two people at once, with a cut after 4.3 s, at which the second goes."""
    rows = [
        {"video": str(video), "person": person, "start_s": start_s, "end_s": end_s, "left": left, "top": 0}
        | {"width": 40, "height": 60}
        for person, start_s, end_s, left in ((1, 0.0, 4.3, 0), (1, 4.3, 9.0, 20), (2, 0.0, 4.3, 40))
    ]
    table = pa.Table.from_pylist([{name: row.get(name) for name in PEOPLE_LIST.names} for row in rows], PEOPLE_LIST)
    path.write_bytes(parquet_bytes(table))
    return str(path)


def test_people_are_labeled_apart_and_cuts_are_borders(video: Path, model: str, tmp_path: Path) -> None:
    people = people_list(video, tmp_path / "people.parquet")
    whole = label_video(video, model, people=people)
    assert_same(label_video(video, model, people=people, chunk_s=1.0), whole)
    activity = whole.activity.to_pandas()
    spans = activity[["person", "start_s", "end_s", "num_steps"]].to_numpy().tolist()
    assert spans == [[1, 0, 4.3, 35], [1, 4.3, 9, 38], [2, 0, 4.3, 35]], "each span begins a grid of its own"
    assert set(whole.events["person"].to_pylist()) == {1, 2}
    assert whole.events.filter(pa.compute.equal(whole.events["person"], 2)).to_pandas()["end_s"].max() <= 4.3


def test_what_is_damaged_is_a_failure_wherever_chunks_end(video: Path, model: str, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.mp4"
    data = bytearray(video.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    damaged.write_bytes(data)
    whole = label_video(damaged, model)
    assert whole.failures.num_rows >= 1
    covered = whole.people["covered_s"].to_pylist()[0]
    assert 0 < covered < 9
    for chunk_s in (2.0, 3.7):
        cut = label_video(damaged, model, chunk_s=chunk_s)
        for name in ("events", "activity"):
            left, right = (getattr(each, name).drop_columns(["settings_digest"]) for each in (cut, whole))
            assert left.equals(right), (name, chunk_s)


@pytest.mark.parametrize("lost", [range(10), range(15, 22), range(30, 40)])
def test_lost_frames_at_a_chunks_ends_lose_their_steps_alone(model: str, lost: range) -> None:
    """A chunk of steps 20 to 39 of 60, of which some could not be decoded, among them its first or last ones."""
    labeler = FeatureLabeler(ModelRef(model), Execution("fp32", is_compiled=False), 16, 1)
    needed = labeler.config.needed_steps(range(20, 40), 60)
    decoded = [step for step in needed if step not in lost]
    frames = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3)).astype(np.uint8)
    step_us, seen = 125_000, (0, 60 * 125_000)
    row = {
        "frames": frames,
        "window_frames": np.array(decoded)[:, None],
        "window_start_us": np.array(decoded) * step_us,
        "window_person": np.zeros(len(decoded), np.int32),
        "window_seen_us": np.array([seen] * len(decoded)).ravel(),
        "window_is_owned": np.array([20 <= step < 40 for step in decoded]),
    }
    ((track, features_TC),) = labeler._tracks(row)
    owned = [step for step in range(20, 40) if step not in lost]
    assert (track.first_step, track.num_steps) == (owned[0], len(owned))
    blank = frames.copy()
    blank[list(lost)] = labeler.preprocessing.padding_color
    whole = labeler.extractor(torch.from_numpy(blank), torch.arange(60), 0, range(60), 60).numpy()
    assert np.array_equal(features_TC, whole[owned[0] : owned[-1] + 1])


def test_golden_output_and_kinds_of_models(model: str, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(model)
    assert golden_difference(checkpoint, make_golden(checkpoint)) == 0
    other = load_checkpoint(save_detector(tmp_path / "other", head_seed=1))
    assert golden_difference(other, make_golden(checkpoint)) > 0.01
