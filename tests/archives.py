"""A tiny model, and an archive with every kind of file."""

import shutil
from pathlib import Path

import pytest
import torch

from microaction.models import Calibration, CheckpointConfig, MANet, ManetConfig, build_model, save_checkpoint
from microaction.preprocessing import Preprocessing
from microaction.synthetic.faults import write_audio_only, write_truncated
from microaction.taxonomy import ACTIONS
from tests.models.networks import randomize_weights
from tests.videos import write_video


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint with random weights; see `write_model`."""
    return write_model(tmp_path_factory.mktemp("model"))


def write_model(folder: Path, *, gain: float = 20) -> str:
    """Write a checkpoint with random weights whose predictions depend on the frames, the more confidently the larger `gain`.

    Returns its path.
    """
    config = ManetConfig(width=8, depths=(1, 1, 1, 1), embedding_dim=8)
    network = randomize_weights(build_model(config))
    assert isinstance(network, MANet)
    with torch.no_grad():
        # Centered on what all gray levels have in common, then scaled, so that predictions depend on the frame.
        grays_FCHW = torch.linspace(-2, 2, 16)[:, None, None, None].expand(16, 3, 40, 40)
        network.action.bias.copy_(-network.action.weight @ network.backbone(grays_FCHW).mean(dim=0))
        network.action.weight.mul_(gain)
        network.action.bias.mul_(gain)
    save_checkpoint(
        network,
        CheckpointConfig(
            model=config,
            preprocessing=Preprocessing(short_side=48, crop=40),
            labels=ACTIONS,
            calibration=Calibration(temperature=1.0),
            recipe={},
            versions={},
            metrics={},
        ),
        str(folder),
    )
    return str(folder)


GOOD = {"a.mp4": 6.6, "b.avi": 2.5, "deep/c.mkv": 1.0}
BAD = {
    "cut.mp4": "cut short or damaged: the index of the MP4/MOV file (its 'moov' box) is missing or unreadable",
    "empty.mp4": "the file is empty",
    "text.mp4": "not a video: its content is in none of the container formats that are read",
    "sound.mp4": "contains no video, only audio",
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three good videos, four files with a video's extension that are not videos, and a text file."""
    return write_archive(tmp_path / "archive")


def write_archive(root: Path) -> Path:
    """Write the files that `GOOD` and `BAD` describe into a new folder, and a text file; return the folder."""
    (root / "deep").mkdir(parents=True)
    for name, seconds in GOOD.items():
        if name.endswith(".avi"):
            write_video(root / "b.mp4", num_frames=round(seconds * 30))
            shutil.move(root / "b.mp4", root / name)  # the content decides the format, not the name
        else:
            write_video(root / name, num_frames=min(198, round(seconds * 30)))
    write_truncated(root / "cut.mp4", root / "a.mp4")
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("not yet transferred\n" * 50)
    write_audio_only(root / "sound.mp4")
    (root / "notes.txt").write_text("not listed")
    return root
