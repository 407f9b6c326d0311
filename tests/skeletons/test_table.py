"""Tables of skeletons: what is written is read back equal."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microaction.schema import SKELETONS
from microaction.skeletons import Skeleton, SkeletonError, published_skeletons, read_skeletons, write_skeletons
from tests.conftest import CommandResult
from tests.skeletons.annotations import annotation


def skeletons(num: int) -> list[tuple[str, Skeleton]]:
    content = [
        annotation(f"clip{i:04}", num_people=1 + i % 3, num_frames=2 + i % 4 * 3 + 2, seed=i) for i in range(num)
    ]
    return list(published_skeletons(pickle.dumps(content)))


@pytest.mark.parametrize("num", [1, 7])
@pytest.mark.parametrize("clips_per_group", [1, 3, 256])
def test_what_is_written_is_read_back(
    num: int, clips_per_group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microaction.skeletons.table.CLIPS_PER_GROUP", clips_per_group)
    written = skeletons(num)
    path = str(tmp_path / "a.parquet")
    assert write_skeletons(iter(written), path) == num
    found = list(read_skeletons(path))
    assert [name for name, _ in found] == [name for name, _ in written]
    for (_, one), (_, other) in zip(found, written, strict=True):
        np.testing.assert_array_equal(one.keypoints_MNK2, other.keypoints_MNK2)
        np.testing.assert_array_equal(one.scores_MNK, other.scores_MNK)
        assert (one.width, one.height) == (other.width, other.height)


def test_a_table_made_by_hand_may_lack_rows(tmp_path: Path) -> None:
    row = {"video": "a.mp4", "frame": 3, "person": 2, "width": 64, "height": 48, "keypoints": [1.0] * 84}
    pq.write_table(pa.Table.from_pylist([row], schema=SKELETONS), tmp_path / "a.parquet")
    ((name, skeleton),) = read_skeletons(str(tmp_path / "a.parquet"))
    assert name == "a.mp4"
    assert skeleton.scores_MNK.shape == (2, 4, 28)
    assert skeleton.scores_MNK.sum() == skeleton.scores_MNK[1, 3].sum() == 28


def test_what_is_no_such_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"video": ["a"]}), path)
    with pytest.raises(SkeletonError, match="not a table of skeletons: its columns are video"):
        list(read_skeletons(str(path)))
    path.write_text("text")
    with pytest.raises(SkeletonError, match="not a Parquet file"):
        list(read_skeletons(str(path)))
    with pytest.raises(SkeletonError, match=r"clip0000\.mp4 occurs twice"):
        write_skeletons(skeletons(1) * 2, str(path))


def test_the_command_makes_a_table(job: Callable[..., CommandResult], tmp_path: Path) -> None:
    pickled, table = tmp_path / "MA52_train.pkl", tmp_path / "train.parquet"
    pickled.write_bytes(pickle.dumps([annotation("0001_05_0001"), annotation("0002_06_0001")]))
    done = job("skeletons", "import", str(pickled), str(table))
    assert done.returncode == 0, done.stderr
    assert f"{table}: skeletons of 2 clips" in done.stderr
    assert [name for name, _ in read_skeletons(str(table))] == ["0001_05_0001.mp4", "0002_06_0001.mp4"]
    pickled.write_bytes(pickle.dumps([eval]))
    refused = job("skeletons", "import", str(pickled), str(table))
    assert refused.returncode == 2
    assert "refused: the pickle names builtins.eval, which could run code" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_documentation_describes_every_column() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/files.md").read_text()
    section = page.partition("## A table of skeletons")[2].partition("\n## ")[0]
    assert all(f"`{name}`" in section for name in SKELETONS.names)
    assert f"fixed list of {SKELETONS.field('keypoints').type.list_size} float32" in section
