from pathlib import Path

import av
import pytest

from microaction.skeletons import read_skeletons
from microaction.synthetic import SyntheticDataset, make_dataset
from microaction.taxonomy import ACTIONS, BODY_PART_OF

SMALL = (64, 78)


def small_dataset(root: Path, *, num_train_clips: int = 6, seed: int = 0, num_processes: int = 1) -> SyntheticDataset:
    return make_dataset(
        root,
        num_train_subjects=3,
        num_val_subjects=2,
        num_train_clips=num_train_clips,
        num_val_clips=4,
        seed=seed,
        size=SMALL,
        with_skeletons=True,
        num_processes=num_processes,
    )


def rows(path: Path) -> list[tuple[str, int]]:
    return [(name, int(action)) for name, action in (line.split() for line in path.read_text().splitlines())]


def test_clips_lists_and_names_follow_ma52(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    assert dataset.train_list == tmp_path / "train_list_videos.txt"
    for list_path, folder in ((dataset.train_list, dataset.train_dir), (dataset.val_list, dataset.val_dir)):
        clips = rows(list_path)
        assert sorted(name for name, _ in clips) == sorted(path.name for path in folder.iterdir())
        for number, (name, action) in enumerate(clips, start=1):
            subject, body_part, running = name.removesuffix(".mp4").split("_")
            assert (len(subject), int(body_part), int(running)) == (4, BODY_PART_OF[action], number)


def test_no_subject_is_in_both_splits(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    train = {name[:4] for name, _ in rows(dataset.train_list)}
    val = {name[:4] for name, _ in rows(dataset.val_list)}
    assert train == {"0001", "0002", "0003"}
    assert val == {"0004", "0005"}


def test_actions_are_balanced_across_subjects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microaction.synthetic.dataset.run_jobs", lambda *args, **kwargs: None)
    dataset = make_dataset(tmp_path, num_train_subjects=60, num_train_clips=2600, num_val_clips=312)
    subjects_of: dict[int, list[str]] = {}
    for name, action in rows(dataset.train_list):
        subjects_of.setdefault(action, []).append(name[:4])
    assert sorted(subjects_of) == list(range(len(ACTIONS)))
    assert {len(subjects) for subjects in subjects_of.values()} == {50}
    assert {len(set(subjects)) for subjects in subjects_of.values()} == {50}


def test_existing_clips_are_not_rendered_again(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in dataset.train_dir.iterdir()}
    deleted = min(before)
    deleted.unlink()
    small_dataset(tmp_path, num_train_clips=7)
    assert len(list(dataset.train_dir.iterdir())) == 7
    for path, (mtime_ns, data) in before.items():
        assert path.read_bytes() == data
        assert (path.stat().st_mtime_ns == mtime_ns) == (path != deleted)


def test_every_clip_has_its_skeleton(tmp_path: Path) -> None:
    small_dataset(tmp_path)
    dataset = small_dataset(tmp_path, num_train_clips=7)  # the table of six is replaced
    for list_path, folder, table in (
        (dataset.train_list, dataset.train_dir, dataset.train_skeletons),
        (dataset.val_list, dataset.val_dir, dataset.val_skeletons),
    ):
        skeletons = dict(read_skeletons(str(table)))
        assert list(skeletons) == [name for name, _ in rows(list_path)]
        for name, skeleton in skeletons.items():
            with av.open(str(folder / name)) as container:
                assert skeleton.num_frames == sum(1 for _ in container.decode(video=0))


def test_number_of_processes_does_not_change_the_clips(tmp_path: Path) -> None:
    one = small_dataset(tmp_path / "one", num_train_clips=16)
    two = small_dataset(tmp_path / "two", num_train_clips=16, num_processes=2)
    for path in one.train_dir.iterdir():
        assert path.read_bytes() == (two.train_dir / path.name).read_bytes()
    assert one.train_skeletons.read_bytes() == two.train_skeletons.read_bytes()


def test_another_recipe_in_the_same_root_is_refused(tmp_path: Path) -> None:
    small_dataset(tmp_path)
    with pytest.raises(ValueError, match=r"was made with seed=0, not 1: .*choose another root"):
        small_dataset(tmp_path, seed=1)
