"""Training beside the plain way, the share of it that is spent waiting for clips, and one process beside two.

`python -m tests.benchmarks.training [FOLDER]` draws clips and packs them into proxies in FOLDER (a temporary one). Then it
trains the demo's small model on them with `jobs.train`'s code and with a loop as a first version would have it: one process,
decord, float32, a clip after the other. The ways take turns; figures are medians. About ten minutes on 2 cores.
"""

import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import decord
import numpy as np
import torch
from rich.table import Table

from microaction.cli.app import running_ray
from microaction.cli.demo_training import RECIPE, SMALL_MODEL, SMALL_PIXELS
from microaction.clips.manifest import Clip, read_list
from microaction.clips.pack import pack_clips
from microaction.clips.settings import PackSettings
from microaction.models import JointEmbeddingLoss, build_model, default_label_embeddings
from microaction.synthetic import make_dataset
from microaction.training.run import run_training
from microaction.training.settings import TrainSettings
from tests.benchmarks.timing import console, cpu_name

NUM_CLIPS, NUM_VAL_CLIPS, NUM_SUBJECTS = 1040, 52, 40
PLAIN_CLIPS = 400
ROUNDS = 3
EPOCHS = 3


def prepare(folder: Path) -> None:
    dataset = make_dataset(
        folder / "clips",
        num_train_subjects=NUM_SUBJECTS,
        num_val_subjects=NUM_SUBJECTS // 4,
        num_train_clips=NUM_CLIPS,
        num_val_clips=NUM_VAL_CLIPS,
        seed=0,
    )
    sides = {"train": (dataset.train_list, dataset.train_dir), "val": (dataset.val_list, dataset.val_dir)}
    for side, (clips_list, videos) in sides.items():
        short_side = SMALL_PIXELS.short_side
        pack_clips(
            PackSettings(clips_list=str(clips_list), videos=str(videos), out=str(folder / side), short_side=short_side)
        )


def train(folder: Path, videos: str, num_workers: int, turn: int) -> dict[str, float]:
    """Clips per second, and which share of the time was spent waiting for clips: in the first epoch, and in the others."""
    name = f"{videos}-{num_workers}-{turn}"
    train_videos = {"proxies": folder / "train/videos", "originals": folder / "clips/train"}[videos]
    run_training(
        TrainSettings(
            train_list=str(folder / "train/list.txt"),
            train_videos=str(train_videos),
            val_list=str(folder / "val/list.txt"),
            val_videos=str(folder / "val/videos"),
            storage_path=str(folder / "runs"),
            name=name,
            model=SMALL_MODEL,
            preprocessing=SMALL_PIXELS,
            recipe=RECIPE.model_copy(update={"epochs": EPOCHS}),
            num_workers=num_workers,
        )
    )
    lines = [json.loads(line) for line in (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    first, *others = (line["timing"] for line in lines)
    others_s = sum(timing["train_s"] for timing in others)
    return {
        "clips_per_s": len(others) * NUM_CLIPS / others_s,
        "first": first["data_wait_fraction"],
        "others": sum(timing["data_wait_fraction"] * timing["train_s"] for timing in others) / others_s,
    }


def train_plainly(clips: list[Clip]) -> dict[str, float]:
    """Clips per second of a loop without any of this project's care; it augments as the recipe does."""
    torch.manual_seed(0)
    embeddings_KD = default_label_embeddings()
    model = build_model(SMALL_MODEL.model_copy(update={"embedding_dim": embeddings_KD.shape[1]})).train()
    loss = JointEmbeddingLoss(embeddings_KD)
    optimizer = torch.optim.SGD(model.parameters(), lr=RECIPE.learning_rate, momentum=0.9, weight_decay=1e-4)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (SMALL_PIXELS.mean, SMALL_PIXELS.std))
    waited_s, started_s = 0.0, time.perf_counter()
    for start in range(0, PLAIN_CLIPS, RECIPE.batch_size):
        batch = [clips[number % len(clips)] for number in range(start, start + RECIPE.batch_size)]
        before_s = time.perf_counter()
        frames_BTHWC = np.stack([plainly_decoded(clip.uri) for clip in batch])
        waited_s += time.perf_counter() - before_s
        frames_BTCHW = (torch.from_numpy(frames_BTHWC).permute(0, 1, 4, 2, 3).float().contiguous() - mean) / std
        optimizer.zero_grad()
        logits_BK, embedding_BD = model(frames_BTCHW)
        loss(logits_BK, embedding_BD, torch.tensor([clip.label for clip in batch])).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 20)
        optimizer.step()
    taken_s = time.perf_counter() - started_s
    share = waited_s / taken_s
    return {"clips_per_s": PLAIN_CLIPS / taken_s, "first": share, "others": share}


def plainly_decoded(path: str) -> np.ndarray:
    reader = decord.VideoReader(path, num_threads=1)
    borders = np.linspace(0, len(reader), SMALL_MODEL.num_frames + 1).astype(int)
    chosen = [random.randrange(start, max(start + 1, end)) for start, end in itertools.pairwise(borders)]
    frames = reader.get_batch(chosen).asnumpy()
    scale = SMALL_PIXELS.short_side / min(frames.shape[1:3])
    size = round(frames.shape[2] * scale), round(frames.shape[1] * scale)
    resized = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in frames])
    top, left = (random.randrange(length - SMALL_PIXELS.crop + 1) for length in resized.shape[1:3])
    cropped = resized[:, top : top + SMALL_PIXELS.crop, left : left + SMALL_PIXELS.crop]
    return cropped[:, :, ::-1].copy() if random.random() < 0.5 else cropped


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary, running_ray():
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).absolute()
        prepare(folder)
        originals = read_list(str(folder / "train/list.txt"), str(folder / "clips/train"), 52)
        ways: dict[str, Callable[[int], dict[str, float]]] = {
            "plain loop: decord, float32, one process": lambda turn: train_plainly(originals),
            "jobs.train, 1 process, originals": lambda turn: train(folder, "originals", 1, turn),
            "jobs.train, 1 process, proxies": lambda turn: train(folder, "proxies", 1, turn),
            "jobs.train, 2 processes, proxies": lambda turn: train(folder, "proxies", 2, turn),
        }
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for turn in range(ROUNDS):
            for name, way in ways.items():
                measured[name].append(way(turn))
    medians = {
        name: {key: statistics.median(each[key] for each in turns) for key in turns[0]}
        for name, turns in measured.items()
    }
    plain = next(iter(medians.values()))["clips_per_s"]
    title = f"Training the demo's small model, {NUM_CLIPS} clips an epoch · {cpu_name()}"
    table = Table("way", "clips/s", "times the first", "waiting, 1st epoch", "waiting, others", title=title)
    for name, each in medians.items():
        table.add_row(
            name,
            f"{each['clips_per_s']:.1f}",
            f"{each['clips_per_s'] / plain:.2f}×",
            f"{each['first']:.1%}",
            f"{each['others']:.1%}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
