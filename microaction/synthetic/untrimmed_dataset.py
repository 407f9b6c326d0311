"""A dataset of untrimmed videos with several actions at once, in MMA-52's layout.

`<root>/train/train0000.mp4`, `<root>/val/val0000.mp4` and so on: videos of 5 to 15 s. `<root>/train.csv` and `<root>/val.csv`
are annotations in MMA-52's format; `<root>/train_instances.parquet` and `<root>/val_instances.parquet` list the same spans in
seconds. `microaction.clips.instances.read_instances` reads both.
"""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from microaction.synthetic.recipe import DRAWING_VERSION, SUBJECT_SEEDS_PER_DATASET, Recipe, check_recipe
from microaction.synthetic.render import DEFAULT_FPS, DEFAULT_SIZE, check_size, draw_frames, encode_video
from microaction.synthetic.tables import write_atomically
from microaction.synthetic.truth import TruthEvent
from microaction.synthetic.untrimmed import perform, plan_untrimmed
from microaction.synthetic.workers import OnProgress, run_jobs
from microaction.taxonomy import ACTIONS

PLANNING_VERSION = 1  # increase it when the same seeds begin to give other events
DURATION_S = (5.0, 15.0)  # of MMA-52's videos, whose quartiles are those of an even distribution
CSV_HEADER = ("id", "video_id", "start_frame", "end_frame", "class", "total_frames", "fps")
DECIMALS = 4  # of seconds in MMA-52's annotations


@dataclass(frozen=True)
class UntrimmedDataset:
    """The paths of a dataset: `…_csv` is in MMA-52's format, `…_list` a Parquet table of the same instances."""

    root: Path
    train_dir: Path
    val_dir: Path
    train_csv: Path
    val_csv: Path
    train_list: Path
    val_list: Path

    @classmethod
    def at(cls, root: str | os.PathLike[str]) -> Self:
        """Return the paths of a dataset in a folder, whether it exists or not."""
        base = Path(root)
        return cls(
            base,
            base / "train",
            base / "val",
            base / "train.csv",
            base / "val.csv",
            base / "train_instances.parquet",
            base / "val_instances.parquet",
        )


@dataclass(frozen=True)
class _UntrimmedRecipe(Recipe):
    planning_version: int
    balanced: float


@dataclass(frozen=True)
class _Video:
    """One video to render."""

    path: Path
    subject_seed: int
    seed: int
    num_frames: int
    size: tuple[int, int]
    fps: int
    balanced: bool

    @property
    def subject(self) -> str:
        """The subject's number within the dataset, from 1, as names of clips have it."""
        return f"{self.subject_seed % SUBJECT_SEEDS_PER_DATASET + 1:04d}"

    @property
    def events(self) -> list[TruthEvent]:
        duration_s = self.num_frames / self.fps
        return plan_untrimmed(seed=self.seed, duration_s=duration_s, fps=self.fps, balanced=self.balanced)


