"""A dataset of short clips in MA-52's layout: folders, list files, and the subject in each file name.

`<root>/train/SSSS_BB_NNNN.mp4`: subject, body part label, and a number that counts from 1 within the split. The lists
`<root>/train_list_videos.txt` and `<root>/val_list_videos.txt` have a line "name.mp4 action" for each clip;
`<root>/train_skeletons.parquet` and `<root>/val_skeletons.parquet`, where they are asked for, hold the people's keypoints.
"""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from microaction.skeletons import Skeleton
from microaction.synthetic.recipe import DRAWING_VERSION, Recipe, check_recipe
from microaction.synthetic.render import DEFAULT_FPS, DEFAULT_SIZE, check_size, clip_keypoints, render_clip
from microaction.synthetic.tables import write_atomically, write_missing_skeletons
from microaction.synthetic.workers import OnProgress, run_jobs
from microaction.taxonomy import ACTIONS, BODY_PART_OF

BATCH_SIZE = 8  # clips per task of a process: few enough to balance the processes, enough to hide the task's cost


@dataclass(frozen=True)
class SyntheticDataset:
    """The paths of a dataset."""

    root: Path
    train_dir: Path
    val_dir: Path
    train_list: Path
    val_list: Path
    train_skeletons: Path
    val_skeletons: Path

    @classmethod
    def at(cls, root: str | os.PathLike[str]) -> Self:
        """Return the paths of a dataset in a folder, whether it exists or not."""
        base = Path(root)
        return cls(
            base,
            base / "train",
            base / "val",
            base / "train_list_videos.txt",
            base / "val_list_videos.txt",
            base / "train_skeletons.parquet",
            base / "val_skeletons.parquet",
        )


@dataclass(frozen=True)
class ClipJob:
    """One clip to render."""

    path: Path
    subject_seed: int
    action: int
    seed: int
    size: tuple[int, int]
    fps: int


def make_dataset(  # noqa: PLR0913 - all are what a dataset is
    root: str | os.PathLike[str],
    *,
    num_train_subjects: int = 80,
    num_val_subjects: int = 12,
    num_train_clips: int = 2600,
    num_val_clips: int = 312,
    seed: int = 0,
    size: tuple[int, int] = DEFAULT_SIZE,
    fps: int = DEFAULT_FPS,
    with_skeletons: bool = False,
    num_processes: int | None = None,
    on_progress: OnProgress | None = None,
) -> SyntheticDataset:
    """Render the clips that do not exist yet, then write the lists, and with `with_skeletons` the tables of their skeletons.

    Actions take turns: each has the same number of clips, plus or minus one, spread over as many subjects as it has clips;
    with a multiple of 52 clips the numbers are equal. Train and val have no subject in common. A second call, after an
    interruption or with more clips, renders only the missing ones. Raises `ValueError` for a root that was made with other
    settings.
    """
    recipe = Recipe(DRAWING_VERSION, seed, num_train_subjects, num_val_subjects, *check_size(size), fps)
    dataset = SyntheticDataset.at(root)
    for folder in (dataset.train_dir, dataset.val_dir):
        folder.mkdir(parents=True, exist_ok=True)
    check_recipe(dataset.root, recipe)
    train = _plan(recipe, dataset.train_dir, recipe.train_subjects, num_train_clips)
    val = _plan(recipe, dataset.val_dir, recipe.val_subjects, num_val_clips)
    missing = [job for job in (*train, *val) if not job.path.exists()]
    run_jobs(_render, missing, num_processes=num_processes, batch_size=BATCH_SIZE, on_progress=on_progress)
    _write_list(dataset.train_list, train)
    _write_list(dataset.val_list, val)
    if with_skeletons:
        for path, clips in ((dataset.train_skeletons, train), (dataset.val_skeletons, val)):
            draw = partial(run_jobs, _skeleton, clips, num_processes=num_processes, batch_size=BATCH_SIZE)
            write_missing_skeletons(path, [clip.path.name for clip in clips], draw)
    return dataset


def _plan(recipe: Recipe, folder: Path, subjects: range, num_clips: int) -> list[ClipJob]:
    size = (recipe.width, recipe.height)
    jobs = []
    for index in range(num_clips):
        turn, action = divmod(index, len(ACTIONS))
        # Each turn gives every action its next subject, so that no action is tied to certain subjects.
        subject = subjects[(turn + action) % len(subjects)]
        name = f"{subject + 1:04d}_{BODY_PART_OF[action]:02d}_{index + 1:04d}.mp4"
        jobs.append(ClipJob(folder / name, recipe.subject_seed(subject), action, index, size, recipe.fps))
    return jobs


def _render(job: ClipJob) -> None:
    render_clip(job.path, subject_seed=job.subject_seed, action=job.action, seed=job.seed, size=job.size, fps=job.fps)


def _skeleton(job: ClipJob) -> Skeleton:
    return clip_keypoints(subject_seed=job.subject_seed, action=job.action, seed=job.seed, size=job.size, fps=job.fps)


def _write_list(path: Path, jobs: list[ClipJob]) -> None:
    write_atomically(path, "".join(f"{job.path.name} {job.action}\n" for job in jobs))
