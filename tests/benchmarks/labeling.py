"""Labeling 1080p and 360p interviews from end to end, compared with each stage alone and with a plain script.

python -m tests.benchmarks.labeling [--rounds 3] [--seconds 480]

The full MANet with random weights. Compiling is not counted: decoders wait until the labeler is ready. Each size is labeled
with all cores shared by both stages, as `microaction label` does without a GPU; 1080p also with one half of the cores for each
stage, which is then also measured alone on its half: what stages without a common resource lose to the pipeline. The plain
script decodes with decord per window, as comparable projects do.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import decord
import numpy as np
import pandas as pd
import ray
import torch
from rich.table import Table

from microaction.cli.app import running_ray
from microaction.distributed.resources import ClusterResources
from microaction.labeling import pipeline, prepare
from microaction.labeling.decoder import Decoder
from microaction.labeling.execution import BATCH_WINDOWS
from microaction.labeling.pipeline import LabelerActor
from microaction.labeling.pool import DECODE_CPUS, LabelerPool, labeler_pool
from microaction.labeling.run import Progress, run_labeling
from microaction.labeling.settings import LabelSettings
from microaction.models import CheckpointConfig, Inputs, ModelRef, build_model, load_checkpoint, save_checkpoint
from microaction.models.classifier import Classifier, Execution
from microaction.models.manet.config import ManetConfig
from microaction.models.normalize import normalize_frames
from microaction.preprocessing import Preprocessing
from microaction.taxonomy import ACTIONS
from microaction.video import ChunkFrames, Framing, decode_chunk
from microaction.video.sandbox import Limits, Sandbox
from microaction.video.windows import MICROSECONDS, Span, split_windows
from tests.benchmarks.timing import console, cpu_name
from tests.benchmarks.videos import write_long_video

CHUNK_S = 60
NUM_VIDEOS = 2
LARGE = (1920, 1080)
SIZES = [LARGE, (640, 360)]
PLAIN_WINDOWS = 40
STAGE_CHUNKS = 4
READY_FILE = "ready"
MODEL = ManetConfig(embedding_dim=8)
FRAMING = Framing.of(Preprocessing(), None)


class ReadyLabeler(LabelerActor):
    """Creates a file when its network is compiled."""

    def __init__(self, model: ModelRef, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        Path(model.uri).with_name(READY_FILE).touch()


class WaitingDecoder(Decoder):
    """Starts when the labeler is ready."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        while not Path(row["video"]).parents[1].joinpath(READY_FILE).exists():
            time.sleep(0.05)
        return super().__call__(row)


def num_cores() -> int:
    return int(ray.cluster_resources()["CPU"])


def pool_of_halves(settings: LabelSettings, resources: ClusterResources) -> LabelerPool:
    """Return a pool of one labeler on half of the cores, and decoders for the other half."""
    half = num_cores() // 2
    return replace(
        labeler_pool(settings, resources),
        min_size=1,
        max_size=1,
        num_cpus=half,
        num_threads=half,
        decode_cpus=DECODE_CPUS["GPU"],
        num_decoders=half,
    )


