"""The pipeline: plan → decode (CPU tasks, 1:1) → label (actors that hold the model, 1:1) → commit (1:1).

A row is a chunk all the way. Decode tasks emit each needed frame once, as uint8 of the model's size, and a table window →
frames; actors normalise and classify on the device; a commit writes its block's rows to the ledger at once.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy, DataContext, ExecutionResources, TaskPoolStrategy
from ray.util.annotations import RayDeprecationWarning
from ray.util.metrics import Counter, Gauge

from microaction.clips.ingest import Unhurried
from microaction.clips.manifest import region_of
from microaction.config import LabelSettings, Preprocessing
from microaction.labeling.earlier import Keeper, Windows
from microaction.labeling.ledger import commit
from microaction.labeling.plan import BLOCK_MAX_CHUNKS, BLOCK_VIDEO_US
from microaction.machines import machines
from microaction.model import CheckpointConfig, load_checkpoint
from microaction.model.classifier import Classifier, Execution
from microaction.schema import COMMITTED_CHUNK, NOT_COMMITTED
from microaction.storage import StorageError
from microaction.video import ChunkFrames, DecodeError, Framing, decode_chunk
from microaction.video.av_backend import DECODER
from microaction.video.sandbox import Limits, sandboxed
from microaction.video.windows import MICROSECONDS, Span, microseconds, split_windows

# Never as much as a labeler: Ray Data would fuse tasks into actors that ask for the same resources, and decode one by one
# in them. Beside labelers on CPUs there is a decoder for every core too: whichever stage is slower has what the other leaves.
DECODE_CPUS = {"cuda": 0.9, "cpu": 0.7}
COMMIT_CPUS = 0.05  # it waits for storage
DECODE_MAX_RETRIES = 1  # a chunk that kills its worker twice is dropped here, then tried alone
LEAST_DECODE_TIME_S = 30  # for the shortest clip, on a machine that has other things to do too
NO_PROGRESS_TIMEOUT_S = 600
BATCH_WINDOWS = {"cuda": 64, "cpu": 8}
CPUS_PER_LABELER = 8
BUSY_SHARE_OVER_S = 60
BLOCKS_PER_LABELER = 4  # one at work, and some on their way


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
    keeper: Keeper | None
    decode: ClassVar[Callable[..., ChunkFrames]] = staticmethod(decode_chunk)

    @classmethod
    def of(cls, settings: LabelSettings, checkpoint: CheckpointConfig, keeper: Keeper | None) -> Self:
        return cls(
            microseconds(settings.window_s),
            microseconds(settings.stride_s),
            checkpoint.model.num_segments,
            checkpoint.preprocessing,
            Limits(settings.decode_timeout_s, int(settings.decode_memory_gib * 2**30)),
            microseconds(settings.chunk_s),
            keeper,
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        chunk = Span(row["chunk_start_us"], row["chunk_end_us"])
        windows = split_windows(row["duration_us"], self.window_us, self.stride_us, chunk)
        crop, T = self.preprocessing.crop, self.num_segments
        kept, pixels = Windows.none(), None
        error, reason = "", ""
        try:
            if self.keeper is not None:
                kept = self.keeper.kept(row)
                starts_us = set(kept.start_us_W.tolist())
                windows = [window for window in windows if window.start_us not in starts_us]
            if windows:
                pixels = sandboxed(
                    row["video"],
                    self._limits_of(chunk),
                    self.decode,
                    row["video"],
                    chunk,
                    windows,
                    num_segments=T,
                    framing=Framing.of(self.preprocessing, region_of(row)),
                )
                error, reason = DecodeError.__name__ if pixels.damage else "", pixels.damage
        except DecodeError as failure:
            error, reason = type(failure).__name__, failure.reason
        except (
            ValueError,
            StorageError,
        ) as failure:  # ValueError: a region that does not lie inside the video's frames
            error, reason = type(failure).__name__, str(failure)
        except Exception as failure:  # nothing in one file may cost another its row
            error, reason = type(failure).__name__, f"unexpected: {failure}"
        if pixels is None:
            pixels = ChunkFrames(np.empty((0, crop, crop, 3), np.uint8), np.full((len(windows), T), -1, np.int32))
        return decoded_row(row, windows, pixels, kept, error=error, reason=reason)

    def _limits_of(self, chunk: Span) -> Limits:
        """Less time for less video: a block of many short clips must not stall for as many times the limit."""
        share_s = self.limits.time_s * (chunk.end_us - chunk.start_us) / self.chunk_us
        return replace(self.limits, time_s=min(self.limits.time_s, max(share_s, LEAST_DECODE_TIME_S)))


def decoded_row(
    row: dict[str, Any],
    windows: Sequence[Span],
    pixels: ChunkFrames,
    kept: Windows,
    *,
    decoder: str = DECODER,
    error: str = "",
    reason: str = "",
) -> dict[str, Any]:
    """What the label stage gets of a chunk: those of the windows of which every frame is there, and what is kept."""
    is_whole = (pixels.window_frames_WT >= 0).all(axis=1)
    return {name: value for name, value in row.items() if name not in NOT_COMMITTED} | {
        "decoder": decoder,
        "window_start_us": np.array([window.start_us for window in windows], np.int64)[is_whole],
        "window_end_us": np.array([window.end_us for window in windows], np.int64)[is_whole],
        "frames": pixels.frames_NHWC,
        "window_frames": pixels.window_frames_WT[is_whole],
        "kept_start_us": kept.start_us_W,
        "kept_end_us": kept.end_us_W,
        "kept_probabilities": kept.probabilities_WK.ravel(),
        "kept_run": kept.run_W,
        "num_bytes": pixels.num_bytes,
        "error": error,
        "reason": reason,
    }


class Labeler:
    """The label stage: an actor that holds the model and turns each chunk's frames into its windows' probabilities."""

    def __init__(self, model_uri: str, execution: Execution, batch_windows: int | None, num_threads: int) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu":
            torch.set_num_threads(min(num_threads, len(os.sched_getaffinity(0))))
        batch_size = batch_windows or BATCH_WINDOWS[device]
        self.classify = Classifier(load_checkpoint(model_uri, device=device), execution, batch_size)
        self.metrics = Metrics()

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """`batch` holds chunks; windows of all of them share forward passes."""
        started_s = time.monotonic()
        num_windows_C = [len(windows_WT) for windows_WT in batch["window_frames"]]
        probabilities_WK = self._probabilities(batch["frames"], batch["window_frames"])
        self.metrics.count(batch, busy_s=time.monotonic() - started_s)
        is_failed_C = batch["error"] != ""
        windows_C = _with_kept(batch, np.split(probabilities_WK, np.cumsum(num_windows_C)[:-1]))
        columns = {name: batch[name] for name in COMMITTED_CHUNK.names if name in batch} | {
            "num_windows": [len(windows.start_us_W) for windows in windows_C],
            "window_start_us": _lists(windows.start_us_W for windows in windows_C),
            "window_end_us": _lists(windows.end_us_W for windows in windows_C),
            "probabilities": _lists(windows.probabilities_WK for windows in windows_C),
            "window_run": _lists(windows.run_W for windows in windows_C),
            "stage": pa.array(np.full(len(is_failed_C), "decode"), pa.string(), mask=~is_failed_C),
            "error": pa.array(batch["error"], pa.string(), mask=~is_failed_C),
            "reason": pa.array(batch["reason"], pa.string(), mask=~is_failed_C),
        }
        return pa.table({name: columns[name] for name in COMMITTED_CHUNK.names}).cast(COMMITTED_CHUNK)

    def _probabilities(self, frames_of_chunks: np.ndarray, windows_of_chunks: np.ndarray) -> np.ndarray:
        offsets_C = np.cumsum([0, *(len(frames_NHWC) for frames_NHWC in frames_of_chunks)])
        frames_NHWC = frames_of_chunks[0] if len(frames_of_chunks) == 1 else np.concatenate(list(frames_of_chunks))
        windows_WT = np.concatenate(
            [windows.astype(np.int64) + offset for windows, offset in zip(windows_of_chunks, offsets_C, strict=False)]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the object store's memory is read-only, and only read here
            frames = torch.from_numpy(frames_NHWC)
        return self.classify(frames, torch.from_numpy(windows_WT)).numpy()


def _with_kept(batch: dict[str, np.ndarray], probabilities_CWK: list[np.ndarray]) -> list[Windows]:
    """Each chunk's windows: those labelled now, and those kept of an earlier run."""
    windows_C = []
    for row, probabilities_WK in enumerate(probabilities_CWK):
        starts_us_W = batch["window_start_us"][row]
        now = np.zeros(len(starts_us_W), np.int32)
        windows = Windows(starts_us_W, batch["window_end_us"][row], probabilities_WK, now)
        kept_us_W = batch["kept_start_us"][row]
        if len(kept_us_W):
            kept_WK = batch["kept_probabilities"][row].reshape(len(kept_us_W), -1)
            windows = windows.merged(Windows(kept_us_W, batch["kept_end_us"][row], kept_WK, batch["kept_run"][row]))
        windows_C.append(windows)
    return windows_C


