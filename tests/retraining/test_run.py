"""Whole retrainings on a local Ray: clips of one color each, which a small network tells apart within seconds."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch

from microaction import registry
from microaction.cli.retrain import describe
from microaction.distributed.waiting import NodesUnavailableError
from microaction.evaluation.report import predictions_table
from microaction.evaluation.run import Evaluation, run_evaluation
from microaction.evaluation.settings import EvaluateSettings
from microaction.registry import RegistryError
from microaction.retraining import comparison, run
from microaction.retraining.comparison import parity_for_labeling, read_by_both
from microaction.retraining.run import RetrainingResult, run_retraining
from microaction.retraining.settings import RetrainSettings
from microaction.schema import CLIPS_FILE, TRAINING_CLIPS, parquet_bytes
from microaction.storage.lease import LeaseHeldError, hold_lease
from microaction.training.progress import TrainingProgress
from microaction.training.run import TrainingResult, run_training
from microaction.training.settings import TrainSettings

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]
COLORS = [(220, 30, 30), (30, 220, 30), (30, 30, 220), (220, 220, 30)]
RECIPE = {"epochs": 6, "batch_size": 8, "learning_rate": 0.01}
TINY: dict[str, Any] = {
    "model": {"width": 8, "depths": (1, 1, 1, 1), "dropout": 0.0},
    "preprocessing": {"short_side": 40, "crop": 32},
}


def write_clips(folder: Path, subjects: str, *, takes: int = 2) -> list[str]:
    """A clip of each color for each subject and take; returns lines of a list that are right."""
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    lines = []
    for subject in subjects:
        for take in range(takes):
            for label, color in enumerate(COLORS):
                name = f"{subject}_{take}{label}.mp4"
                _write_color(folder / "videos" / name, np.array(color) + 3 * take + ord(subject) % 7)
                lines.append(f"{name} {label}\n")
    return lines


def _write_color(path: Path, color: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(10):
            picture = np.broadcast_to(color.astype(np.uint8), (48, 64, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))


def mislabeled(lines: list[str]) -> list[str]:
    return [f"{name} {(int(label) + 1) % len(COLORS)}\n" for name, label in (line.split() for line in lines)]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> tuple[Path, str]:
    """A dataset of six people, and a checkpoint that was trained on them."""
    root = tmp_path_factory.mktemp("retraining")
    (root / "dataset").mkdir()
    (root / "dataset/list.txt").write_text("".join(write_clips(root / "dataset", "abcdef")))
    settings = {
        "train_list": f"{root}/dataset/list.txt",
        "train_videos": f"{root}/dataset/videos",
        "split_by": "subject",
        "val_fraction": 0.3,
        "storage_path": f"{root}/runs",
        "name": "first",
        "recipe": RECIPE,
    }
    return root / "dataset", run_training(TrainSettings.model_validate(TINY | settings)).checkpoint


@pytest.fixture
def retrain(first: tuple[Path, str], tmp_path: Path) -> Callable[..., RetrainingResult]:
    """Retrains with what is in `labels/` beside a registry that holds the first checkpoint."""
    dataset, checkpoint = first
    registered = registry.register(str(tmp_path / "models"), checkpoint, name="first")
    registry.promote(str(tmp_path / "models"), registered.name, reason="the first")
    (tmp_path / "labels").mkdir()

    def run(**changes: object) -> RetrainingResult:
        fields = {
            "registry": str(tmp_path / "models"),
            "dataset": str(dataset),
            "labels": str(tmp_path / "labels"),
            "work": str(tmp_path / "work"),
            "min_new": 8,
            "val_fraction": 0.2,
            "recipe": RECIPE,
            "gates": {
                "f1_mean_margin": -0.1,
                "class_f1_margin": 0.3,
                "calibration_margin": 0.3,
                "min_support": 2,
                "min_held_out": 8,
            },
        }
        return run_retraining(RetrainSettings.model_validate(fields | changes))

    return run


def test_a_worse_candidate_is_refused_and_a_good_one_promoted(
    retrain: Callable[..., RetrainingResult], first: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, labels = str(tmp_path / "models"), tmp_path / "labels"
    nothing = retrain()
    assert (nothing.ended, nothing.delta.num_clips, nothing.version) == ("too few new clips", 0, "first")

    # Somebody mixes the labels of all the people up whom production has learned from.
    learned = set(registry.read_version(models, "first").data["train"].subjects)
    lines = [line for line in (first[0] / "list.txt").read_text().splitlines() if line[0] in learned]
    (labels / "1.txt").write_text("".join(mislabeled(lines)))
    refused = retrain()
    assert (refused.ended, refused.version) == ("rejected", "first")
    assert (refused.delta.num_new, refused.delta.num_corrected) == (0, len(lines))
    assert "F1 mean" in refused.failed_gates
    page = Path(refused.page).read_text()
    assert "<h1>Rejected</h1>" in page
    assert "Most changed confusions" in page
    assert registry.production(models).version == "first"
    with monkeypatch.context() as patch:
        patch.setattr(run, "run_training", lambda *_, **__: pytest.fail("it was decided before"))
        assert retrain() == refused

    # The labels are put right, and there are new people.
    new = write_clips(labels, "ghijkl")
    (labels / "2.txt").write_text("\n".join([*lines, ""]) + "".join(new))

    def loses_a_clip(settings: EvaluateSettings, **how: Any) -> Evaluation:
        evaluation = run_evaluation(settings, **how)
        predictions = Path(settings.out, "predictions.parquet")
        if settings.out.endswith("/candidate"):
            predictions.write_bytes(parquet_bytes(pq.read_table(predictions).slice(1)))
        return evaluation

    with monkeypatch.context() as patch:
        patch.setattr(comparison, "run_evaluation", loses_a_clip)
        promoted = retrain()
    assert "1 more could not be read." in Path(promoted.page).read_text()
    assert promoted.ended == "promoted", promoted.failed_gates
    assert promoted.delta.num_corrected == 0
    assert promoted.delta.num_new == len(new)
    assert registry.production(models).version == promoted.version != "first"
    version = registry.read_version(models, promoted.version)
    assert version.notes["made from"] == "first"
    assert set(version.data["held-out"].subjects) >= set(
        registry.read_version(models, "first").data["validation"].subjects
    )
    assert "<h1>Promoted</h1>" in Path(promoted.page).read_text()
    assert (again := retrain()).ended == "too few new clips"
    assert "stays in production: 0 new and 0 corrected clips" in describe(again, 8)
    assert registry.rollback(models, reason="on second thoughts").version == "first"
    after = retrain()
    assert (after.ended, after.delta.num_clips) == ("too few new clips", 0), (
        "what was taken back does not come back by itself"
    )
    assert registry.production(models).version == "first"


def test_what_was_taken_back_by_several_rollbacks_is_nothing_new(
    retrain: Callable[..., RetrainingResult], first: tuple[Path, str], tmp_path: Path
) -> None:
    models = str(tmp_path / "models")
    lines = [line.split() for line in write_clips(tmp_path / "labels", "ghij")]
    (tmp_path / "labels/1.txt").write_text("".join(f"{name} {label}\n" for name, label in lines))
    assert len(lines) == 4 * 8
    # Two versions, as if retraining had made them: one learned half of what is new, the other half only the later one.
    for version, learned in (("second", lines[:16]), ("third", lines[16:])):
        checkpoint = shutil.copytree(first[1], tmp_path / version)
        weights = safetensors.torch.load_file(checkpoint / "model.safetensors")
        weights["action.bias"] += len(version) / 10
        safetensors.torch.save_file(weights, checkpoint / "model.safetensors")
        rows = [
            {"name": name, "label": int(label), "subject": name[0], "split": "train", "is_readable": True}
            for name, label in learned
        ]
        table = pa.concat_tables(
            [pq.read_table(checkpoint / CLIPS_FILE), pa.Table.from_pylist(rows, schema=TRAINING_CLIPS)]
        )
        (checkpoint / CLIPS_FILE).write_bytes(parquet_bytes(table))
        registry.register(models, str(checkpoint), name=version)
        registry.promote(models, version, reason="newer")
    for version in ("second", "first"):
        assert registry.rollback(models, reason="worse").version == version
        outcome = retrain()
        assert (outcome.ended, outcome.version, outcome.delta.num_clips) == ("too few new clips", version, 0)


def test_models_are_compared_by_the_clips_that_both_could_read() -> None:
    def predictions(*clips: tuple[str, int, float]) -> pa.Table:
        names, targets, scores = zip(*clips, strict=True)
        file = predictions_table(names, np.array([[score, 1 - score] for score in scores]), np.array(targets))
        return pq.read_table(pa.BufferReader(file))

    ours = predictions(("b", 1, 0.1), ("a", 0, 0.2), ("c", 1, 0.3))
    theirs = predictions(("d", 1, 0.9), ("a", 0, 0.8), ("c", 1, 0.7))
    found = [table.to_pydict() for table in read_by_both(ours, theirs)]
    assert [table["clip"] for table in found] == [["a", "c"], ["a", "c"]]
    assert [table["target"] for table in found] == [[0, 1], [0, 1]]
    scores = [[first for first, _ in table["probabilities"]] for table in found]
    assert scores == [pytest.approx([0.2, 0.3]), pytest.approx([0.8, 0.7])]


def on_resources(**changes: object) -> RetrainSettings:
    return RetrainSettings.model_validate({"registry": "r", "dataset": "d", "work": "w"} | changes)


def test_a_gpu_that_does_not_come_is_not_waited_for_without_end(model: str) -> None:
    assert 0 <= parity_for_labeling(model, on_resources()) < 0.05, "there is none, and none is to come"
    with pytest.raises(
        NodesUnavailableError,
        match=r"comparing the golden output of .* on a GPU did not finish within 0\.5 s \(node_wait_s\)",
    ):
        parity_for_labeling(model, on_resources(gpus=1, node_wait_s=0.5))


ON_A_GPU = """
import sys
import ray
from microaction.retraining.settings import RetrainSettings
from microaction.retraining import comparison

