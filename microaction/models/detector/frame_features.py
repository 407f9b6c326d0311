"""Features of every frame of a video, from the backbone of a network that classifies clips. Needs torch alone.

Frames come one after the other and are mixed over time as in the clips that the backbone was trained on. What is computed of a
step does not depend on how a video is cut into parts, as long as each part comes with the frames that it needs
(`DetectorConfig.needed_steps`): every layer sees batches of one size.

Shapes: T steps, S frames of a batch, C features or channels, H height, W width.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from microaction.models.detector.config import DetectorConfig
from microaction.models.errors import CheckpointError
from microaction.models.manet.network import SHIFT_DIVISOR, Bottleneck, MANet
from microaction.models.video_classifier import VideoClassifier

_ALL_CHANNELS = slice(None)

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


class _Piece(NamedTuple):
    """Some steps from `first` on of a block's input, as it is and after the excitation, both [n, C, H, W]."""

    first: int
    inputs: Tensor
    excited: Tensor

    @property
    def end(self) -> int:
        return self.first + len(self.inputs)


def _block(
    block: Bottleneck, source: Iterator[Batch], before: range, after: range, spacing: int, batch_size: int
) -> Iterator[Batch]:
    """Yield a block's output at the steps `after` of its input at the steps `before`."""
    reach = spacing if block.shift else 0
    pieces: list[_Piece] = []
    end = before.start
    for part in _parts(after, batch_size):
        while end < min(part.stop + reach, before.stop):
            x, count = next(source)
            excited = x if block.se is None else block.se(x)
            pieces.append(_Piece(end, x[:count], excited[:count]))
            end += count
        shape = (batch_size, *pieces[0].inputs.shape[1:])
        inputs, mixed = (_empty(shape, pieces[0].inputs) for _ in range(2))
        _copy(inputs, [(piece.first, piece.inputs) for piece in pieces], part)
        shifted = [(piece.first, piece.excited) for piece in pieces]
        fold = shape[1] // SHIFT_DIVISOR if reach else 0
        # An eighth of the channels of `reach` steps later, and an eighth of earlier ones.
        for by, channels in ((reach, slice(fold)), (-reach, slice(fold, 2 * fold)), (0, slice(2 * fold, None))):
            _copy(mixed, shifted, range(part.start + by, part.stop + by), channels)
        yield block.combined(inputs, mixed), len(part)
        pieces = [piece for piece in pieces if piece.end > part.stop - reach]


def _empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _copy(target: Tensor, pieces: Sequence[tuple[int, Tensor]], steps: range, channels: slice = _ALL_CHANNELS) -> None:
    """Copy some steps to the first rows of a batch; where there are none, beyond the ends of the video or of the steps, are
    zeros."""
    first = last = 0
    for start, piece in pieces:
        low, high = max(start, steps.start), min(start + len(piece), steps.stop)
        if low < high:
            first, last = (low - steps.start if last == 0 else first), high - steps.start
            target[low - steps.start : high - steps.start, channels] = piece[low - start : high - start, channels]
    target[:first, channels] = 0
    target[last:, channels] = 0


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
