"""The network that docs/adding-a-network.md shows is a family: nothing but its registration makes every command know it."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow.dataset as pads
import pytest

import microaction
from microaction.evaluation.run import run_evaluation
from microaction.evaluation.settings import EvaluateSettings
from microaction.models import (
    FAMILIES,
    Calibration,
    CheckpointConfig,
    create_model,
    load_checkpoint,
    register_family,
    save_checkpoint,
)
from microaction.preprocessing import Preprocessing
from microaction.registry import promote, register
from microaction.taxonomy import ACTIONS
from microaction.training.run import run_training
from tests.docs.toy import TOY, ToyConfig, ToyNetwork
from tests.labeling.runs import label
from tests.training.runs import settings
from tests.videos import write_video


class Trained(NamedTuple):
    """A trained toy network, and the clips that it was trained on."""

    clips: Path
    checkpoint: str


@pytest.fixture(scope="module")
def registered() -> Iterator[None]:
    """The table of families with the toy in it."""
    register_family(TOY)
    yield
    del FAMILIES[TOY.name]


@pytest.fixture(scope="module")
def trained(registered: None, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    clips, runs = tmp_path_factory.mktemp("clips"), tmp_path_factory.mktemp("runs")
    for split, names in (("train", range(8)), ("val", range(8, 11))):
        for i in names:
            write_video(clips / f"{i}.mp4", num_frames=9 + i, size=(80, 96))
        (clips / f"{split}.txt").write_text("".join(f"{i}.mp4 {i % 4}\n" for i in names))
    result = run_training(settings(clips, runs, "toy", model={"family": "toy", "grid": 2}))
    return Trained(clips, result.checkpoint)


def test_an_untrained_toy_labels_a_video(registered: None, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", num_frames=90)
    config = CheckpointConfig(
        model=ToyConfig(),
        preprocessing=Preprocessing(short_side=40, crop=32),
        labels=ACTIONS,
        calibration=Calibration(temperature=1.0),
        recipe={},
        versions={},
        metrics={},
    )
    save_checkpoint(create_model("toy"), config, str(tmp_path / "model"))
    labeled = microaction.label_video(tmp_path / "a.mp4", str(tmp_path / "model"), people="off")
    assert (labeled.windows.num_rows, labeled.failures.num_rows) == (2, 0)


@pytest.mark.cluster
@pytest.mark.slow
def test_training_saves_a_checkpoint_of_the_family(trained: Trained) -> None:
    checkpoint = load_checkpoint(trained.checkpoint)
    assert isinstance(checkpoint.model, ToyNetwork)
    assert checkpoint.config.model == ToyConfig(grid=2)


@pytest.mark.cluster
@pytest.mark.slow
def test_evaluation_measures_it(trained: Trained, tmp_path: Path) -> None:
    evaluation = run_evaluation(
        EvaluateSettings(
            model=trained.checkpoint,
            clips_list=str(trained.clips / "val.txt"),
            videos=str(trained.clips),
            out=str(tmp_path),
        )
    )
    assert 0 <= evaluation.metrics["action_top1"] <= 1


@pytest.mark.cluster
@pytest.mark.slow
def test_what_is_in_production_labels(trained: Trained, tmp_path: Path) -> None:
    archive, registry = tmp_path / "archive", str(tmp_path / "models")
    archive.mkdir()
    write_video(archive / "a.mp4", num_frames=90)
    register(registry, trained.checkpoint, name="toy")
    promote(registry, "toy", reason="the first")
    summary = label(archive, tmp_path / "out", f"{registry}@production")
    assert (summary.publication.num_windows, summary.publication.failed_s) == (2, 0)
    windows = microaction.label_video(
        archive / "a.mp4", f"{registry}@production", precision="fp32", people="off"
    ).windows
    table = pads.dataset(tmp_path / "out" / "windows").to_table()
    assert windows["probabilities"].to_pylist() == table["probabilities"].to_pylist()