class Metrics:
    """What a labeler tells Ray's Prometheus endpoint of its work."""

    def __init__(self) -> None:
        self._windows = Counter("microaction_label_windows_total", "Windows labelled.")
        self._frames = Counter("microaction_label_frames_total", "Frames decoded for windows.")
        self._video_s = Counter("microaction_label_video_seconds_total", "Seconds of video done, labelled or failed.")
        self._bytes = Counter("microaction_label_read_bytes_total", "Bytes of video files read.")
        self._chunks = Counter("microaction_label_chunks_total", "Chunks done, labelled or failed.")
        self._failures = Counter("microaction_label_failed_chunks_total", "Chunks that failed.", tag_keys=("error",))
        self._busy_share = Gauge(
            "microaction_label_busy_share", "Share of its time in which a labeler runs the network."
        )
        self._since_s, self._busy_s = time.monotonic(), 0.0

    def count(self, batch: dict[str, np.ndarray], *, busy_s: float) -> None:
        """One batch of chunks and how long the network ran for it."""
        _add(self._windows, sum(len(windows) for windows in batch["window_frames"]))
        _add(self._frames, sum(len(frames) for frames in batch["frames"]))
        _add(self._video_s, float((batch["chunk_end_us"] - batch["chunk_start_us"]).sum()) / MICROSECONDS)
        _add(self._bytes, int(batch["num_bytes"].sum()))
        _add(self._chunks, len(batch["error"]))
        for error in batch["error"][batch["error"] != ""]:
            self._failures.inc(1, {"error": str(error)})
        self._busy_s += busy_s
        elapsed_s = time.monotonic() - self._since_s
        self._busy_share.set(min(1.0, self._busy_s / elapsed_s))
        if elapsed_s > BUSY_SHARE_OVER_S:
            self._since_s, self._busy_s = time.monotonic(), 0.0


