"""Settings of a run: what cannot work is refused before anything starts, and before anything is written."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from microaction.clips.manifest import ManifestError
from microaction.models import CheckpointError, ManetConfig
from microaction.taxonomy import ACTIONS
from microaction.training.errors import TrainingError
from microaction.training.run import load_label_embeddings, run_training, with_embedding_dim
from microaction.training.settings import TrainSettings
from tests.training.runs import settings

HERE = Path("-")


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """Lists of 17 clips to train on and 3 to validate on."""
    (tmp_path / "train.txt").write_text("".join(f"{i}.mp4 {i % 4}\n" for i in range(17)))
    (tmp_path / "val.txt").write_text("".join(f"{i}.mp4 {i % 4}\n" for i in range(17, 20)))
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_workers": 5}, r"recipe.batch_size \(4\) must be at least num_workers \(5\)"),
        ({"min_workers": 2}, r"min_workers \(2\) must be at most num_workers \(1\)"),
        ({"val_list": None, "val_videos": None}, "give val_list and val_videos, or split_by=subject"),
        ({"val_list": None}, "val_list and val_videos belong together"),
        ({"model": {"num_classes": 7}}, r"model.num_classes \(7\) must be 52, the number of labels; leave it out"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(HERE, HERE, "run", **changes)


def test_a_run_that_cannot_start_writes_nothing(lists: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(TrainingError, match=r"recipe.batch_size \(40\) exceeds the 17 training clips"):
        run_training(settings(lists, out, "a", recipe={"batch_size": 40}))
    with pytest.raises(ManifestError, match="no list file at"):
        run_training(settings(lists, out, "b", val_list=f"{lists}/absent.txt"))
    with pytest.raises(CheckpointError, match=r"no weights at .*absent\.pth: give a checkpoint directory"):
        run_training(settings(lists, out, "c", init=f"{lists}/absent.pth"))
    assert not out.exists()


def test_other_settings_under_the_same_name_are_refused(lists: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    recorded = with_shipped_embeddings(settings(lists, tmp_path, "run"))
    (tmp_path / "run/settings.json").write_text(recorded.model_dump_json())
    with pytest.raises(TrainingError, match=r"other settings \(seed: recorded 0, now 5\): choose another name"):
        run_training(settings(lists, tmp_path, "run", seed=5))


@pytest.mark.parametrize("content", ['{"name": "run", "model": {"num_segments": 8}}', "cut sho"])
def test_a_run_of_another_version_is_refused(lists: Path, tmp_path: Path, content: str) -> None:
    """Before families, the number of frames was called `num_segments`."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/settings.json").write_text(content)
    with pytest.raises(
        TrainingError, match=r"run of another version of microaction \(settings\.json does not fit\)"
    ) as e:
        run_training(settings(lists, tmp_path, "run"))
    assert "\n" not in str(e.value)


def with_shipped_embeddings(of: TrainSettings) -> TrainSettings:
    return with_embedding_dim(of, load_label_embeddings(of))


@pytest.fixture
def vectors(tmp_path: Path) -> str:
    """A file with a vector of three numbers for every word of the labels."""
    words = sorted({word for name in ACTIONS for word in name.replace("-", " ").split()})
    (tmp_path / "vectors.txt").write_text("".join(f"{word} {i} 1 2\n" for i, word in enumerate(words)))
    return str(tmp_path / "vectors.txt")


def test_the_embedding_is_as_long_as_the_label_vectors(vectors: str) -> None:
    for label_embeddings, length in ((None, 384), (vectors, 3)):
        model = with_shipped_embeddings(settings(HERE, HERE, "run", label_embeddings=label_embeddings)).model
        assert isinstance(model, ManetConfig)
        assert model.embedding_dim == length


def test_an_explicit_embedding_length_must_fit(vectors: str) -> None:
    fits = settings(HERE, HERE, "run", label_embeddings=vectors, model={"embedding_dim": 3})
    assert with_shipped_embeddings(fits) == fits
    other = settings(HERE, HERE, "run", label_embeddings=vectors, model={"embedding_dim": 300})
    with pytest.raises(
        TrainingError,
        match=r"model.embedding_dim \(300\) must be 3, the length of the label vectors: leave it out, or give",
    ):
        with_shipped_embeddings(other)