def make_untrimmed_dataset(  # noqa: PLR0913 - all are what a dataset is
    root: str | os.PathLike[str],
    *,
    num_train_subjects: int = 80,
    num_val_subjects: int = 12,
    num_train_videos: int = 400,
    num_val_videos: int = 100,
    seed: int = 0,
    size: tuple[int, int] = DEFAULT_SIZE,
    fps: int = DEFAULT_FPS,
    balanced: float = 0.0,
    num_processes: int | None = None,
    on_progress: OnProgress | None = None,
) -> UntrimmedDataset:
    """Render the videos that do not exist yet, then write the lists of their instances.

    Events are those of `plan_untrimmed`: as often as in MMA-52, where the rarest actions need thousands of videos to occur, or
    about equally often in the fraction `balanced` of the videos. Subjects take turns; train and val have none in common. A
    second call, after an interruption or with more videos, renders only the missing ones. Raises `ValueError` for a root that
    was made with other settings.
    """
    recipe = _UntrimmedRecipe(
        DRAWING_VERSION,
        seed,
        num_train_subjects,
        num_val_subjects,
        *check_size(size),
        fps,
        planning_version=PLANNING_VERSION,
        balanced=balanced,
    )
    dataset = UntrimmedDataset.at(root)
    for folder in (dataset.train_dir, dataset.val_dir):
        folder.mkdir(parents=True, exist_ok=True)
    check_recipe(dataset.root, recipe)
    train = _plan(recipe, dataset.train_dir, recipe.train_subjects, num_train_videos)
    val = _plan(recipe, dataset.val_dir, recipe.val_subjects, num_val_videos)
    missing = [video for video in (*train, *val) if not video.path.exists()]
    run_jobs(_render, missing, num_processes=num_processes, on_progress=on_progress)
    for videos, annotations, instances in (
        (train, dataset.train_csv, dataset.train_list),
        (val, dataset.val_csv, dataset.val_list),
    ):
        rows = _rows(videos)
        _write_annotations(annotations, rows)
        _write_instances(instances, rows)
    return dataset


def _plan(recipe: _UntrimmedRecipe, folder: Path, subjects: range, num_videos: int) -> list[_Video]:
    size = (recipe.width, recipe.height)
    videos = []
    for index in range(num_videos):
        subject = subjects[index % len(subjects)]
        rng = np.random.default_rng([recipe.seed, subject, index, 0x1F])
        num_frames = round(float(rng.uniform(*DURATION_S)) * recipe.fps)
        seed = int(rng.integers(2**62))
        path = folder / f"{folder.name}{index:04d}.mp4"
        is_balanced = int((index + 1) * recipe.balanced) > int(index * recipe.balanced)
        video = _Video(path, recipe.subject_seed(subject), seed, num_frames, size, recipe.fps, is_balanced)
        videos.append(video)
    return videos


def _render(video: _Video) -> None:
    performed = perform(
        video.events, subject_seed=video.subject_seed, seed=video.seed, num_frames=video.num_frames, fps=video.fps
    )
    encode_video(video.path, draw_frames(*performed, size=video.size, fps=video.fps), video.size, video.fps)


@dataclass(frozen=True)
class _Row:
    """An instance over the frames [start, end) of a video, where end is at most its last frame, as in MMA-52."""

    video: _Video
    action: int
    start_frame: int
    end_frame: int


def _rows(videos: Sequence[_Video]) -> list[_Row]:
    rows = []
    for video in videos:
        for event in video.events:
            start, end = round(event.start_s * video.fps), round(event.end_s * video.fps)
            rows.append(_Row(video, event.action, start, min(end, video.num_frames - 1)))
    return rows


def _write_annotations(path: Path, rows: Sequence[_Row]) -> None:
    """Write a CSV file in MMA-52's format."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for number, row in enumerate(rows):
        video = row.video
        frames = (row.start_frame, row.end_frame)
        writer.writerow((number, video.path.stem, *frames, row.action, video.num_frames, float(video.fps)))
    write_atomically(path, table.getvalue())


def _write_instances(path: Path, rows: Sequence[_Row]) -> None:
    """Write a Parquet table of spans in seconds, with who is seen, which the names in MMA-52's format do not say."""
    table = pa.table(
        {
            "video": pa.array([row.video.path.name for row in rows], pa.string()),
            "start_s": pa.array([round(row.start_frame / row.video.fps, DECIMALS) for row in rows], pa.float64()),
            "end_s": pa.array([round(row.end_frame / row.video.fps, DECIMALS) for row in rows], pa.float64()),
            "action": pa.array([ACTIONS[row.action] for row in rows], pa.string()),
            "action_id": pa.array([row.action for row in rows], pa.int32()),
            "subject": pa.array([row.video.subject for row in rows], pa.string()),
        }
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    pq.write_table(table, temporary)
    temporary.replace(path)