@dataclass(frozen=True)
class Committer:
    """The commit stage: writes a block of labelled chunks to the ledger and passes on only what progress needs.

    There `num_windows` counts those labelled now.
    """

    out: str

    def __call__(self, rows: pa.Table) -> pa.Table:
        name = commit(self.out, rows)
        runs_CW = rows["window_run"].to_pylist()
        columns = {name: rows[name] for name in ("chunk_id", "chunk_start_us", "chunk_end_us", "error")}
        columns["num_windows"] = pa.array([run_W.count(0) for run_W in runs_CW], pa.int32())
        return pa.table(columns | {"file": pa.repeat(name, len(rows))})


def label_blocks(
    blocks: list[pa.Table],
    settings: LabelSettings,
    checkpoint: CheckpointConfig,
    execution: Execution,
    keeper: Keeper | None = None,
) -> Iterator[pa.Table]:
    """Runs the pipeline over blocks of chunks; yields a small table for each block that is committed.

    A block whose decoding kills its worker is lost without a trace here: compare with the ledger afterwards.
    """
    decoder = Decoder.of(settings, checkpoint, keeper)
    pool = labeler_pool(settings)
    with warnings.catch_warnings():
        # max_retries has no parameter of its own yet; without it a chunk that kills its worker is tried for ever.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        # Not `from_arrow`, which runs a task of a whole CPU for every block.
        chunks = ray.data.from_blocks(blocks)
        configure(chunks.context, settings.decode_timeout_s)
        # Whatever is decoded and not committed is lost with the driver: no more than keeps everybody busy. Without a bound
        # Ray Data fills half of the object stores.
        num_blocks = num_decoders(settings, pool) + BLOCKS_PER_LABELER * pool.max_size
        memory = ExecutionResources(object_store_memory=num_blocks * block_bytes(settings, checkpoint))
        chunks.context.execution_options.resource_limits = memory
        decoded = chunks.map(
            decoder, compute=TaskPoolStrategy(), num_cpus=pool.decode_cpus, max_retries=DECODE_MAX_RETRIES
        )
    # Not `map_batches`, which beside GPUs wants a number of rows, and puts together as many blocks as have it.
    labelled = decoded.map_batches_internal(
        Labeler,
        fn_constructor_args=(settings.model, execution, settings.batch_windows, pool.num_threads),
        batch_size=None,  # a block as it is: a view of the object store, not a copy
        batch_format="numpy",
        compute=ActorPoolStrategy(min_size=pool.min_size, max_size=pool.max_size),
        num_cpus=pool.num_cpus,
        num_gpus=pool.num_gpus,
    ).map_batches(Committer(settings.out), batch_size=None, batch_format="pyarrow", num_cpus=COMMIT_CPUS)
    yield from labelled.iter_batches(batch_size=None, batch_format="pyarrow")


