"""The pipeline: plan → decode (CPU tasks, 1:1) → label (actors that hold the model, 1:1) → commit (1:1).

A row is a chunk all the way. Decode tasks emit each needed frame once, as uint8 of the model's size, and a table window →
frames; actors normalise and classify on the device; a commit writes its block's rows to the ledger at once.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
from ray.util.annotations import RayDeprecationWarning

from microaction.clips.manifest import region_of
from microaction.config import LabelSettings, ModelConfig, Preprocessing
from microaction.labeling.ledger import commit
from microaction.labeling.plan import BLOCK_MAX_CHUNKS
from microaction.model import load_checkpoint
from microaction.schema import COMMITTED_CHUNK, REGION_COLUMNS
from microaction.video import ChunkFrames, DecodeError, Framing, decode_chunk
from microaction.video.av_backend import DECODER
from microaction.video.sandbox import Limits, sandboxed
from microaction.video.windows import Span, microseconds, split_windows

# Not a whole CPU: Ray Data would fuse tasks into actors that ask for the same resources, and decode one by one in them.
DECODE_CPUS = 0.9
COMMIT_CPUS = 0.1  # it waits for storage
DECODE_MAX_RETRIES = 1  # a chunk that kills its worker twice is dropped here, then tried alone
LEAST_DECODE_TIME_S = 30  # for the shortest clip, on a machine that has other things to do too
NO_PROGRESS_TIMEOUT_S = 600


@dataclass(frozen=True)
class Decoder:
    """The decode stage: adds a chunk's frames and windows to its row, and the reason where some or all are missing.

    Decoding happens in a process of its own (`sandbox`): what a file does to it costs this chunk alone.
    """

    window_us: int
    stride_us: int
    num_segments: int
    preprocessing: Preprocessing
    limits: Limits  # of a whole chunk of the grid
    chunk_us: int
    decode: ClassVar[Callable[..., ChunkFrames]] = staticmethod(decode_chunk)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        chunk = Span(row["chunk_start_us"], row["chunk_end_us"])
        windows = split_windows(row["duration_us"], self.window_us, self.stride_us, chunk)
        crop, T = self.preprocessing.crop, self.num_segments
        pixels = ChunkFrames(np.empty((0, crop, crop, 3), np.uint8), np.full((len(windows), T), -1, np.int32))
        error, reason = "", ""
        if windows:
            try:
                region = region_of(row)
                pixels = sandboxed(
                    row["video"],
                    self._limits_of(chunk),
                    self.decode,
                    row["video"],
                    chunk,
                    windows,
                    num_segments=T,
                    framing=Framing.of(self.preprocessing, region),
                )
                error, reason = DecodeError.__name__ if pixels.damage else "", pixels.damage
            except DecodeError as failure:
                error, reason = type(failure).__name__, failure.reason
            except ValueError as failure:  # a region that does not lie inside the video's frames
                error, reason = type(failure).__name__, str(failure)
            except Exception as failure:  # nothing in one file may cost another its row
                error, reason = type(failure).__name__, f"unexpected: {failure}"
        is_whole = (pixels.window_frames_WT >= 0).all(axis=1)
        return {name: value for name, value in row.items() if name not in REGION_COLUMNS} | {
            "decoder": DECODER,
            "window_start_us": np.array([window.start_us for window in windows], np.int64)[is_whole],
            "window_end_us": np.array([window.end_us for window in windows], np.int64)[is_whole],
            "frames": pixels.frames_NHWC,
            "window_frames": pixels.window_frames_WT[is_whole],
            "error": error,
            "reason": reason,
        }

    def _limits_of(self, chunk: Span) -> Limits:
        """Less time for less video: a block of many short clips must not stall for as many times the limit."""
        share_s = self.limits.time_s * (chunk.end_us - chunk.start_us) / self.chunk_us
        return replace(self.limits, time_s=min(self.limits.time_s, max(share_s, LEAST_DECODE_TIME_S)))


class Labeler:
    """The label stage: an actor that holds the model and turns each chunk's frames into its windows' probabilities."""

    def __init__(self, model_uri: str, batch_windows: int, num_threads: int) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.device == "cpu":
            torch.set_num_threads(num_threads)
        self.checkpoint = load_checkpoint(model_uri, device=self.device)
        self.batch_windows = batch_windows

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """`batch` holds chunks; windows of all of them share forward passes."""
        windows = [
            frames[index_T]
            for frames, index_WT in zip(batch["frames"], batch["window_frames"], strict=True)
            for index_T in index_WT
        ]
        probabilities = iter(self._classify(windows))
        rows = []
        for i in range(len(batch["chunk_id"])):
            failed = bool(batch["error"][i])
            rows.append(
                {name: batch[name][i] for name in COMMITTED_CHUNK.names if name in batch}
                | {
                    "probabilities": [next(probabilities) for _ in batch["window_frames"][i]],
                    "stage": "decode" if failed else None,
                    "error": batch["error"][i] if failed else None,
                    "reason": batch["reason"][i] if failed else None,
                }
            )
        return pa.Table.from_pylist(rows, schema=COMMITTED_CHUNK)

    def _classify(self, windows_THWC: list[np.ndarray]) -> Iterator[np.ndarray]:
        for start in range(0, len(windows_THWC), self.batch_windows):
            frames_BTHWC = torch.from_numpy(np.stack(windows_THWC[start : start + self.batch_windows]))
            yield from self.checkpoint.classify(frames_BTHWC.to(self.device)).cpu().numpy()


@dataclass(frozen=True)
class Committer:
    """The commit stage: writes a block of labelled chunks to the ledger and passes on only what progress needs."""

    out: str

    def __call__(self, rows: pa.Table) -> pa.Table:
        commit(self.out, rows)
        num_windows = [len(starts) for starts in rows["window_start_us"].to_pylist()]
        return rows.select(["chunk_id", "chunk_start_us", "chunk_end_us", "error"]).append_column(
            "num_windows", pa.array(num_windows, pa.int64())
        )


def label_blocks(
    blocks: list[pa.Table], settings: LabelSettings, model: ModelConfig, preprocessing: Preprocessing
) -> Iterator[pa.Table]:
    """Runs the pipeline over blocks of chunks; yields a small table for each block that is committed.

    A block whose decoding kills its worker is lost without a trace here: compare with the ledger afterwards.
    """
    decoder = Decoder(
        microseconds(settings.window_s),
        microseconds(settings.stride_s),
        model.num_segments,
        preprocessing,
        Limits(settings.decode_timeout_s, int(settings.decode_memory_gib * 2**30)),
        microseconds(settings.chunk_s),
    )
    labeler_cpus, labeler_gpus = labeler_resources(settings.num_labelers)
    with warnings.catch_warnings():
        # max_retries has no parameter of its own yet; without it a chunk that kills its worker is tried for ever.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        chunks = ray.data.from_arrow(blocks)
        configure(chunks.context, settings.decode_timeout_s)
        decoded = chunks.map(decoder, compute=TaskPoolStrategy(), num_cpus=DECODE_CPUS, max_retries=DECODE_MAX_RETRIES)
    labelled = decoded.map_batches(
        Labeler,
        fn_constructor_args=(settings.model, settings.batch_windows, max(1, int(labeler_cpus))),
        batch_size=None,  # a block as it is: a view of the object store, not a copy
        batch_format="numpy",
        compute=ActorPoolStrategy(size=settings.num_labelers),
        num_cpus=labeler_cpus,
        num_gpus=labeler_gpus,
    ).map_batches(Committer(settings.out), batch_size=None, batch_format="pyarrow", num_cpus=COMMIT_CPUS)
    yield from labelled.iter_batches(batch_size=None, batch_format="pyarrow")


def labeler_resources(num_labelers: int) -> tuple[float, float]:
    """CPUs and GPUs of one labelling actor: a GPU where the cluster has any, else half of all CPUs shared out."""
    available = ray.cluster_resources()
    if available.get("GPU", 0) > 0:
        return 1.0, 1.0
    return max(1.0, available.get("CPU", 1) // 2 / num_labelers), 0.0


def configure(context: DataContext, decode_timeout_s: float) -> None:
    """Sets one pipeline up so that a lost block does not end it, being found missing afterwards, and a stall does.

    The context is the dataset's own: the process's would carry these settings into pipelines that must lose nothing.
    """
    context.enable_progress_bars = False  # the jobs show their own
    context.max_errored_blocks = -1
    context.execution_options.preserve_order = False
    # A block may come to nothing but decoders that are stopped one after the other.
    longest_block_s = decode_timeout_s + BLOCK_MAX_CHUNKS * LEAST_DECODE_TIME_S
    context.execution_no_progress_timeout_s = int(NO_PROGRESS_TIMEOUT_S + longest_block_s)
