import csv
from pathlib import Path

import av
import pytest

from microaction.clips.instances import read_instances
from microaction.synthetic import UntrimmedDataset, make_dataset, make_untrimmed_dataset

SMALL = (64, 78)


def small_dataset(root: Path, *, num_train_videos: int = 3, seed: int = 0, balanced: bool = True) -> UntrimmedDataset:
    return make_untrimmed_dataset(
        root,
        num_train_subjects=2,
        num_val_subjects=1,
        num_train_videos=num_train_videos,
        num_val_videos=2,
        seed=seed,
        size=SMALL,
        fps=10,
        balanced=balanced,
        num_processes=1,
    )


def num_frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_dataset_is_in_the_layout_of_mma52(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    assert (dataset.train_csv, dataset.val_csv) == (tmp_path / "train.csv", tmp_path / "val.csv")
    for split, folder, annotations, num_videos in (
        ("train", dataset.train_dir, dataset.train_csv, 3),
        ("val", dataset.val_dir, dataset.val_csv, 2),
    ):
        with annotations.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["id", "video_id", "start_frame", "end_frame", "class", "total_frames", "fps"]
        assert [row["id"] for row in rows] == [str(number) for number in range(len(rows))]
        assert list(dict.fromkeys(row["video_id"] for row in rows)) == [f"{split}{i:04d}" for i in range(num_videos)]
        assert {row["fps"] for row in rows} == {"10.0"}
        for row in rows:
            start, end, total = (int(row[name]) for name in ("start_frame", "end_frame", "total_frames"))
            assert 0 <= start < end <= total - 1
            assert 50 <= total <= 150
            assert num_frames_of(folder / f"{row['video_id']}.mp4") == total


def test_both_lists_say_the_same(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    for folder, annotations, instances in (
        (dataset.train_dir, dataset.train_csv, dataset.train_list),
        (dataset.val_dir, dataset.val_csv, dataset.val_list),
    ):
        of_csv = read_instances(str(annotations), str(folder))
        of_parquet = read_instances(str(instances), str(folder))
        assert [(video.name, video.uri, video.instances) for video in of_csv] == [
            (video.name, video.uri, video.instances) for video in of_parquet
        ]
        assert all(len(video.instances) >= 2 for video in of_csv)
        assert [video.name for video in of_csv] == sorted(path.name for path in folder.iterdir())


def test_train_and_val_share_no_subject_and_no_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    jobs = []
    monkeypatch.setattr(
        "microaction.synthetic.untrimmed_dataset.run_jobs", lambda _, missing, **kwargs: jobs.extend(missing)
    )
    make_untrimmed_dataset(tmp_path, num_train_subjects=5, num_val_subjects=3, num_train_videos=50, num_val_videos=30)
    subjects = {split: {job.subject_seed for job in jobs if split in job.path.name} for split in ("train", "val")}
    assert subjects == {"train": set(range(5)), "val": {5, 6, 7}}
    assert len({job.seed for job in jobs}) == 80


def test_an_interrupted_dataset_is_completed(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in dataset.train_dir.iterdir()}
    deleted = min(before)
    deleted.unlink()
    dataset.train_csv.unlink()
    small_dataset(tmp_path, num_train_videos=4)
    assert len(list(dataset.train_dir.iterdir())) == 4
    for path, (mtime_ns, data) in before.items():
        assert path.read_bytes() == data
        assert (path.stat().st_mtime_ns == mtime_ns) == (path != deleted)
    assert len(read_instances(str(dataset.train_csv), str(dataset.train_dir))) == 4


def test_another_recipe_in_the_same_root_is_refused(tmp_path: Path) -> None:
    small_dataset(tmp_path)
    with pytest.raises(ValueError, match=r"was made with seed=0, not 1: .*choose another root"):
        small_dataset(tmp_path, seed=1)
    with pytest.raises(ValueError, match=r"was made with balanced=True, not False"):
        small_dataset(tmp_path, balanced=False)
    with pytest.raises(ValueError, match=r"was made with planning_version=1, not None"):
        make_dataset(
            tmp_path, num_train_subjects=2, num_val_subjects=1, num_train_clips=1, num_val_clips=1, size=SMALL, fps=10
        )
