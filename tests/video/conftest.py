import os

import pytest

from tests.video import matrix


@pytest.fixture(scope="session")
def matrix_videos(tmp_path_factory: pytest.TempPathFactory) -> matrix.VideoCache:
    """The videos of the matrix, each encoded when it is first used."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the session's folder; each worker process has its own below it
    folder /= "matrix"
    folder.mkdir(exist_ok=True)
    return matrix.VideoCache(folder)
