"""What a chunk costs the driver, and how long the same command takes on a finished output.

python -m tests.benchmarks.labeling_driver [--clips 100000] [--chunks 10000]

Clips share blocks, chunks of interviews fill one each. Decoding and the network are stubs that take no time: what remains is
planning, Ray Data, the ledger and publishing.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.table import Table

from microaction import storage
from microaction.cli.app import running_ray
from microaction.labeling import pipeline
from microaction.labeling.catalog import CATALOG_FILE, write_catalog
from microaction.labeling.decoder import Decoder, PersonWindow, decoded_row
from microaction.labeling.pipeline import LabelerActor
from microaction.labeling.plan import BLOCK_MAX_CHUNKS
from microaction.labeling.reuse import Windows
from microaction.labeling.run import Progress, run_labeling
from microaction.labeling.settings import LabelSettings
from microaction.models import CheckpointConfig, build_model, save_checkpoint
from microaction.models.manet.config import ManetConfig
from microaction.preprocessing import Preprocessing
from microaction.schema import CATALOG
from microaction.taxonomy import ACTIONS
from microaction.video import ChunkFrames
from microaction.video.windows import Span, split_windows
from tests.benchmarks.timing import console, cpu_name

CHUNK_S, WINDOW_S, CLIP_S = 120, 30, 2
CHUNKS_PER_VIDEO = 50


class StubDecoder(Decoder):
    """Returns one black frame for all windows."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        span = Span(row["chunk_start_us"], row["chunk_end_us"])
        spans = split_windows(row["duration_us"], self.grid.window_us, self.grid.stride_us, span)
        windows = [PersonWindow(0, span, Span(0, row["duration_us"])) for span in spans]
        crop = self.preprocessing.crop
        frames_NHWC = np.zeros((1, crop, crop, 3), np.uint8)
        pixels = ChunkFrames(frames_NHWC, np.zeros((len(windows), self.sampling.num_sampled), np.int32))
        return decoded_row(row, windows, pixels, Windows.none(), decoder="stub")


class StubLabeler(LabelerActor):
    """Gives all actions the same probability."""

    def _probabilities(
        self, frames_of_chunks: np.ndarray, windows_of_chunks: np.ndarray, keypoints_WMTK3: np.ndarray
    ) -> np.ndarray:
        num_windows = sum(len(windows) for windows in windows_of_chunks)
        return np.full((num_windows, len(ACTIONS)), 1 / len(ACTIONS), np.float32)


def write_inputs(root: Path, num_videos: int, video_s: float) -> None:
    archive = root / "archive"
    archive.mkdir(parents=True)
    for number in range(num_videos):
        (archive / f"{number:06d}.mp4").write_bytes(b"x")  # not a video, but nothing opens it
    rows = [
        {"video": file.uri, "version": file.version, "size_bytes": 1, "duration_s": video_s}
        for file in storage.list_files(str(archive))
    ]
    write_catalog(pa.Table.from_pylist(rows, schema=CATALOG), str(root / "out" / CATALOG_FILE))
    model = ManetConfig(width=8, depths=(1, 1, 1, 1), embedding_dim=8)
    pixels = Preprocessing(short_side=16, crop=16)
    config = CheckpointConfig(model=model, preprocessing=pixels, labels=ACTIONS, recipe={}, versions={}, metrics={})
    save_checkpoint(build_model(model), config, str(root / "model"))


def measure(root: Path, title: str) -> None:
    """Label the inputs twice, and print what that took."""
    settings = {"window_s": WINDOW_S, "stride_s": WINDOW_S, "precision": "fp32", "compile": "no", "people": "off"}
    locations = {"archive": str(root / "archive"), "out": str(root / "out"), "model": str(root / "model")}
    memory: list[tuple[int, float]] = []

    def on_progress(progress: Progress) -> None:
        if progress.stage == "label":
            memory.append((progress.done, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))

    with running_ray():
        started_s, cpu_s = time.perf_counter(), time.process_time()
        summary = run_labeling(LabelSettings.model_validate(locations | settings), on_progress=on_progress)
        taken_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    command = [
        sys.executable,
        "-m",
        "jobs.label",
        locations["archive"],
        locations["out"],
        f"--model={locations['model']}",
    ]
    started_s = time.perf_counter()
    subprocess.run([*command, *flags], check=True, capture_output=True)
    again_s = time.perf_counter() - started_s
    num_chunks = summary.num_chunks
    half = next(mebibytes for done, mebibytes in memory if done >= num_chunks // 2)
    table = Table(show_header=False, title=f"{num_chunks} stub chunks, {title} · {cpu_name()}")
    table.add_row("chunks labeled per second", f"{num_chunks / summary.label_s:.0f}")
    table.add_row("driver's CPU per chunk", f"{1000 * cpu_s / num_chunks:.2f} ms")
    table.add_row(
        "driver's peak memory: first, halfway, at the end", f"{memory[0][1]:.0f}, {half:.0f}, {memory[-1][1]:.0f} MiB"
    )
    table.add_row("publishing", f"{summary.publish_s:.1f} s")
    table.add_row("total", f"{taken_s:.0f} s")
    table.add_row("files of the ledger", str(len(list((root / "out/_chunks").iterdir()))))
    table.add_row("the same command again, including the start of Ray", f"{again_s:.1f} s")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--chunks", type=int, default=10_000, help="of interviews")
    arguments = parser.parse_args()
    pipeline.Decoder, pipeline.LabelerActor = StubDecoder, StubLabeler  # type: ignore[attr-defined, misc]
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder) / "clips", arguments.clips, CLIP_S)
        measure(Path(folder) / "clips", f"clips of {CLIP_S} s, up to {BLOCK_MAX_CHUNKS} a block")
        write_inputs(Path(folder) / "interviews", arguments.chunks // CHUNKS_PER_VIDEO, CHUNK_S * CHUNKS_PER_VIDEO)
        measure(Path(folder) / "interviews", f"{CHUNK_S} s each, one per block")


if __name__ == "__main__":
    main()
