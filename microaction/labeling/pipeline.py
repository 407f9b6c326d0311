"""The pipeline: plan → decode (CPU tasks, 1:1) → label (actors that hold the model, 1:1) → commit (1:1).

A row is a chunk all the way. Decode tasks emit each needed frame once, as uint8 of the model's size, and a table window →
frames; actors normalise and classify on the device; a commit writes its block's rows to the ledger at once.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, ExecutionResources, TaskPoolStrategy
from ray.data.exceptions import ExecutionTimeoutError
from ray.util.annotations import RayDeprecationWarning

from microaction.clips.ingest import Unhurried
from microaction.config import LabelSettings
from microaction.errors import InterruptedRunError
from microaction.labeling.decoder import LEAST_DECODE_TIME_S, Decoder
from microaction.labeling.earlier import Keeper
from microaction.labeling.labeler import Labeler
from microaction.labeling.ledger import Committer
from microaction.labeling.plan import BLOCK_MAX_CHUNKS, BLOCK_VIDEO_US
from microaction.machines import machines
from microaction.model import CheckpointConfig
from microaction.model.classifier import Execution
from microaction.video.windows import microseconds

# Never as much as a labeler: Ray Data would fuse tasks into actors that ask for the same resources, and decode one by one
# in them. Beside labelers on CPUs there is a decoder for every core too: whichever stage is slower has what the other leaves.
DECODE_CPUS = {"cuda": 0.9, "cpu": 0.7}
COMMIT_CPUS = 0.05  # it waits for storage
DECODE_MAX_RETRIES = 1  # a chunk that kills its worker twice is dropped here, then tried alone
NO_PROGRESS_TIMEOUT_S = 600
CPUS_PER_LABELER = 8
BATCH_WINDOWS = {"GPU": 64, "CPU": 8}
BLOCKS_PER_LABELER = 4  # one at work, and some on their way


def label_blocks(
    blocks: list[pa.Table],
    settings: LabelSettings,
    checkpoint: CheckpointConfig,
    execution: Execution,
    pool: "LabelerPool",
    keeper: Keeper | None = None,
    *,
    records_errors: bool = False,
) -> Iterator[pa.Table]:
    """Runs the pipeline over blocks of chunks; yields a small table for each block that is committed.

    A block whose decoding kills its worker is lost without a trace here, and so, but with `records_errors`, is one that
    cannot be labelled: compare with the ledger afterwards. Raises `PipelineError` where the ledger cannot be written, or
    nothing goes on any more.
    """
    decoder = Decoder.of(settings, checkpoint, keeper)
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
        fn_constructor_kwargs={"records_errors": records_errors},
        batch_size=None,  # a block as it is: a view of the object store, not a copy
        batch_format="numpy",
        compute=ActorPoolStrategy(min_size=pool.min_size, max_size=pool.max_size),
        num_cpus=pool.num_cpus,
        num_gpus=pool.num_gpus,
    ).map_batches(Committer(settings.out), batch_size=None, batch_format="pyarrow", num_cpus=COMMIT_CPUS)
    try:
        for committed in labelled.iter_batches(batch_size=None, batch_format="pyarrow"):
            if not committed["file"][0].as_py():
                raise PipelineError(f"the ledger in {settings.out} cannot be written: {committed['error'][0].as_py()}")
            yield committed
    except ExecutionTimeoutError as error:
        raise PipelineError(
            f"no block of chunks has ended for {chunks.context.execution_no_progress_timeout_s} s: see `ray status` for "
            "machines that are missing or cut off, and run the same command again"
        ) from error


class PipelineError(InterruptedRunError, RuntimeError):
    """The pipeline cannot go on, for a reason that is no chunk's."""


@dataclass(frozen=True)
class LabelerPool:
    """How many labelers there may be, and what each one, and each decode task, takes of its node."""

    min_size: int
    max_size: int
    num_cpus: float
    num_gpus: float
    num_threads: int
    decode_cpus: float

    @property
    def device(self) -> Literal["GPU", "CPU"]:
        """What labelers run the network on."""
        return "GPU" if self.num_gpus else "CPU"


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
