"""A tiny model and an archive with every kind of file."""

import shutil
from pathlib import Path

import pytest
import torch

from microaction.models.manet.config import ManetConfig
from microaction.preprocessing import Preprocessing
from microaction.models import CheckpointConfig, build_model, save_checkpoint
from microaction.synthetic.faults import write_audio_only, write_truncated
from microaction.taxonomy import ACTIONS
from tests.models.manet.test_network import with_lively_weights
from tests.videos import write_video


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("model"))


def write_model(folder: Path, *, gain: float = 20) -> str:
    """A checkpoint with random weights that answer differently to different frames, the surer the larger `gain`."""
    config = ManetConfig(width=8, depths=(1, 1, 1, 1), embedding_dim=8)
    network = with_lively_weights(build_model(config))
    with torch.no_grad():
        # Answers that hang on the picture: centred on what greys have in common, then made large.
        greys_FCHW = torch.linspace(-2, 2, 16)[:, None, None, None].expand(16, 3, 40, 40)
        network.action.bias.copy_(-network.action.weight @ network.backbone(greys_FCHW).mean(dim=0))
        network.action.weight.mul_(gain)
        network.action.bias.mul_(gain)
    save_checkpoint(
        network,
        CheckpointConfig(
            model=config,
            preprocessing=Preprocessing(short_side=48, crop=40),
            labels=ACTIONS,
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
    "text.mp4": "not a video: its content is none of MP4/MOV, MKV/WebM, AVI, MPEG-TS or MPEG-PS",
    "sound.mp4": "there is no video in it, only audio",
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three good videos and four files that are none; a text file that nobody asked for."""
    root = tmp_path / "archive"
    (root / "deep").mkdir(parents=True)
    for name, seconds in GOOD.items():
        if name.endswith(".avi"):
            write_video(tmp_path / "b.mp4", num_frames=round(seconds * 30))
            shutil.move(tmp_path / "b.mp4", root / name)  # content counts, not the name
        else:
            write_video(root / name, num_frames=min(198, round(seconds * 30)))
    write_truncated(root / "cut.mp4", root / "a.mp4")
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("not yet transferred\n" * 50)
    write_audio_only(root / "sound.mp4")
    (root / "notes.txt").write_text("nothing to do with it")
    return root
