"""Whole retrainings on a local Ray: clips of one colour each, which a small network tells apart within seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from jobs.retrain import said
from microaction import registry
from microaction.config import RetrainSettings, TrainSettings
from microaction.lease import LeaseHeldError, held
from microaction.registry import RegistryError
from microaction.retraining import run
from microaction.retraining.run import Outcome, run_retraining
from microaction.training.progress import TrainingProgress
from microaction.training.run import TrainingResult, run_training

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]
COLOURS = [(220, 30, 30), (30, 220, 30), (30, 30, 220), (220, 220, 30)]
RECIPE = {"epochs": 6, "batch_size": 8, "learning_rate": 0.01}
TINY: dict[str, Any] = {
    "model": {"width": 8, "depths": (1, 1, 1, 1), "dropout": 0.0},
    "preprocessing": {"short_side": 40, "crop": 32},
}


def write_clips(folder: Path, subjects: str, *, takes: int = 2) -> list[str]:
    """A clip of each colour for each subject and take; returns lines of a list that are right."""
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    lines = []
    for subject in subjects:
        for take in range(takes):
            for label, colour in enumerate(COLOURS):
                name = f"{subject}_{take}{label}.mp4"
                _write_colour(folder / "videos" / name, np.array(colour) + 3 * take + ord(subject) % 7)
                lines.append(f"{name} {label}\n")
    return lines


def _write_colour(path: Path, colour: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(10):
            picture = np.broadcast_to(colour.astype(np.uint8), (48, 64, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))


def mislabelled(lines: list[str]) -> list[str]:
    return [f"{name} {(int(label) + 1) % len(COLOURS)}\n" for name, label in (line.split() for line in lines)]


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
        "val_share": 0.3,
        "storage_path": f"{root}/runs",
        "name": "first",
        "recipe": RECIPE,
    }
    return root / "dataset", run_training(TrainSettings.model_validate(TINY | settings)).checkpoint


@pytest.fixture
def retrain(first: tuple[Path, str], tmp_path: Path) -> Callable[..., Outcome]:
    """Retrains with what is in `labels/` beside a registry that holds the first checkpoint."""
    dataset, checkpoint = first
    registered = registry.register(str(tmp_path / "models"), checkpoint, name="first")
    registry.promote(str(tmp_path / "models"), registered.name, reason="the first")
    (tmp_path / "labels").mkdir()

    def run(**changes: object) -> Outcome:
        fields = {
            "registry": str(tmp_path / "models"),
            "dataset": str(dataset),
            "labels": str(tmp_path / "labels"),
            "work": str(tmp_path / "work"),
            "min_new": 8,
            "val_share": 0.2,
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
    retrain: Callable[..., Outcome], first: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, labels = str(tmp_path / "models"), tmp_path / "labels"
    nothing = retrain()
    assert (nothing.ended, nothing.news.num_clips, nothing.version) == ("too little new", 0, "first")

    # Somebody mixes the labels of all the people up whom production has learned from.
    learned = set(registry.read_version(models, "first").data["train"].subjects)
    lines = [line for line in (first[0] / "list.txt").read_text().splitlines() if line[0] in learned]
    (labels / "1.txt").write_text("".join(mislabelled(lines)))
    refused = retrain()
    assert (refused.ended, refused.version) == ("refused", "first")
    assert (refused.news.num_new, refused.news.num_corrected) == (0, len(lines))
    assert "F1 mean" in refused.failed_gates
    page = Path(refused.page).read_text()
    assert "<h1>Refused</h1>" in page
    assert "Most changed confusions" in page
    assert registry.production(models).version == "first"
    with monkeypatch.context() as patch:
        patch.setattr(run, "run_training", lambda *_, **__: pytest.fail("it was decided before"))
        assert retrain() == refused

    # The labels are put right, and there are new people.
    new = write_clips(labels, "ghijkl")
    (labels / "2.txt").write_text("\n".join([*lines, ""]) + "".join(new))
    promoted = retrain()
    assert promoted.ended == "promoted", promoted.failed_gates
    assert promoted.news.num_corrected == 0
    assert promoted.news.num_new == len(new)
    assert registry.production(models).version == promoted.version != "first"
    version = registry.read_version(models, promoted.version)
    assert version.notes["made from"] == "first"
    assert set(version.data["held-out"].subjects) >= set(
        registry.read_version(models, "first").data["validation"].subjects
    )
    assert "<h1>Promoted</h1>" in Path(promoted.page).read_text()
    assert (again := retrain()).ended == "too little new"
    assert "stays in production: 0 new and 0 corrected clips" in said(again, RetrainSettings.model_construct(min_new=8))
    assert registry.rollback(models, reason="on second thoughts").version == "first"
    after = retrain()
    assert (after.ended, after.news.num_clips) == ("too little new", 0), (
        "what was taken back does not come back by itself"
    )
    assert registry.production(models).version == "first"


def test_a_retraining_that_dies_anywhere_goes_on_and_never_overwrites_what_changed_meanwhile(
    retrain: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labels/1.txt").write_text("".join(write_clips(tmp_path / "labels", "ghijkl")))
    models = str(tmp_path / "models")
    trained: list[TrainingProgress] = []

    def counting(settings: TrainSettings, **_: object) -> TrainingResult:
        return run_training(settings, on_progress=trained.append)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_training", counting)
    for owner, name in ((run, "run_evaluation"), (run, "write_page"), (registry, "register"), (registry, "promote")):
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
        with pytest.raises(RegistryError, match=r"has changed meanwhile: first is, since .* \(by hand\)"):
            retrain()
    assert retrain().ended == "promoted"
    told = [(progress.epoch, progress.step, progress.metrics is None) for progress in trained]
    assert len(set(told)) == len(told), "nothing is trained twice"
    assert [change.version for change in registry.history(models)][:2] == ["first", "first"]
    assert len(registry.history(models)) == 3
    assert len(registry.list_versions(models)) == 2


def test_two_retrainings_at_once_are_one(retrain: Callable[..., Outcome], tmp_path: Path) -> None:
    with held(str(tmp_path / "models/_retrain")), pytest.raises(LeaseHeldError, match=r"is at work in .*/models; wait"):
        retrain()
    assert retrain().ended == "too little new"
