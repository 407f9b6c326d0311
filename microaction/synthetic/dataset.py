"""A dataset of short clips in MA-52's layout: folders, list files, and the subject in each file name.

`<root>/train/SSSS_BB_NNNN.mp4`: subject, body part label, running number from 1 within the split. The lists
`<root>/train_list_videos.txt` and `<root>/val_list_videos.txt` have a line "name.mp4 action" for each clip.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from microaction.synthetic.render import DEFAULT_FPS, DEFAULT_SIZE, check_size, render_clip
from microaction.synthetic.workers import OnProgress, run_jobs
from microaction.taxonomy import ACTIONS, BODY_PART_OF

DRAWING_VERSION = 2  # raise it when the same seeds begin to give other pictures
RECIPE_NAME = "recipe.json"
BATCH_SIZE = 8  # clips per task of a process: few enough to share out evenly, enough to hide its cost
SUBJECT_SEEDS_PER_DATASET = 100_000  # datasets of different seeds show different people


@dataclass(frozen=True)
class SyntheticDataset:
    """Where the parts of a dataset lie."""

    root: Path
    train_dir: Path
    val_dir: Path
    train_list: Path
    val_list: Path


@dataclass(frozen=True)
class ClipJob:
    """One clip to render."""

    path: Path
    subject_seed: int
    action: int
    seed: int
    size: tuple[int, int]
    fps: int


@dataclass(frozen=True)
class _Recipe:
    """What decides how a clip of a given name looks; the number of clips does not."""

    drawing_version: int
    seed: int
    num_train_subjects: int
    num_val_subjects: int
    width: int
    height: int
    fps: int


def make_dataset(
    root: str | os.PathLike[str],
    *,
    num_train_subjects: int = 80,
    num_val_subjects: int = 12,
    num_train_clips: int = 2600,
    num_val_clips: int = 312,
    seed: int = 0,
    size: tuple[int, int] = DEFAULT_SIZE,
    fps: int = DEFAULT_FPS,
    num_processes: int | None = None,
    on_progress: OnProgress | None = None,
) -> SyntheticDataset:
    """Renders the clips that are not there yet, then writes the lists.

    Actions take turns, so each has the same number of clips (give or take one), spread over as many subjects as it has
    clips; multiples of 52 are exact. Train and val share no subject. Call again after an interruption, or with more
    clips, and only the missing ones are rendered; a root made with other settings raises ValueError.
    """
    for name, count in (("num_train_subjects", num_train_subjects), ("num_val_subjects", num_val_subjects)):
        if count < 1:
            raise ValueError(f"{name} ({count}) must be ≥ 1: a clip needs somebody to film")
    if num_train_subjects + num_val_subjects > SUBJECT_SEEDS_PER_DATASET:
        raise ValueError(
            f"num_train_subjects + num_val_subjects ({num_train_subjects + num_val_subjects}) must be ≤ "
            f"{SUBJECT_SEEDS_PER_DATASET}; ask for fewer subjects"
        )
    base = Path(root)
    dataset = SyntheticDataset(
        base, base / "train", base / "val", base / "train_list_videos.txt", base / "val_list_videos.txt"
    )
    for folder in (dataset.train_dir, dataset.val_dir):
        folder.mkdir(parents=True, exist_ok=True)
    width, height = check_size(size)
    _claim(base, _Recipe(DRAWING_VERSION, seed, num_train_subjects, num_val_subjects, width, height, fps))
    train = _plan(dataset.train_dir, 0, num_train_subjects, num_train_clips, seed, size, fps)
    val = _plan(dataset.val_dir, num_train_subjects, num_val_subjects, num_val_clips, seed, size, fps)
    missing = [job for job in (*train, *val) if not job.path.exists()]
    run_jobs(_render, missing, num_processes=num_processes, batch_size=BATCH_SIZE, on_progress=on_progress)
    _write_list(dataset.train_list, train)
    _write_list(dataset.val_list, val)
    return dataset


def _plan(
    folder: Path, first_subject: int, num_subjects: int, num_clips: int, seed: int, size: tuple[int, int], fps: int
) -> list[ClipJob]:
    jobs = []
    for index in range(num_clips):
        turn, action = divmod(index, len(ACTIONS))
        # Each turn moves every action on to its next subject, so no action is tied to some subjects.
        subject = first_subject + (turn + action) % num_subjects
        name = f"{subject + 1:04d}_{BODY_PART_OF[action]:02d}_{index + 1:04d}.mp4"
        subject_seed = seed * SUBJECT_SEEDS_PER_DATASET + subject
        jobs.append(ClipJob(folder / name, subject_seed, action, index, size, fps))
    return jobs


def _render(job: ClipJob) -> None:
    render_clip(job.path, subject_seed=job.subject_seed, action=job.action, seed=job.seed, size=job.size, fps=job.fps)


def _claim(root: Path, recipe: _Recipe) -> None:
    """Leaves the recipe in the root, or compares it with the one that is there."""
    path = root / RECIPE_NAME
    if not path.exists():
        write_atomically(path, json.dumps(asdict(recipe), indent=2) + "\n")
        return
    there = json.loads(path.read_text())
    for name, value in asdict(recipe).items():
        if there.get(name) != value:
            raise ValueError(
                f"dataset {root} was made with {name}={there.get(name)}, asked for is {value}: clips of one dataset "
                f"must have one recipe; choose another root or delete this one"
            )


def _write_list(path: Path, jobs: list[ClipJob]) -> None:
    write_atomically(path, "".join(f"{job.path.name} {job.action}\n" for job in jobs))


def write_atomically(path: Path, text: str) -> None:
    """Writes the file under another name first, so that a reader never sees half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    unfinished.write_text(text)
    unfinished.replace(path)
