"""What each part of the model and of the recipe is worth: trained equally long, measured on people that none has seen.

`python -m tests.benchmarks.ablation [FOLDER]` draws the clips into FOLDER (`ablation`), trains every variant with every seed,
one process per core, and prints a table. An hour and a half on 2 cores; started again it goes on. Nothing of Ray is in it:
the learner, the order of the clips and their sampling are those of `jobs.train`.
"""

import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Column, Table

from microaction.cli.demo_training import RECIPE, SMALL_MODEL, SMALL_PIXELS
from microaction.clips.ingest import ClipBatch
from microaction.clips.manifest import Clip, read_list
from microaction.clips.sample import Augmentation, Sampling, decode_clip
from microaction.clips.skeletons import ClipSkeletons
from microaction.evaluation.calibration import expected_calibration_error, fit_temperature, probabilities_of
from microaction.evaluation.metrics import measure
from microaction.models import default_label_embeddings
from microaction.skeletons import Skeleton
from microaction.synthetic import make_dataset
from microaction.training.learner import RecognitionLearner
from microaction.training.order import epoch_order, shard_of_batches, steps_per_epoch
from microaction.training.recognition_loop import augmentation_of
from microaction.training.settings import TrainSettings
from microaction.video import Framing, decode_frames, probe
from microaction.video.proxy import encode_proxy
from tests.benchmarks.timing import console, cpu_name

SEEDS = (0, 1, 2)
NUM_SUBJECTS = 80
NUM_VAL_CLIPS, NUM_VAL_SUBJECTS = 624, 24
EPOCHS = 8
EVEN, UNEVEN, MORE = "even", "uneven", "more"  # lists of clips to train on
NUM_CLIPS = {EVEN: 1300, MORE: 2600}
MOST, FEWEST = 25, 1  # clips of the commonest and the rarest action of the uneven list; MA-52 has 1283 and 6
SCORES = ("action_top1", "body_top1", "action_f1_macro", "f1_mean")
MOVES = ("action_top1", "moved_action_top1")
MOVED = Augmentation(0, 0, (1.0,), part_shift=0.1, part_scale=0.15)  # how far crops of people are off, at most
CALIBRATION = ("raw_error", "calibrated_error", "body_top1", "body_top1_summed")


@dataclass(frozen=True)
class Variant:
    """What is trained otherwise than MANet with the recipe, and on which list."""

    title: str
    model: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    train_list: str = EVEN


MANET = Variant("MANet: excitation, shift, joint embedding")
MODELS = {
    "manet": MANET,
    "no-embedding": Variant("… cross-entropy only", {"joint_embedding": False}),
    "no-se": Variant("… without excitation", {"se": False}),
    "tsm": Variant("TSM: shift alone", {"se": False, "joint_embedding": False}),
    "tsn": Variant("TSN: none of them", {"se": False, "shift": False, "joint_embedding": False}),
}
MODELS_OF_MORE = {f"{name}-more": replace(variant, train_list=MORE) for name, variant in MODELS.items()}
OPTIONS = {
    "step": Variant("reference's step schedule, no warm-up", recipe={"schedule": "step", "warmup_epochs": 0.0}),
    "smoothing": Variant("label smoothing 0.1", recipe={"label_smoothing": 0.1}),
    "ema": Variant("average of weights, 0.99", recipe={"ema_decay": 0.99}),
    "bf16": Variant("bfloat16", recipe={"precision": "bf16"}),
}
BATCH_NORMS = {
    "parts-of-2": Variant("statistics of 2 clips, as 4 processes have them", recipe={"micro_batch_size": 2}),
    "parts-of-1": Variant("statistics of 1 clip, as 8 processes have them", recipe={"micro_batch_size": 1}),
}
MOVING = {
    "moving": Variant(
        "shifted by at most 0.1 and scaled by at most 1.15",
        recipe={"part_shift": 0.1, "part_scale": 0.15},
        train_list=MORE,
    ),
}
BALANCE = {
    "uneven": Variant("every clip once an epoch", train_list=UNEVEN),
    "uneven-half": Variant("class balance 0.5", recipe={"class_balance": 0.5}, train_list=UNEVEN),
    "uneven-full": Variant("class balance 1", recipe={"class_balance": 1.0}, train_list=UNEVEN),
}
TABLES = {
    f"Models, {EPOCHS} epochs of {NUM_CLIPS[MORE]} clips": MODELS_OF_MORE,
    f"Models, {EPOCHS} epochs of {NUM_CLIPS[EVEN]} clips": MODELS,
    "Options of the recipe (the first row is MANet as above: cosine schedule, warm-up)": {"manet": MANET} | OPTIONS,
    "Batch norms (the first row: statistics of the 8 clips of a batch, as one process or synchronized ones have them)": {
        "manet": MANET
    }
    | BATCH_NORMS,
    "Random shift and scale of the person (the first row: none)": {"manet-more": MODELS_OF_MORE["manet-more"]} | MOVING,
    f"Uneven classes: {MOST} to {FEWEST} clips per action": BALANCE,
}
VARIANTS = {name: variant for variants in TABLES.values() for name, variant in variants.items()}


