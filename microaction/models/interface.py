"""What every network takes and returns. Needs torch alone.

Shapes: B clips, T frames of a clip, C features or channels, H height, W width, K actions, D embedding.
"""

from typing import NamedTuple, Protocol

from torch import Tensor, nn


class Inputs(NamedTuple):
    """The input of a network.

    `frames_BTCHW`: normalized RGB frames [B, T, 3, H, W].
    `dropout_mask_BTC`: in training, 0 or 1/(1 − dropout) for every feature of every frame, in place of a random mask; its
    shape without B is the network's `dropout_shape`. None: the network draws its own.
    """

    frames_BTCHW: Tensor
    dropout_mask_BTC: Tensor | None = None


class Outputs(NamedTuple):
    """The output of a network: `logits` [B, K], and `embedding` [B, D] for the joint-embedding loss or None."""

    logits: Tensor
    embedding: Tensor | None = None


class Network(nn.Module):
    """A network: `forward(inputs: Inputs) -> Outputs`.

    `dropout_probability` is the probability with which training drops a feature, and `dropout_shape` the shape [T, C] of the mask
    of one clip, or None for a network that takes no mask.
    """

    dropout_probability: float = 0.0
    dropout_shape: tuple[int, int] | None = None

    def forward(self, inputs: Inputs) -> Outputs:
        """Return the logits of a batch of clips, and the embedding where the network has one."""
        raise NotImplementedError


class ChannelStatistics(Protocol):
    """Mean and standard deviation of R, G and B on 0..255; `Preprocessing` has them."""

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean of R, G and B."""
        ...

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation of R, G and B."""
        ...
