"""Reads clips through Ray Data: a list of clips in, batches of uint8 pixels out, in the same order.

clips → decode (CPU tasks, 1:1) → batches

Every process that needs clips reads its own shard with its own pipeline: the caller decides the shard and its order, so that
nothing is dropped or repeated to equalize shards, and the number of processes changes no clip.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import TaskPoolStrategy

from microaction.clips.manifest import Clip
from microaction.clips.sample import Sampling, load_clip
from microaction.clips.skeletons import ClipSkeletons
from microaction.distributed.throttling import ThrottledExecution
from microaction.skeletons import Skeleton
from microaction.skeletons.skeleton import NUM_KEYPOINTS
from microaction.video import DecodeError, Region
from microaction.video.windows import Span

CLIPS_PER_BLOCK = 16  # moving a block costs about 60 ms, and a decoded clip 1.3 to 7 ms in blocks of 32 to 8
DECODE_CPUS = 0.45  # two per CPU, beside a training worker, which otherwise waits for the decoders
PREFETCH_BATCHES = 4


@dataclass(frozen=True)
class ClipBatch:
    """B clips: frames_BTHWC uint8 RGB of the network's size, target_B int64, index_B the indices in the caller's list.

    keypoints_BMTK3: x and y in pixels of those frames, and the score (float32), of M people; M is 0 for networks that see
    frames alone.
    """

    frames_BTHWC: np.ndarray
    target_B: np.ndarray
    index_B: np.ndarray
    keypoints_BMTK3: np.ndarray


def read_clips(
    clips: Sequence[Clip],
    order: np.ndarray,
    sampling: Sampling,
    batch_size: int,
    *,
    skeletons: ClipSkeletons | None = None,
    on_unreadable: Callable[[DecodeError], None] | None = None,
) -> Iterator[ClipBatch]:
    """Decode the clips with the draws `order` [N], in that order, in batches of `batch_size` (the last may be smaller).

    A draw is an index into `clips`; a draw beyond the last clip wraps around and has other random numbers. Random numbers
    depend on the draw alone, never on its position in `order`. Needs a running Ray. A clip that cannot be read raises
    `DecodeError`; with `on_unreadable`, that is called with the error instead, and the clip's batch is one smaller, or even
    empty: other clips stay in their batches. `skeletons` are those of all clips, for networks that need them.
    """
    if len(order) == 0:
        return
    if sampling.needs_skeletons and skeletons is None:
        raise ValueError("the network needs the clips' skeletons")
    chosen = [clips[draw % len(clips)] for draw in order]
    table = pa.table(
        {
            "uri": [clip.uri for clip in chosen],
            "target": pa.array([clip.label for clip in chosen], pa.int64()),
            "draw": pa.array(order, pa.int64()),
            "region": pa.array([clip.region for clip in chosen], pa.list_(pa.int32())),
            "person": pa.array([clip.person or 0 for clip in chosen], pa.int32()),  # 0: not named
            "span": pa.array([clip.span for clip in chosen], pa.list_(pa.int64())),
            "skeleton": pa.array(
                [None if skeletons is None else skeletons.packed(clip) for clip in chosen], pa.large_binary()
            ),
        }
    )
    blocks = [table.slice(start, CLIPS_PER_BLOCK) for start in range(0, len(table), CLIPS_PER_BLOCK)]
    # Not `from_arrow`, which starts a task of a whole CPU for every block: training may leave no whole CPU.
    dataset = ray.data.from_blocks(blocks)
    # The dataset's own context: other pipelines share the process's, and their settings must not leak into this one.
    dataset.context.enable_progress_bars = False
    dataset.context.execution_options.preserve_order = True
    dataset.context.raise_original_map_exception = True
    dataset.context.max_errored_blocks = 0
    dataset.context.custom_execution_callback_classes = [ThrottledExecution]
    decoded = dataset.map_batches(
        _decode_block,
        batch_size=None,
        fn_args=(sampling, 0 if skeletons is None else skeletons.num_people),
        compute=TaskPoolStrategy(),
        num_cpus=DECODE_CPUS,
    )
    num_read = 0
    for batch in decoded.iter_batches(batch_size=batch_size, prefetch_batches=PREFETCH_BATCHES, batch_format="numpy"):
        num_read += len(batch["draw"])
        index_B = batch["draw"] % len(clips)
        is_read = batch["reason"] == ""
        for index, reason in zip(index_B[~is_read], batch["reason"][~is_read], strict=True):
            error = DecodeError(clips[index].location, reason)
            if on_unreadable is None:
                raise error
            on_unreadable(error)
        kept = slice(None) if is_read.all() else is_read
        frames_BTHWC, target_B, keypoints_BMTK3 = (batch[name][kept] for name in ("frames", "target", "keypoints"))
        yield ClipBatch(frames_BTHWC, target_B, index_B[kept], keypoints_BMTK3)
    if num_read != len(order):
        raise RuntimeError(f"{num_read} of {len(order)} clips arrived from Ray Data: this is a bug, please report it")


def _decode_block(block: dict[str, np.ndarray], sampling: Sampling, num_people: int) -> dict[str, np.ndarray]:
    columns = ("uri", "draw", "region", "skeleton", "person", "span")
    clips = zip(*(block[name] for name in columns), strict=True)
    side, B = sampling.side, len(block["uri"])
    frames_BTHWC = np.zeros((B, sampling.num_sampled, side, side, 3), np.uint8)
    keypoints_BMTK3 = np.zeros((B, num_people, sampling.num_pose_sampled, NUM_KEYPOINTS, 3), np.float32)
    reasons = [""] * B
    for row, (uri, draw, region, packed, person, span) in enumerate(clips):
        try:
            clip_region = None if region is None else Region(*region.tolist())
            skeleton = None if packed is None else Skeleton.from_bytes(packed)
            clip_span = None if span is None else Span(*span.tolist())
            sample = load_clip(str(uri), int(draw), sampling, clip_region, skeleton, int(person) or None, clip_span)
        except DecodeError as error:
            reasons[row] = error.reason
        except ValueError as error:  # a region that does not lie inside the clip's frames, or a person who is not seen
            reasons[row] = str(error)
        else:
            frames_BTHWC[row] = sample.frames_THWC
            keypoints_BMTK3[row, : len(sample.keypoints_MTK3)] = sample.keypoints_MTK3
    return {
        "frames": frames_BTHWC,
        "keypoints": keypoints_BMTK3,
        "target": block["target"],
        "draw": block["draw"],
        "reason": np.array(reasons),
    }
