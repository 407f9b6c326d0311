"""How many labelers and decode tasks a run has, and what each takes of its node: decided once, at the start."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from microaction.distributed.resources import ClusterResources
from microaction.labeling.execution import Device
from microaction.labeling.grid import is_detector, reach_us
from microaction.labeling.plan import BLOCK_VIDEO_US, plan_blocks
from microaction.labeling.settings import LabelSettings
from microaction.models import CheckpointConfig
from microaction.video.windows import STEP_US, microseconds

# Never as much as a labeler: Ray Data would fuse tasks into actors that request the same resources, and decode one chunk after
# the other in them. Beside labelers on CPUs there is a decoder for every core too: whichever stage is slower gets what the other
# leaves.
DECODE_CPUS: dict[Device, float] = {"GPU": 0.9, "CPU": 0.7}
CPUS_PER_LABELER = 8


@dataclass(frozen=True)
class LabelerPool:
    """How many labelers a run may have, what each of them and each decode task takes of its node, and how many decode tasks
    run beside them."""

    min_size: int
    max_size: int
    num_cpus: float
    num_gpus: float
    num_threads: int
    decode_cpus: float
    num_decoders: int

    @property
    def device(self) -> Device:
        """What labelers run the network on."""
        return "GPU" if self.num_gpus else "CPU"


def labeler_pool(settings: LabelSettings, resources: ClusterResources) -> LabelerPool:
    """Return a pool of one labeler per GPU if the cluster has any; otherwise they share its CPUs, with each other and with
    the decoders."""
    if resources.num_gpus > 0:
        max_size = settings.max_labelers or max(resources.num_gpus, settings.min_labelers)
        labeler_cpus, num_gpus, num_threads, decode_cpus = 1.0, 1.0, 1, DECODE_CPUS["GPU"]
    else:
        max_size = settings.max_labelers or max(resources.num_cpus // CPUS_PER_LABELER, settings.min_labelers)
        num_threads = max(1, min(resources.num_cpus // max_size, resources.node_cpus))
        # A quarter of its threads: the rest is enough for a decode task per CPU.
        labeler_cpus, num_gpus, decode_cpus = max(num_threads, 2) / 4, 0.0, DECODE_CPUS["CPU"]
    num_decoders = max(1, int((resources.num_cpus - max_size * labeler_cpus) / decode_cpus))
    return LabelerPool(settings.min_labelers, max_size, labeler_cpus, num_gpus, num_threads, decode_cpus, num_decoders)


def block_bytes(settings: LabelSettings, checkpoint: CheckpointConfig) -> int:
    """Return the maximum size in bytes of the frames of a block of one person's windows, which often share frames."""
    block_us = max(BLOCK_VIDEO_US, microseconds(settings.chunk_s))
    num_frames = -(-block_us // microseconds(settings.stride_s)) * checkpoint.num_sampled
    return num_frames * checkpoint.preprocessing.side**2 * 3


def max_block_bytes(plan: pa.Table, settings: LabelSettings, checkpoint: CheckpointConfig) -> int:
    """Return the maximum size of a block's frames in bytes, whatever the number of people in it."""
    num_windows = plan["num_windows"].to_numpy()
    if is_detector(checkpoint):  # which sees frames around each span of a person too
        num_spans = pc.fill_null(pc.list_value_length(plan["crops"]), 1).to_numpy()
        num_windows = num_windows + num_spans * (2 * reach_us(checkpoint) // STEP_US)
    blocks = plan_blocks(plan, microseconds(settings.stride_s))
    most = max((int(num_windows[block.start : block.stop].sum()) for block in blocks), default=0)
    return max(block_bytes(settings, checkpoint), most * checkpoint.num_sampled * checkpoint.preprocessing.side**2 * 3)