def write_inputs(root: Path, size: tuple[int, int], seconds: int) -> None:
    archive = root / "archive"
    archive.mkdir(parents=True)
    write_long_video(archive / "0.mp4", duration_s=seconds // NUM_VIDEOS, size=size, loop_s=20)
    for number in range(1, NUM_VIDEOS):
        shutil.copy(archive / "0.mp4", archive / f"{number}.mp4")
    torch.manual_seed(0)
    config = CheckpointConfig(
        model=MODEL, preprocessing=Preprocessing(), labels=ACTIONS, recipe={}, versions={}, metrics={}
    )
    save_checkpoint(build_model(MODEL), config, str(root / "model"))


def end_to_end(root: Path) -> float:
    """Return the windows per second of `microaction label`, from the moment the labeler is ready to the last commit."""
    ready = root / READY_FILE
    ready.unlink(missing_ok=True)
    last_s, num_windows = 0.0, 0

    def on_progress(progress: Progress) -> None:
        nonlocal last_s, num_windows
        if progress.stage == "label":
            last_s, num_windows = time.time(), progress.num_windows

    with tempfile.TemporaryDirectory() as out:
        settings = LabelSettings(
            archive=str(root / "archive"),
            out=out,
            model=str(root / "model"),
            chunk_s=CHUNK_S,
            compile="yes",
            people="off",
        )
        run_labeling(settings, on_progress=on_progress)
    return num_windows / (last_s - ready.stat().st_mtime)


def first_chunks(root: Path) -> list[tuple[str, Span, list[Span]]]:
    """Return the first chunks of a video and their windows."""
    starts_us = range(0, STAGE_CHUNKS * CHUNK_S * MICROSECONDS, CHUNK_S * MICROSECONDS)
    spans = [Span(start_us, start_us + CHUNK_S * MICROSECONDS) for start_us in starts_us]
    endless_us = 1 << 60
    return [
        (str(root / "archive/0.mp4"), span, split_windows(endless_us, 2 * MICROSECONDS, MICROSECONDS, span))
        for span in spans
    ]


def decoding_alone(root: Path, num_decoders: int) -> float:
    """Return windows per second, with each decoder in a process of its own."""
    sandboxes = [Sandbox(Limits()) for _ in range(num_decoders)]

    def decode(number: int, path: str, span: Span, windows: list[Span]) -> ChunkFrames:
        return sandboxes[number].call(path, decode_chunk, path, span, windows, framing=FRAMING)

    chunks = first_chunks(root)[:-1]  # windows of the last chunk would extend past the video's end
    for number in range(num_decoders):
        decode(number, *chunks[0])  # starts the process
    started_s, todo = time.perf_counter(), list(chunks) * 2
    total = sum(len(windows) for *_, windows in todo)

    def drain(number: int) -> None:
        while todo:
            decode(number, *todo.pop())

    with ThreadPoolExecutor(num_decoders) as pool:
        list(pool.map(drain, range(num_decoders)))
    taken_s = time.perf_counter() - started_s
    for sandbox in sandboxes:
        sandbox.close()
    return total / taken_s


def model_alone(root: Path, num_threads: int) -> Callable[[], float]:
    """Return a function that measures the windows per second of a labeler's network once it is compiled."""
    torch.set_num_threads(num_threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint = load_checkpoint(str(root / "model"), device=device)
    classify = Classifier(
        checkpoint, Execution("bf16", is_compiled=True), BATCH_WINDOWS["GPU" if device == "cuda" else "CPU"]
    )
    path, span, windows = first_chunks(root)[0]
    pixels = decode_chunk(path, span, windows, framing=FRAMING)
    frames, windows_WT = torch.from_numpy(pixels.frames_NHWC), torch.from_numpy(pixels.window_frames_WT).long()

    def run() -> float:
        started_s = time.perf_counter()
        classify(frames, windows_WT)
        return len(windows) / (time.perf_counter() - started_s)

    return run


def one_process(root: Path) -> float:
    """Return the windows per second of a plain script: decord per window, the network in float32, a table at the end."""
    checkpoint = load_checkpoint(str(root / "model"))
    preprocessing = checkpoint.config.preprocessing
    started_s, rows = time.perf_counter(), []
    reader = decord.VideoReader(str(root / "archive/0.mp4"))
    fps, T = reader.get_avg_fps(), MODEL.num_frames
    for start_s in range(PLAIN_WINDOWS):
        indices = [int((start_s + (i + 0.5) * 2 / T) * fps) for i in range(T)]
        frames = reader.get_batch(indices).asnumpy()
        H, W = frames.shape[1:3]
        scale = preprocessing.short_side / min(H, W)
        resized = np.stack([cv2.resize(frame, (round(W * scale), round(H * scale))) for frame in frames])
        top, left = ((length - preprocessing.crop) // 2 for length in resized.shape[1:3])
        cropped = resized[:, top : top + preprocessing.crop, left : left + preprocessing.crop]
        with torch.no_grad():
            frames_BTHWC = torch.from_numpy(cropped.copy())[None]
            logits_BK = checkpoint.model(Inputs(normalize_frames(frames_BTHWC, preprocessing))).logits
        rows.append({"start_s": start_s, "probabilities": logits_BK.softmax(1)[0].numpy()})
    pd.DataFrame(rows).to_parquet(root / "plain.parquet")
    return PLAIN_WINDOWS / (time.perf_counter() - started_s)


def medians_of(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the median windows per second of each way; the ways take turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(way())
    return {name: statistics.median(each) for name, each in taken.items()}


def print_windows_per_s(title: str, rates: dict[str, float]) -> None:
    first = next(iter(rates.values()))
    table = Table("way", "windows/s", "relative to the first", title=f"{title}, the full MANet · {cpu_name()}")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.2f}", f"{rate / first:.2f}×")
    console.print(table)


def on_shared_cores(root: Path, size: tuple[int, int], rounds: int) -> None:
    ways: dict[str, Callable[[], float]] = {
        "one process: decord per window, float32": lambda: one_process(root),
        "decoding alone, on all cores": lambda: decoding_alone(root, num_cores()),
        "the network alone, on all cores": model_alone(root, num_cores()),
        "microaction label": lambda: end_to_end(root),
    }
    rates = medians_of(ways, rounds)
    _, decoding, network, ours = rates.values()
    together = 1 / (1 / decoding + 1 / network)
    print_windows_per_s("{}×{}".format(*size), rates)
    console.print(
        f"microaction label is at {ours / min(decoding, network):.0%} of the slower stage alone, and at {ours / together:.0%} of "
        f"what two stages that share these cores can do ({together:.2f} windows/s)"
    )


def on_separate_cores(root: Path, size: tuple[int, int], rounds: int) -> None:
    half = num_cores() // 2
    if not half:
        console.print("one core cannot be divided between the stages")
        return
    prepare.labeler_pool = pool_of_halves  # type: ignore[attr-defined]
    ways: dict[str, Callable[[], float]] = {
        "decoding alone, on half of the cores": lambda: decoding_alone(root, half),
        "the network alone, on half of the cores": model_alone(root, half),
        "microaction label, half of the cores for each": lambda: end_to_end(root),
    }
    rates = medians_of(ways, rounds)
    prepare.labeler_pool = labeler_pool  # type: ignore[attr-defined]
    *alone, ours = rates.values()
    print_windows_per_s("{}×{}".format(*size), rates)
    console.print(f"microaction label is at {ours / min(alone):.0%} of the slower stage alone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=480, help="of video in total")
    arguments = parser.parse_args()
    pipeline.Decoder, pipeline.LabelerActor = WaitingDecoder, ReadyLabeler  # type: ignore[attr-defined, misc]
    with tempfile.TemporaryDirectory() as folder, running_ray():
        for size in SIZES:
            root = Path(folder) / str(size[1])
            write_inputs(root, size, arguments.seconds)
            on_shared_cores(root, size, arguments.rounds)
            if size == LARGE:
                on_separate_cores(root, size, arguments.rounds)


if __name__ == "__main__":
    main()
