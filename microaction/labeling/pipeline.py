"""The pipeline: plan → decode (CPU tasks, 1:1) → label (actors that hold the network, 1:1) → commit (1:1).

A row is a chunk throughout. Decode tasks emit each needed frame once, as uint8 of the network's size, and a table window →
frames; actors normalize and classify on the device; a commit writes its block's rows to the ledger at once.
"""

import gc
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, DataContext, ExecutionResources, TaskPoolStrategy
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import ActorDiedError
from ray.util.annotations import RayDeprecationWarning

from microaction.distributed.throttling import ThrottledExecution
from microaction.errors import TransientError
from microaction.labeling.decoder import MIN_DECODE_TIME_S, Decoder
from microaction.labeling.feature_labeler import FeatureLabeler
from microaction.labeling.grid import is_detector
from microaction.labeling.labeler import Labeler
from microaction.labeling.ledger import Committer
from microaction.labeling.metrics import Metrics
from microaction.labeling.plan import BLOCK_MAX_CHUNKS
from microaction.labeling.pool import LabelerPool
from microaction.labeling.reuse import WindowReuse
from microaction.labeling.settings import LabelSettings
from microaction.models import Checkpoint, load_checkpoint
from microaction.models.classifier import Execution

COMMIT_CPUS = 0.05  # it waits for storage
DECODE_MAX_RETRIES = 1  # a chunk that kills its worker twice is dropped here, then tried alone
NO_PROGRESS_TIMEOUT_S = 600
BLOCKS_PER_LABELER = 4  # one in work, and some on their way


class PipelineError(TransientError, RuntimeError):
    """The pipeline cannot continue, for a reason that is not a chunk's."""


@dataclass(frozen=True)
class Pipeline:
    """Labels blocks of chunks with one checkpoint on one cluster.

    A block whose decoding kills its worker is lost without a trace, and so is one that cannot be labeled, unless
    `records_errors`: compare with the ledger afterwards.
    """

    settings: LabelSettings
    checkpoint: Checkpoint
    execution: Execution
    batch_windows: int
    pool: LabelerPool
    block_bytes: int
    reuse: WindowReuse | None

    def run(self, blocks: list[pa.Table], *, records_errors: bool = False) -> Iterator[pa.Table]:
        """Yield a small table (see `Committer`) for each block that is committed.

        Raises `PipelineError` if the ledger cannot be written, no labeler can start, or nothing makes progress any more, and
        `CheckpointError` if the checkpoint is not the one that the run started with.
        """
        labeled = self._dataset(blocks, records_errors)
        try:
            for committed in labeled.iter_batches(batch_size=None, batch_format="pyarrow"):
                if not committed["file"][0].as_py():
                    reason = committed["error"][0].as_py()
                    raise PipelineError(f"the ledger in {self.settings.out} cannot be written: {reason}")
                yield committed
        except ExecutionTimeoutError as error:
            raise PipelineError(
                f"no block of chunks finished within {labeled.context.execution_no_progress_timeout_s} s: see `ray status` "
                "for nodes that are missing or cut off, and run the same command again"
            ) from error
        except ActorDiedError as error:
            if not error.actor_init_failed:
                raise
            load_checkpoint(self.checkpoint.ref)  # if it is the reason, this raises the labeler's error
            raise PipelineError(f"a labeler could not start: {str(error).strip().splitlines()[-1]}") from error
        finally:
            # Ray Data ends actors by dropping its references to them. The error of a task that the run goes on without refers to
            # frames that refer to all labelers, in a cycle: until Python collects it they would hold their CPUs and GPUs.
            del labeled
            gc.collect()

    def _dataset(self, blocks: list[pa.Table], records_errors: bool) -> ray.data.Dataset:
        pool, config = self.pool, self.checkpoint.config
        with warnings.catch_warnings():
            # max_retries has no parameter of its own yet; without it a chunk that kills its worker is retried forever.
            warnings.simplefilter("ignore", RayDeprecationWarning)
            # Not `from_arrow`, which runs a task of a whole CPU for every block.
            chunks = ray.data.from_blocks(blocks)
            configure(chunks.context, self.settings.decode_timeout_s)
            # What is decoded and not committed is lost with the driver: no more than keeps everybody busy. Without a bound
            # Ray Data fills half of the object stores.
            num_blocks = pool.num_decoders + BLOCKS_PER_LABELER * pool.max_size
            memory = ExecutionResources(object_store_memory=num_blocks * self.block_bytes)
            chunks.context.execution_options.resource_limits = memory
            decoded = chunks.map(
                Decoder.of(self.settings, config, self.reuse, archive=self.settings.archive),
                compute=TaskPoolStrategy(),
                num_cpus=pool.decode_cpus,
                max_retries=DECODE_MAX_RETRIES,
            )
        # Not `map_batches`, which beside GPUs wants a number of rows, and concatenates as many blocks as have it.
        return decoded.map_batches_internal(
            FeatureLabelerActor if is_detector(config) else LabelerActor,
            fn_constructor_args=(self.checkpoint.ref, self.execution, self.batch_windows, pool.num_threads),
            fn_constructor_kwargs={"records_errors": records_errors},
            batch_size=None,  # a block as it is: a view of the object store, not a copy
            batch_format="numpy",
            compute=ActorPoolStrategy(min_size=pool.min_size, max_size=pool.max_size),
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus,
        ).map_batches(Committer(self.settings.out), batch_size=None, batch_format="pyarrow", num_cpus=COMMIT_CPUS)


class LabelerActor(Labeler):
    """A `Labeler` in an actor, which reports its work to Ray's metrics."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._metrics = Metrics()

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """Label a batch of decoded chunks."""
        return _counted(super().__call__, batch, self._metrics)


class FeatureLabelerActor(FeatureLabeler):
    """A `FeatureLabeler` in an actor, which reports its work to Ray's metrics."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._metrics = Metrics()

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """Label a batch of decoded chunks."""
        return _counted(super().__call__, batch, self._metrics)


def _counted(
    label: Callable[[dict[str, np.ndarray]], pa.Table], batch: dict[str, np.ndarray], metrics: Metrics
) -> pa.Table:
    started_s = time.monotonic()
    rows = label(batch)
    metrics.count(batch, rows, busy_s=time.monotonic() - started_s)
    return rows


def configure(context: DataContext, decode_timeout_s: float) -> None:
    """Configure one pipeline so that a lost block does not end it, being found missing afterwards, and a stall does.

    The context is the dataset's own: the process's would carry these settings into pipelines that must lose nothing.
    """
    context.enable_progress_bars = False  # the commands show their own
    context.custom_execution_callback_classes = [ThrottledExecution]
    context.max_errored_blocks = -1
    context.execution_options.preserve_order = False
    # A block may consist of nothing but decoders that are stopped one after the other.
    max_block_s = decode_timeout_s + BLOCK_MAX_CHUNKS * MIN_DECODE_TIME_S
    context.execution_no_progress_timeout_s = int(NO_PROGRESS_TIMEOUT_S + max_block_s)
