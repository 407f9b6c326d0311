"""The run's page, plots and logs, from a run's state alone."""

import base64
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event

from microaction.evaluation.metrics import measure
from microaction.evaluation.report import predictions_table
from microaction.taxonomy import ACTIONS
from microaction.training.log import write_log
from microaction.training.report import confused_pairs, num_shared_subjects, write_report
from microaction.training.split import read_splits
from microaction.training.state import Epoch, RunState
from tests.pages.reading import assert_harmless
from tests.training.runs import settings

NUM_EPOCHS, NUM_STEPS = 3, 10


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three epochs, the second of which was the best; one subject is on both sides, one clip unreadable."""
    tmp_path = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    for split, subjects in (("train", range(10)), ("val", range(9, 14))):
        names = [f"{subject:04d}_00_{label:04d}.mp4 {label}" for subject in subjects for label in range(52)]
        (tmp_path / f"{split}.txt").write_text("\n".join(names))
    of = settings(tmp_path, tmp_path, "run-1")
    _, held_out = read_splits(of)
    target_N = np.array([clip.label for clip in held_out])
    probabilities_NK = rng.dirichlet(np.full(52, 0.1), size=len(target_N)).astype(np.float32)
    probabilities_NK[target_N == 9] = np.eye(52, dtype=np.float32)[10]  # nodding is always confused with shaking head
    metrics = {"loss": 3.0, **measure(probabilities_NK, target_N), "temperature": 1.5}
    timing = {"clips_per_s": 40.0, "data_wait_fraction": 0.03, "train_s": 5.0, "validation_s": 1.0}
    state = RunState(
        step=NUM_EPOCHS * NUM_STEPS,
        losses=torch.linspace(5, 2, NUM_EPOCHS * NUM_STEPS),
        learner={},
        epochs=[
            Epoch(number, 0.01 / number, 1, metrics, timing, 100.0 + number) for number in range(1, NUM_EPOCHS + 1)
        ],
        best_epoch=2,
        unreadable={"/videos/<b>bad\u202e</b>.mp4": "no frames"},
    )
    folder = tmp_path / "run-1"
    write_log(str(folder), state.epochs, state.losses, state.unreadable)
    names = [clip.name for clip in held_out]
    assert write_report(of, str(folder), state, predictions_table(names, probabilities_NK, target_N)).endswith(".html")
    return folder


def test_the_page_is_self_contained_and_complete(run: Path) -> None:
    page = assert_harmless((run / "report.html").read_bytes())
    images = page.all("img")
    assert len(images) == 4
    words = page.words
    assert "Best of 3 epochs (30 steps) is epoch 2" in words
    assert "MANet 78.95 61.33 88.83 72.87 49.22 65.59" in words
    assert "training 520 10 52 10 10" in words
    assert "validation 260 5 52 5 5" in words
    assert "1 subject is on both sides" in words
    assert f"{ACTIONS[9]} {ACTIONS[10]} 5 100%" in words
    assert "recipe.batch_size 4" in words
    assert "/videos/<b>bad\ufffd</b>.mp4" in words, "foreign text is not markup"
    alts = [image["alt"] or "" for image in images]
    assert "Lines over 3 epochs: the mean loss goes from 3.00 to 3.00" in alts[0]
    assert any(f"Most often confused: {ACTIONS[10]} for {ACTIONS[9]}, 5 times" in alt for alt in alts)


def test_the_page_shows_the_plots_of_the_folder(run: Path) -> None:
    page = assert_harmless((run / "report.html").read_bytes())
    shown = [base64.b64decode((image["src"] or "").partition(",")[2]) for image in page.all("img")]
    files = [(run / f"{name}.svg").read_bytes() for name in ("curves", "calibration", "confusion", "per_class")]
    assert shown == files


def test_the_logs_hold_every_epoch_and_step(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["learning_rate"]) for line in lines] == [(1, 0.01), (2, 0.005), (3, 0.01 / 3)]
    assert lines[0]["timing"]["clips_per_s"] == 40
    assert json.loads((run / "unreadable.json").read_text()) == {"/videos/<b>bad\u202e</b>.mp4": "no frames"}
    points = tensorboard_points(run / "tensorboard/events.out.tfevents.training")
    losses = [(step, value) for tag, step, value in points if tag == "train/loss"]
    assert [step for step, _ in losses] == list(range(1, 31))
    np.testing.assert_allclose([value for _, value in losses], np.linspace(5, 2, 30), rtol=1e-6)
    f1 = {step: value for tag, step, value in points if tag == "validation/f1_mean"}
    assert f1 == pytest.approx(dict.fromkeys((10, 20, 30), lines[0]["f1_mean"]))
    assert {"train/learning_rate", "timing/data_wait_fraction", "validation/temperature"} <= {
        tag for tag, _, _ in points
    }


def tensorboard_points(path: Path) -> list[tuple[str, int, float]]:
    """Return (tag, step, value) of every scalar of an event file: records of a length, its checksum, an Event, its checksum."""
    data, offset, points = path.read_bytes(), 0, []
    while offset < len(data):
        (length,) = struct.unpack_from("<Q", data, offset)
        event = Event.FromString(data[offset + 12 : offset + 12 + length])
        points += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        offset += 12 + length + 4
    return points


def test_confused_pairs_are_the_most_frequent_mistakes() -> None:
    counts_KK = np.array([[5, 3, 0], [1, 9, 0], [0, 0, 4]])
    pairs = [(pair.actual, pair.predicted, pair.num_clips, pair.fraction) for pair in confused_pairs(counts_KK, "abc")]
    assert pairs == [("a", "b", 3, 0.375), ("b", "a", 1, 0.1)]


def test_names_without_subjects_leave_the_overlap_unknown(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_text(f"{split}.mp4 0\n")
    assert num_shared_subjects(*read_splits(settings(tmp_path, tmp_path, "x"))) is None
