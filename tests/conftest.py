"""What the tests share: one Ray cluster for the session, the project's shared facts where they are, small videos."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import ray

from tests.archives import archive, model
from tests.videos import write_video

__all__ = ["archive", "model"]

# Whether a machine is busy says nothing about a property.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of facts that the project is built from; tests that compare with it skip where it is not."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with the reference's data is not here")
    return SHARED


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray of 4 logical CPUs, whatever the machine has, so that pools of actors and tasks fit side by side."""
    os.environ["RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS"] = "0"
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=512 << 20)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def counted_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 frames at 30 fps, H.264 with B-frames, frame i a grey that tells i (see `videos.number_of`)."""
    path = tmp_path_factory.mktemp("videos") / "counted.mp4"
    write_video(path, num_frames=120)
    return path