ray.init("local", num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20)
settings = RetrainSettings.model_construct(gpus=None, cpus=None, node_wait_s=300.0)
print(comparison.parity_for_labeling(sys.argv[1], settings))
comparison._parity_on_gpu = lambda candidate: 1.0 + len(ray.get_gpu_ids())
print(comparison.parity_for_labeling(sys.argv[1], settings))
"""


def test_the_golden_output_is_compared_on_a_gpu_where_there_is_one(model: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", ON_A_GPU, model], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    difference, assigned = map(float, done.stdout.split())
    assert 0 <= difference < 0.05
    assert assigned == 1.0 + 1


def test_a_killed_retraining_resumes_and_never_overwrites_what_changed_meanwhile(
    retrain: Callable[..., RetrainingResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labels/1.txt").write_text("".join(write_clips(tmp_path / "labels", "ghijkl")))
    models = str(tmp_path / "models")
    trained: list[TrainingProgress] = []

    def counting(settings: TrainSettings, **_: object) -> TrainingResult:
        return run_training(settings, on_progress=trained.append)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_training", counting)
    for owner, name in (
        (comparison, "run_evaluation"),
        (run, "write_page"),
        (registry, "register"),
        (registry, "promote"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, die)
            with pytest.raises(KeyboardInterrupt):
                retrain()
    assert registry.production(models).version == "first"

    register = registry.register

    def somebody_promotes(*arguments: Any, **how: Any) -> Any:
        registry.promote(models, "first", reason="by hand")
        return register(*arguments, **how)

    with monkeypatch.context() as patch:
        patch.setattr(registry, "register", somebody_promotes)
        with pytest.raises(RegistryError, match=r"has changed meanwhile: first is in production since .* \(by hand\)"):
            retrain()
    assert retrain().ended == "promoted"
    steps = [(progress.epoch, progress.step, progress.metrics is None) for progress in trained]
    assert len(set(steps)) == len(steps), "nothing is trained twice"
    assert [change.version for change in registry.history(models)][:2] == ["first", "first"]
    assert len(registry.history(models)) == 3
    assert len(registry.list_versions(models)) == 2


def test_two_retrainings_at_once_are_one(retrain: Callable[..., RetrainingResult], tmp_path: Path) -> None:
    with (
        hold_lease(str(tmp_path / "models/_retrain")),
        pytest.raises(LeaseHeldError, match=r"is running in .*/models: wait"),
    ):
        retrain()
    assert retrain().ended == "too few new clips"