def prepare(folder: Path) -> None:
    """Draws the clips, encodes their proxies and writes the lists; the fewer clips are among the more."""
    proxies = folder / "proxies"
    proxies.mkdir(parents=True, exist_ok=True)
    for name, num_clips in NUM_CLIPS.items():
        if (folder / f"{name}.txt").exists():
            continue
        dataset = make_dataset(
            folder / "clips",
            num_train_subjects=NUM_SUBJECTS,
            num_val_subjects=NUM_VAL_SUBJECTS,
            num_train_clips=num_clips,
            num_val_clips=NUM_VAL_CLIPS,
            seed=0,
        )
        train = read_list(str(dataset.train_list), str(dataset.train_dir), 52)
        val = read_list(str(dataset.val_list), str(dataset.val_dir), 52)
        for clip in (*train, *val):
            if not (proxies / clip.name).exists():
                (proxies / clip.name).write_bytes(encode_proxy(Path(clip.uri), SMALL_PIXELS.short_side).data)
        if name == EVEN:
            (folder / "val.txt").write_text(lines(val))
            (folder / f"{UNEVEN}.txt").write_text(lines(uneven(train)))
        (folder / f"{name}.txt").write_text(lines(train))


def uneven(clips: list[Clip]) -> list[Clip]:
    """Of each action fewer clips than of the one before, in an order of actions that hangs on no body part."""
    rank = np.random.default_rng(0).permutation(52)
    quota = np.round(MOST * (FEWEST / MOST) ** (rank / 51)).astype(int)
    kept, taken = [], np.zeros(52, int)
    for clip in clips:
        if taken[clip.label] < quota[clip.label]:
            taken[clip.label] += 1
            kept.append(clip)
    return kept


def lines(clips: list[Clip]) -> str:
    return "".join(f"{clip.name} {clip.label}\n" for clip in clips)