@dataclass(frozen=True)
class LabelerPool:
    """How many labelers there may be, and what each one, and each decode task, takes of its node."""

    min_size: int
    max_size: int
    num_cpus: float
    num_gpus: float
    num_threads: int
    decode_cpus: float


def labeler_pool(settings: LabelSettings) -> LabelerPool:
    """A labeler per GPU where the cluster has any; else they share its CPUs, between them and with the decoders."""
    there = machines(settings)
    num_cpus = there.num_cpus
    if there.num_gpus > 0:
        most = settings.max_labelers or max(there.num_gpus, settings.min_labelers)
        return LabelerPool(settings.min_labelers, most, 1.0, 1.0, 1, DECODE_CPUS["cuda"])
    most = settings.max_labelers or max(num_cpus // CPUS_PER_LABELER, settings.min_labelers)
    threads = max(1, min(num_cpus // most, there.node_cpus))
    # A quarter of its threads: what is left is enough for a decode task per CPU.
    labeler_cpus = max(threads, 2) / 4
    return LabelerPool(settings.min_labelers, most, labeler_cpus, 0.0, threads, DECODE_CPUS["cpu"])


def num_decoders(settings: LabelSettings, pool: LabelerPool) -> int:
    """How many decode tasks the cluster runs beside its labelers."""
    num_cpus = machines(settings).num_cpus - pool.max_size * pool.num_cpus
    return max(1, int(num_cpus / pool.decode_cpus))


def block_bytes(settings: LabelSettings, checkpoint: CheckpointConfig) -> int:
    """What the frames of a block take, at most: windows often share them."""
    block_us = max(BLOCK_VIDEO_US, microseconds(settings.chunk_s))
    num_frames = -(-block_us // microseconds(settings.stride_s)) * checkpoint.model.num_segments
    return num_frames * checkpoint.preprocessing.crop**2 * 3


def _add(counter: Counter, number: float) -> None:
    if number:  # Ray refuses to count nothing
        counter.inc(number)


def _lists(arrays: Iterable[np.ndarray]) -> pa.Array:
    """A list per array, of all its numbers."""
    flat = [np.ravel(array) for array in arrays]
    offsets = np.cumsum([0, *(len(array) for array in flat)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.concatenate(flat)))


def configure(context: DataContext, decode_timeout_s: float) -> None:
    """Sets one pipeline up so that a lost block does not end it, being found missing afterwards, and a stall does.

    The context is the dataset's own: the process's would carry these settings into pipelines that must lose nothing.
    """
    context.enable_progress_bars = False  # the jobs show their own
    context.custom_execution_callback_classes = [Unhurried]
    context.max_errored_blocks = -1
    context.execution_options.preserve_order = False
    # A block may come to nothing but decoders that are stopped one after the other.
    longest_block_s = decode_timeout_s + BLOCK_MAX_CHUNKS * LEAST_DECODE_TIME_S
    context.execution_no_progress_timeout_s = int(NO_PROGRESS_TIMEOUT_S + longest_block_s)
