"""Features of every frame of a video, from the backbone of a network that classifies clips. Needs torch alone.

Frames come one after the other and are mixed over time as in the clips that the backbone was trained on. What is computed of a
step does not depend on how a video is cut into parts, as long as each part comes with the frames that it needs
(`DetectorConfig.needed_steps`): every layer sees batches of one size.

Shapes: T steps, S frames of a batch, C features or channels, H height, W width.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from microaction.models.detector.config import DetectorConfig
from microaction.models.errors import CheckpointError
from microaction.models.manet.network import SHIFT_DIVISOR, Bottleneck, MANet
from microaction.models.video_classifier import VideoClassifier

FramesOf = Callable[[range], Tensor]
"""Returns the normalized frames [n, 3, H, W] of some steps."""

Batch = tuple[Tensor, int]
"""Frames or features of a batch [S, …], of which only so many count: the rest repeats the last one."""


def frame_features(
    network: VideoClassifier, config: DetectorConfig, frames_of: FramesOf, steps: range, num_steps: int, batch_size: int
) -> Tensor:
    """Return the features [T, C] of some steps of a video of `num_steps` steps.

    `frames_of` is asked for steps that `config.needed_steps` names, in order.
    """
    if isinstance(network, MANet):
        return _shifted_features(network, config.spacing, frames_of, steps, num_steps, batch_size)
    return _clip_features(network, config.spacing, frames_of, steps, num_steps, batch_size)


def without_heads(network: nn.Module) -> VideoClassifier:
    """Return a network that classifies clips as a backbone: it loses its heads. Raises `CheckpointError` for other networks."""
    if not isinstance(network, VideoClassifier):
        raise CheckpointError(f"{type(network).__name__} has no features of frames: choose another backbone")
    network.action, network.body, network.embedding = cast(nn.Linear, nn.Identity()), None, None
    return network


def _shifted_features(
    network: MANet, spacing: int, frames_of: FramesOf, steps: range, num_steps: int, batch_size: int
) -> Tensor:
    """Run the backbone block by block, each a few frames behind the one before, so that no frame is computed twice."""
    backbone = network.backbone
    stages = (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)
    blocks = [cast(Bottleneck, block) for stage in stages for block in stage]
    ranges = [steps]
    for block in reversed(blocks):
        reach = spacing if block.shift else 0
        after = ranges[0]
        ranges.insert(0, range(max(after.start - reach, 0), min(after.stop + reach, num_steps)))
    stream = _stem(backbone, frames_of, ranges[0], batch_size)
    for block, (before, after) in zip(blocks, pairwise(ranges), strict=True):
        stream = _block(block, stream, before, after, spacing, batch_size)
    return torch.cat([x.mean(dim=(2, 3))[:count] for x, count in stream])


def _stem(backbone: nn.Module, frames_of: FramesOf, steps: range, batch_size: int) -> Iterator[Batch]:
    for part in _parts(steps, batch_size):
        frames = _filled(frames_of(part), batch_size)
        yield backbone.maxpool(torch.relu(backbone.bn1(backbone.conv1(frames)))), len(part)  # type: ignore[operator]


def _block(
    block: Bottleneck, source: Iterator[Batch], before: range, after: range, spacing: int, batch_size: int
) -> Iterator[Batch]:
    """Yield a block's output at the steps `after` of its input at the steps `before`."""
    reach = spacing if block.shift else 0
    first = end = before.start
    inputs: Tensor | None = None
    excited: Tensor | None = None
    for part in _parts(after, batch_size):
        while end < min(part.stop + reach, before.stop):
            x, count = next(source)
            gated = x if block.se is None else block.se(x)
            inputs = x[:count] if inputs is None else torch.cat([inputs, x[:count]])
            excited = gated[:count] if excited is None else torch.cat([excited, gated[:count]])
            end += count
        assert inputs is not None
        assert excited is not None
        own = slice(part.start - first, part.stop - first)
        mixed = _shifted(excited, first, part, reach) if reach else excited[own]
        yield block.combined(_filled(inputs[own], batch_size), _filled(mixed, batch_size)), len(part)
        done = max(part.stop - reach, before.start)
        inputs, excited, first = inputs[done - first :], excited[done - first :], done


def _shifted(x_TCHW: Tensor, first: int, part: range, reach: int) -> Tensor:
    """Return the steps of a part, with an eighth of the channels of `reach` steps later and an eighth of earlier ones; zeros
    beyond what there is, which are the ends of the video. `first` is the step of the first input."""
    fold = x_TCHW.shape[1] // SHIFT_DIVISOR

    def moved(by: int, channels: slice) -> Tensor:
        start, stop = part.start + by - first, part.stop + by - first
        inside = x_TCHW[max(start, 0) : max(stop, 0), channels]
        before, beyond = min(max(-start, 0), len(part)), min(max(stop - len(x_TCHW), 0), len(part))
        zeros = x_TCHW[:1, channels].new_zeros((1, *inside.shape[1:]))
        return torch.cat([zeros.expand(before, -1, -1, -1), inside, zeros.expand(beyond, -1, -1, -1)])

    ahead, back = moved(reach, slice(fold)), moved(-reach, slice(fold, 2 * fold))
    return torch.cat([ahead, back, moved(0, slice(2 * fold, None))], dim=1)


def _clip_features(
    network: VideoClassifier, spacing: int, frames_of: FramesOf, steps: range, num_steps: int, batch_size: int
) -> Tensor:
    """Run clips side by side, with every `spacing`-th frame each, from multiples of their length on."""
    T = network.num_frames
    unit = T * spacing
    clips_per_batch = max(1, batch_size // T)
    aligned = range(steps.start // unit * unit, -(-steps.stop // unit) * unit)
    waiting: list[Tensor] = []
    found: list[Tensor] = []

    def run(num_clips: int) -> None:
        features_BFC = network.features(_filled(torch.stack(waiting[:num_clips]), clips_per_batch))[:num_clips]
        repeats = -(-T // features_BFC.shape[1])  # a part of a clip stands for some of its frames
        found.append(features_BFC.repeat_interleave(repeats, dim=1)[:, :T])
        del waiting[:num_clips]

    for tile in range(aligned.start, aligned.stop, unit):
        frames = _filled(frames_of(range(tile, min(tile + unit, num_steps))), unit)
        waiting += [frames[phase::spacing] for phase in range(spacing)]
        while len(waiting) >= clips_per_batch:
            run(clips_per_batch)
    if waiting:
        run(len(waiting))
    # [tiles, phases, T, C] → steps in order.
    features = torch.cat(found)
    features = features.view(-1, spacing, *features.shape[1:]).transpose(1, 2).flatten(0, 2)
    return features[steps.start - aligned.start : steps.stop - aligned.start]


def _parts(steps: range, size: int) -> Iterator[range]:
    for start in range(steps.start, steps.stop, size):
        yield range(start, min(start + size, steps.stop))


def _filled(x: Tensor, size: int) -> Tensor:
    """Return a batch of the given size, always in the same memory format: what is missing is the last one."""
    filled = x if len(x) == size else torch.cat([x, x[-1:].expand(size - len(x), *x.shape[1:])])
    return filled.contiguous(memory_format=torch.channels_last) if filled.ndim == 4 else filled