def train(folder: Path, name: str, seed: int) -> dict[str, float]:
    """Trains a variant on one core, and measures it after its last epoch."""
    torch.set_num_threads(1)
    variant = VARIANTS[name]
    embeddings_KD = default_label_embeddings()
    model = SMALL_MODEL.model_copy(update={"embedding_dim": embeddings_KD.shape[1]} | variant.model)
    clips = read_list(str(folder / f"{variant.train_list}.txt"), str(folder / "proxies"), 52)
    # As many steps on the uneven list as on the even one, which is longer.
    epochs = round(EPOCHS * NUM_CLIPS[EVEN] / len(clips)) if variant.train_list == UNEVEN else EPOCHS
    settings = TrainSettings(
        train_list="-",
        train_videos="-",
        val_list="-",
        val_videos="-",
        storage_path="-",
        name=name,
        model=model,
        preprocessing=SMALL_PIXELS,
        recipe=RECIPE.model_copy(update={"epochs": epochs} | variant.recipe),
        seed=seed,
    )
    num_steps = steps_per_epoch(len(clips), settings.recipe.batch_size)
    learner = RecognitionLearner(settings, embeddings_KD, num_steps, torch.device("cpu"))
    for epoch in range(epochs):
        order = epoch_order(np.array([clip.label for clip in clips]), seed, epoch, settings.recipe.class_balance)
        sampling = Sampling.of(model, SMALL_PIXELS, augmentation_of(settings, epoch))
        shares = shard_of_batches(order, settings.recipe.batch_size, 0, 1)
        for step, places in enumerate(shares, start=epoch * num_steps):
            batch = decoded(clips, places, sampling)
            target_B = torch.from_numpy(batch.target_B)
            learner.train_step(torch.from_numpy(batch.frames_BTHWC), target_B, batch.index_B.tolist(), step)
    val = read_list(str(folder / "val.txt"), str(folder / "proxies"), 52)
    sampling, target_N = Sampling.of(model, SMALL_PIXELS), np.array([clip.label for clip in val])

    def logits_of(frames_of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        batches = np.array_split(np.arange(len(val)), len(val) // 16)
        return np.concatenate(
            [learner.predict(torch.from_numpy(frames_of(places))).logits.numpy() for places in batches]
        )

    logits_NK = logits_of(lambda places: decoded(val, places, sampling).frames_BTHWC)
    moved_NK = logits_of(lambda places: moved_frames(val, places, sampling))
    moved = {"moved_action_top1": measure(probabilities_of(moved_NK, 1.0), target_N)["action_top1"]}
    return calibrated_metrics(logits_NK, target_N) | moved


def moved_frames(clips: list[Clip], places: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Return the frames of clips that are framed as crops of people are: not quite right, each in its own way."""
    samples = []
    for place in places:
        data = Path(clips[place].uri).read_bytes()
        video = probe(data)
        part = MOVED.part(None, video.width, video.height, np.random.default_rng(place))
        indices = sampling.indices(sampling.num_frames, video.num_frames, None)
        framing = Framing.of(sampling.preprocessing, part)
        samples.append(decode_frames(data, indices.tolist(), transform=framing.square))
    return np.stack(samples)


def calibrated_metrics(logits_NK: np.ndarray, target_N: np.ndarray) -> dict[str, float]:
    """Metrics, and the calibration error without and with a temperature that was fitted on the clips of other places."""
    raw_NK, calibrated_NK = probabilities_of(logits_NK, 1.0), np.empty_like(logits_NK)
    for fitted_on, used_on in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        temperature = fit_temperature(logits_NK[fitted_on], target_N[fitted_on])
        calibrated_NK[used_on] = probabilities_of(logits_NK[used_on], temperature)
    errors = {
        "raw_error": expected_calibration_error(raw_NK, target_N),
        "calibrated_error": expected_calibration_error(calibrated_NK, target_N),
    }
    return measure(raw_NK, target_N) | errors


def decoded(
    clips: list[Clip], places: np.ndarray, sampling: Sampling, skeletons: ClipSkeletons | None = None
) -> ClipBatch:
    samples = []
    for place in places:
        clip = clips[place % len(clips)]
        skeleton = None if skeletons is None else Skeleton.from_bytes(skeletons.packed(clip))
        samples.append(decode_clip(clip.uri, int(place), sampling, skeleton=skeleton))
    index_B = places % len(clips)
    return ClipBatch(
        np.stack([sample.frames_THWC for sample in samples]),
        np.array([clips[index].label for index in index_B]),
        index_B,
        np.stack([sample.keypoints_MTK3 for sample in samples]),
    )


def work(folder: Path, task: tuple[str, int]) -> None:
    name, seed = task
    result = train(folder, name, seed)
    (folder / f"{name}-{seed}.json").write_text(json.dumps(result))


def left_to_do(folder: Path) -> Iterator[tuple[str, int]]:
    for seed in SEEDS:
        for name in VARIANTS:
            if not (folder / f"{name}-{seed}.json").exists():
                yield name, seed


def print_tables(folder: Path) -> None:
    for title, variants in TABLES.items():
        print_table(folder, title, variants, MOVES if variants.keys() & MOVING.keys() else SCORES)
    title = "Expected calibration error without and with a temperature; body parts by likeliest action and summed"
    print_table(folder, title, MODELS_OF_MORE, CALIBRATION)


def print_table(folder: Path, title: str, variants: dict[str, Variant], columns: Sequence[str]) -> None:
    table = Table(Column("", no_wrap=True), *(Column(name.replace("_", " ")) for name in columns), title=title)
    for name, variant in variants.items():
        results = [json.loads((folder / f"{name}-{seed}.json").read_text()) for seed in SEEDS]
        table.add_row(variant.title, *(spread([result[column] for result in results]) for column in columns))
    console.print(table)


def spread(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "ablation")
    prepare(folder)
    tasks = list(left_to_do(folder))
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for (name, seed), _ in zip(tasks, pool.map(work, [folder] * len(tasks), tasks), strict=True):
            console.print(f"trained {name}, seed {seed}")
    console.print(f"percent, mean ± standard deviation over seeds {SEEDS} · {cpu_name()}")
    print_tables(folder)


if __name__ == "__main__":
    main()
