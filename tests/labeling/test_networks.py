"""Every network is registered and labels: chunk by chunk as in one piece, with the frames that its sampling asks for."""

from pathlib import Path

import pytest

import microaction
from microaction.models import CheckpointConfig, load_checkpoint, save_checkpoint
from microaction.models.golden import golden_difference, make_golden
from microaction.models.settings import parse_model_config
from microaction.preprocessing import Preprocessing
from microaction.registry.versions import register
from microaction.schema import CLIPS_FILE, TRAINING_CLIPS, parquet_bytes
from microaction.taxonomy import ACTIONS
from tests.models.networks import SIDE, SMALL_NETWORKS, small_network
from tests.videos import write_video

FEW = ("video-swin-t", "vit-s")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    write_video(path, num_frames=160)
    return path


@pytest.mark.parametrize(
    "preset", [pytest.param(preset, marks=() if preset in FEW else pytest.mark.slow) for preset in SMALL_NETWORKS]
)
def test_chunked_equals_unchunked(preset: str, video: Path, tmp_path: Path) -> None:
    sampling = {"sampling": "consecutive", "frame_interval": 2, "views": 2} if preset == "video-swin-t" else {}
    preprocessing = Preprocessing.model_validate({"short_side": SIDE, "crop": SIDE} | sampling)
    config = CheckpointConfig(
        model=parse_model_config({"preset": preset, **SMALL_NETWORKS[preset]}),
        preprocessing=preprocessing,
        labels=ACTIONS,
        recipe={},
        versions={},
        metrics={},
    )
    save_checkpoint(small_network(preset), config, str(tmp_path / "model"))
    (tmp_path / "model" / CLIPS_FILE).write_bytes(parquet_bytes(TRAINING_CLIPS.empty_table()))
    version = register(str(tmp_path / "registry"), str(tmp_path / "model"))
    checkpoint = load_checkpoint(version.ref(str(tmp_path / "registry")))
    assert golden_difference(checkpoint, make_golden(checkpoint)) == 0
    whole, parts = (
        microaction.label_video(video, checkpoint, chunk_s=chunk_s, precision="fp32", people="off")
        for chunk_s in (120.0, 2.0)
    )
    assert len(whole.windows) == 5
    assert whole.failures.num_rows == parts.failures.num_rows == 0
    assert whole.windows["probabilities"].combine_chunks().equals(parts.windows["probabilities"].combine_chunks())
