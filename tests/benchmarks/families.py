"""Every network at reduced size, trained for as many core-seconds, measured on drawn people that none has seen.

`python -m tests.benchmarks.families [FOLDER]` draws the clips into FOLDER (`ablation`), trains each network with every seed, one
process per core, and prints tables. Run again, it resumes. The networks begin with random weights; published results of large
ones begin with trained weights, on other data. So that minutes are enough, the clips are those of two actions of each body part,
and decoded before the time begins.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Column, Table

from microaction.clips.ingest import ClipBatch
from microaction.clips.manifest import Clip, read_list
from microaction.clips.sample import Sampling
from microaction.clips.skeletons import ClipSkeletons
from microaction.evaluation.calibration import probabilities_of
from microaction.evaluation.metrics import measure
from microaction.models import default_label_embeddings
from microaction.synthetic import SyntheticDataset, make_dataset
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS
from microaction.training.learner import RecognitionLearner
from microaction.training.order import epoch_order, shard_of_batches
from microaction.training.recognition_loop import augmentation_of
from microaction.training.run import with_embedding_dim
from microaction.training.settings import TrainSettings
from tests.benchmarks.ablation import (
    EVEN,
    NUM_CLIPS,
    NUM_SUBJECTS,
    NUM_VAL_CLIPS,
    NUM_VAL_SUBJECTS,
    SCORES,
    SEEDS,
    decoded,
    spread,
)
from tests.benchmarks.timing import console, cpu_name

TRAIN_S = 60.0  # core-seconds of training
LABELS = tuple(
    number for part in range(len(BODY_PARTS)) for number in np.flatnonzero(np.array(BODY_PART_OF) == part)[:2]
)
NUM_DRAWS = 4  # of random frames and crops of each clip to train on
MEASURED_STEPS = 4
BATCH_SIZE = 8
SIDE = 64
FRAMES = {"short_side": SIDE, "crop": SIDE, "sampling": "uniform"}
PEOPLE = {"short_side": SIDE, "crop": SIDE, "fit": "people", "sampling": "bins"}
SGD = {"learning_rate": 0.005, "base_batch_size": BATCH_SIZE}
ADAMW = {"optimizer": "adamw", "learning_rate": 1e-3, "base_batch_size": BATCH_SIZE, "weight_decay": 0.05}
RESNET = {"width": 24, "depths": (1, 1, 1, 1), "num_frames": 4, "dropout": 0.0}
RESNET_3D = {"width": 16, "depths": (1, 1, 1, 1), "num_frames": 8, "dropout": 0.0}
VIT = {"width": 96, "depth": 4, "num_heads": 4, "side": SIDE, "num_frames": 8, "dropout": 0.0}
PCAN = {"rgb_width": 16, "pose_width": 8, "rgb_depths": (1, 1, 1, 1), "pose_depths": (1, 1, 1), "num_frames": 4}


@dataclass(frozen=True)
class Variant:
    """A network at reduced size, how it is trained, and what is published for the large one on MA-52 (top-1, F1 mean)."""

    title: str
    model: dict[str, Any]
    recipe: dict[str, Any] = field(default_factory=lambda: SGD)
    preprocessing: dict[str, Any] = field(default_factory=lambda: FRAMES)
    published: str = ""


def hierarchical(variant: Variant) -> Variant:
    return Variant(
        f"{variant.title}, hierarchical head",
        variant.model | {"head": "hierarchical"},
        variant.recipe,
        variant.preprocessing,
    )


FAMILIES = {
    "manet": Variant("MANet", {"preset": "manet"} | RESNET, published="61.33, 65.59"),
    "tsm": Variant("TSM", {"preset": "tsm"} | RESNET, published="56.75, 61.39"),
    "tsn": Variant("TSN", {"preset": "tsn"} | RESNET, published="34.46, 43.67"),
    "tin": Variant("TIN", {"preset": "tin-r50"} | RESNET | {"width": 32}, published="52.81, 58.22"),
    "c3d": Variant("C3D", {"preset": "c3d", "width": 8, "hidden": 64, "side": SIDE}, published="52.22, 58.43"),
    "i3d": Variant("I3D", {"preset": "i3d-r50"} | RESNET_3D, published="57.07, 61.66"),
    "slowfast": Variant("SlowFast 8×8", {"preset": "slowfast-r50-8x8"} | RESNET_3D, published="59.60, 63.09"),
    "swin": Variant(
        "Video Swin",
        {"preset": "video-swin-t", "width": 24, "depths": (2, 2), "num_heads": (2, 4), "num_frames": 8, "dropout": 0.0},
        ADAMW,
        published="57.23, 61.24",
    ),
    "timesformer": Variant("TimeSformer", {"preset": "timesformer"} | VIT, ADAMW, published="40.67, 51.53"),
    "uniformer": Variant(
        "UniFormer",
        {
            "preset": "uniformer-s",
            "widths": (16, 32, 64, 64),
            "depths": (1, 1, 2, 1),
            "head_width": 16,
            "num_frames": 8,
            "dropout": 0.0,
        },
        ADAMW,
        published="58.89, 64.43",
    ),
    "vit": Variant("VideoMAE's ViT", {"preset": "vit-s"} | VIT, ADAMW),
    "pcan-rgb": Variant(
        "PCAN's RGB path",
        {"preset": "pcan-rgb", "width": 16, "depths": (1, 1, 1, 1), "num_frames": 4, "dropout": 0.0},
        SGD,
        PEOPLE,
    ),
    "pcan": Variant("PCAN", {"preset": "pcan", "dropout": 0.0} | PCAN, SGD, PEOPLE, published="66.40, 69.50"),
}
HEADS = {
    name: variant
    for chosen in ("manet", "i3d", "vit")
    for name, variant in ((chosen, FAMILIES[chosen]), (f"{chosen}-tree", hierarchical(FAMILIES[chosen])))
}
VARIANTS = FAMILIES | HEADS


def prepare(folder: Path) -> None:
    if SyntheticDataset.at(folder / "clips").val_skeletons.exists():
        return
    make_dataset(
        folder / "clips",
        num_train_subjects=NUM_SUBJECTS,
        num_val_subjects=NUM_VAL_SUBJECTS,
        num_train_clips=NUM_CLIPS[EVEN],
        num_val_clips=NUM_VAL_CLIPS,
        seed=0,
        with_skeletons=True,
    )


def settings_of(variant: Variant, seed: int) -> TrainSettings:
    sees_people = variant.preprocessing == PEOPLE
    fields = {
        "train_list": "-",
        "train_videos": "-",
        "val_list": "-",
        "val_videos": "-",
        "train_skeletons": "-" if sees_people else None,
        "val_skeletons": "-" if sees_people else None,
        "storage_path": "-",
        "name": "x",
        "model": variant.model,
        "preprocessing": variant.preprocessing,
        "recipe": {
            "batch_size": BATCH_SIZE,
            "epochs": 1,
            "schedule": "cosine",
            "warmup_epochs": 0.04,
            "crop_scales": (1.0,),
        }
        | variant.recipe,
        "seed": seed,
    }
    return with_embedding_dim(TrainSettings.model_validate(fields), default_label_embeddings())


def batches(of: TrainSettings, clips: list[Clip], skeletons: ClipSkeletons | None) -> Iterator[ClipBatch]:
    """Yields batches of training clips without an end."""
    everything = np.arange(len(clips))
    draws = [
        decoded(clips, everything, Sampling.of(of.model, of.preprocessing, augmentation_of(of, draw)), skeletons)
        for draw in range(NUM_DRAWS)
    ]
    for epoch in itertools.count():
        draw = draws[epoch % NUM_DRAWS]
        order = epoch_order(draw.target_B, of.seed, epoch, of.recipe.class_balance)
        for places in shard_of_batches(order, BATCH_SIZE, 0, 1):
            chosen = places % len(clips)
            yield ClipBatch(draw.frames_BTHWC[chosen], draw.target_B[chosen], chosen, draw.keypoints_BMTK3[chosen])


def train_step(learner: RecognitionLearner, batch: ClipBatch, step: int) -> None:
    target_B, index_B = torch.from_numpy(batch.target_B), batch.index_B.tolist()
    frames, keypoints = torch.from_numpy(batch.frames_BTHWC), torch.from_numpy(batch.keypoints_BMTK3)
    learner.train_step(frames, target_B, index_B, step, keypoints)


def train(folder: Path, name: str, seed: int) -> dict[str, float]:
    """Trains a variant on one core, and measures it."""
    torch.set_num_threads(1)
    dataset = SyntheticDataset.at(folder / "clips")
    of = settings_of(VARIANTS[name], seed)
    sides = [(dataset.train_list, dataset.train_dir), (dataset.val_list, dataset.val_dir)]
    clips, val = (
        [clip for clip in read_list(str(listed), str(videos), 52) if clip.label in LABELS] for listed, videos in sides
    )
    skeletons = None
    if of.needs_skeletons:
        skeletons = ClipSkeletons.read((clips, str(dataset.train_skeletons)), (val, str(dataset.val_skeletons)))
    embeddings_KD = default_label_embeddings()
    trial = RecognitionLearner(of, embeddings_KD, 100, torch.device("cpu"))
    source = batches(of, clips, skeletons)
    train_step(trial, next(source), 0)
    started_s = time.process_time()
    for step in range(MEASURED_STEPS):
        train_step(trial, next(source), step)
    num_steps = round(TRAIN_S * MEASURED_STEPS / (time.process_time() - started_s))
    learner = RecognitionLearner(of, embeddings_KD, num_steps, torch.device("cpu"))
    for step, batch in zip(range(num_steps), source, strict=False):
        train_step(learner, batch, step)
    sampling = Sampling.of(of.model, of.preprocessing)
    logits, body = [], []
    for places in np.array_split(np.arange(len(val)), len(val) // 16):
        batch = decoded(val, places, sampling, skeletons)
        outputs = learner.predict(torch.from_numpy(batch.frames_BTHWC), torch.from_numpy(batch.keypoints_BMTK3))
        logits.append(outputs.logits.numpy())
        if outputs.body_probabilities is not None:
            body.append(outputs.body_probabilities.numpy())
    target_N = np.array([clip.label for clip in val])
    metrics = measure(probabilities_of(np.concatenate(logits), 1.0), target_N, np.concatenate(body) if body else None)
    num_parameters = sum(parameter.numel() for parameter in learner.model.parameters())
    return metrics | {"num_steps": float(num_steps), "num_parameters": float(num_parameters)}


def result_file(folder: Path, name: str, seed: int) -> Path:
    return folder / f"family-{name}-{seed}.json"


def work(folder: Path, task: tuple[int, str]) -> None:
    seed, name = task
    result_file(folder, name, seed).write_text(json.dumps(train(folder, name, seed)))


def print_table(folder: Path, title: str, variants: dict[str, Variant]) -> None:
    columns = ("", "parameters (M)", "steps", *(name.replace("_", " ") for name in SCORES), "published on MA-52")
    table = Table(*(Column(name, no_wrap=True) for name in columns), title=title)
    for name, variant in variants.items():
        results = [json.loads(result_file(folder, name, seed).read_text()) for seed in SEEDS]
        table.add_row(
            variant.title,
            f"{results[0]['num_parameters'] / 1e6:.2f}",
            f"{np.mean([result['num_steps'] for result in results]):.0f}",
            *(spread([result[score] for result in results]) for score in SCORES),
            variant.published,
        )
    console.print(table)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "ablation")
    prepare(folder)
    tasks = [each for each in itertools.product(SEEDS, VARIANTS) if not result_file(folder, each[1], each[0]).exists()]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for (seed, name), _ in zip(tasks, pool.map(work, [folder] * len(tasks), tasks), strict=True):
            console.print(f"trained {name}, seed {seed}")
    console.print(
        f"percent, mean ± standard deviation over seeds {SEEDS}; {TRAIN_S:.0f} core-seconds of training each, from random "
        f"weights, on {NUM_CLIPS[EVEN] * len(LABELS) // len(ACTIONS)} drawn clips of {len(LABELS)} actions · {cpu_name()}"
    )
    print_table(folder, "Networks at reduced size, on drawn people that none has seen", FAMILIES)
    print_table(folder, "Plain and hierarchical heads", HEADS)


if __name__ == "__main__":
    main()
