from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training.runs import BATCH_SIZE, NUM_STEPS
from tests.videos import write_video


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The networks are so small that more threads of torch wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 clips that differ in brightness: 17 to train, 3 to validate."""
    folder = tmp_path_factory.mktemp("data")
    for split, names in (("train", range(17)), ("val", range(17, 20))):
        for i in names:
            write_video(folder / f"{i}.mp4", num_frames=9 + i, size=(80, 96))
        (folder / f"{split}.txt").write_text("".join(f"{i}.mp4 {i % 4}\n" for i in names))
    return folder


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips for an epoch of `NUM_STEPS` steps of `BATCH_SIZE`, and five of them to validate."""
    folder = tmp_path_factory.mktemp("many")
    lines = [f"{i}.mp4 {i * 7 % 52}\n" for i in range(NUM_STEPS * BATCH_SIZE)]
    for i in range(len(lines)):
        write_video(folder / f"{i}.mp4", num_frames=9 + i % 17, size=(80, 96))
    (folder / "train.txt").write_text("".join(lines))
    (folder / "val.txt").write_text("".join(lines[:5]))
    return folder
