import pytest

from microaction.clips.manifest import Clip
from tests.videos import write_video


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """37 counted clips of 40 to 76 frames: not a multiple of any batch or block size."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(37):
        write_video(folder / f"{i}.mp4", num_frames=40 + i, size=(80, 96))
    return [Clip(f"{i}.mp4", str(folder / f"{i}.mp4"), i) for i in range(37)]
