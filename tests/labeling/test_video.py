"""`microaction.label_video` labels one video without Ray exactly as the job does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pytest

import microaction
from microaction.labeling.labeler import Labeler
from microaction.models import CheckpointError, load_checkpoint
from microaction.models.classifier import Execution
from tests.archives import write_model
from tests.labeling.runs import label
from tests.videos import write_video

LONG_S, SETTINGS = (
    6.6,
    {"precision": "fp32", "start_threshold": 0.02, "abstain_below": 0.05, "chunk_s": 2.0, "people": "off"},
)
NAMES = ("short.mp4", "long.mp4", "damaged.mp4", "text.mp4")
SCRIPT = """
import sys
import microaction
labeled = microaction.label_video(sys.argv[1], sys.argv[2], precision="fp32", people="off")
print(len(labeled.windows), "ray" in sys.modules)
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video shorter than a chunk, one of several chunks, one that is damaged in its second half, and a text file."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "short.mp4", num_frames=45)
    write_video(folder / "long.mp4", num_frames=round(LONG_S * 30))
    write_video(folder / "damaged.mp4", num_frames=180, options={"g": "30"}, faststart=True)
    data = (folder / "damaged.mp4").read_bytes()
    (folder / "damaged.mp4").write_bytes(data[: len(data) - 1500])
    (folder / "text.mp4").write_text("not yet transferred\n" * 50)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint so confident that each video has events."""
    return write_model(tmp_path_factory.mktemp("confident"), gain=400)


@pytest.fixture(scope="module")
def tables(ray_cluster: None, archive: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of the job over the same videos."""
    out = tmp_path_factory.mktemp("job") / "out"
    label(archive, out, model, **SETTINGS)
    return out


@pytest.mark.cluster
@pytest.mark.parametrize("name", NAMES)
def test_one_video_has_exactly_the_rows_of_the_job(name: str, archive: Path, tables: Path, model: str) -> None:
    labeled = microaction.label_video(archive / name, model, **SETTINGS)
    for table in ("windows", "events", "failures"):
        expected = pads.dataset(tables / table).to_table(filter=pads.field("video") == str(archive / name))
        found: pa.Table = getattr(labeled, table)
        assert found.column_names == expected.column_names
        assert without_dictionaries(found).equals(without_dictionaries(expected)), table
    assert (len(labeled.windows) > 0) == (name != "text.mp4")
    assert (len(labeled.failures) > 0) == (name in ("damaged.mp4", "text.mp4"))
    assert (len(labeled.events) > 0) == (name != "text.mp4"), "a rule that finds no events would prove nothing"


def without_dictionaries(table: pa.Table) -> pa.Table:
    """Return the same values; a file's dictionary has those of other videos too."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema.remove_metadata()
    ]
    return table.cast(pa.schema(fields)).combine_chunks()


def test_labeling_one_video_does_not_import_ray(archive: Path, model: str) -> None:
    command = [sys.executable, "-c", SCRIPT, str(archive / "short.mp4"), model]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]


def test_a_loaded_checkpoint_gives_the_same_labels(archive: Path, model: str) -> None:
    by_name, loaded = (
        microaction.label_video(str(archive / "short.mp4"), each, precision="fp32", people="off")
        for each in (model, load_checkpoint(model))
    )
    assert by_name.windows.equals(loaded.windows)


def test_wrong_arguments_are_refused(archive: Path, model: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"windows_s\n.*Extra inputs are not permitted"):
        microaction.label_video(archive / "short.mp4", model, windows_s=2.0)
    with pytest.raises(ValueError, match=r"stride_s \(3.0\) must be at most window_s \(2.0\)"):
        microaction.label_video(archive / "short.mp4", model, stride_s=3.0)
    with pytest.raises(FileNotFoundError, match=r"no file at .*absent\.mp4"):
        microaction.label_video(tmp_path / "absent.mp4", model)
    with pytest.raises(CheckpointError, match=r"no file at .*absent\.pth: check the name of the weights"):
        microaction.label_video(archive / "short.mp4", str(tmp_path / "absent.pth"))
    with pytest.raises(CheckpointError, match="is not a checkpoint directory"):
        microaction.label_video(archive / "short.mp4", str(tmp_path))


def test_a_labeler_refuses_a_checkpoint_that_changed(model: str, tmp_path: Path) -> None:
    changing = Path(shutil.copytree(model, tmp_path / "model"))
    ref = load_checkpoint(str(changing)).ref
    execution = Execution("fp32", is_compiled=False)
    Labeler(ref, execution, batch_windows=1, num_threads=os.cpu_count() or 1)
    write_model(changing, gain=300)
    with pytest.raises(CheckpointError, match=r"model has changed: its digest was \w+ and is \w+ now"):
        Labeler(ref, execution, batch_windows=1, num_threads=1)
