"""What every network takes and returns. Needs torch alone.

Shapes: B clips, T frames of a clip, C features or channels, H height, W width, K actions or keypoints, P body parts, D
embedding, L residual branches.
"""

from typing import NamedTuple, Protocol

from torch import Tensor, nn

from microaction.models.heatmaps import Heat


class Inputs(NamedTuple):
    """The input of a network.

    `frames_BTCHW`: normalized RGB frames [B, T, 3, H, W].
    `heatmaps_BTKHW`: maps of keypoints [B, T, K, H, W], for networks that see skeletons.
    `dropout_mask_BTC`: in training, 0 or 1/(1 − dropout) for every feature of every frame, in place of a random mask; its
    shape without B is the network's `dropout_shape`. None: the network draws its own.
    `drop_path_mask_BL`: in training, 0 or 1/(1 − rate) for every residual branch, in place of a random mask; L is the length
    of the network's `drop_path_rates`.
    """

    frames_BTCHW: Tensor
    heatmaps_BTKHW: Tensor | None = None
    dropout_mask_BTC: Tensor | None = None
    drop_path_mask_BL: Tensor | None = None


class Outputs(NamedTuple):
    """The output of a network.

    `logits` [B, K]: their softmax is the actions' probabilities. `embedding` [B, D]: for the joint-embedding loss, or None.
    """

    logits: Tensor
    embedding: Tensor | None = None


class Prediction(NamedTuple):
    """What a network says of clips, of all their views together.

    `logits` [B, K]: their softmax is the actions' probabilities. `body_probabilities` [B, P]: of body parts, where classifiers of
    their own have an answer that the actions' does not imply; else None.
    """

    logits: Tensor
    body_probabilities: Tensor | None = None


class Network(nn.Module):
    """A network: `forward(inputs: Inputs) -> Outputs`.

    `dropout_probability` is the probability with which training drops a feature, and `dropout_shape` the shape [T, C] of the mask
    of one clip, or None for a network that takes no mask. `drop_path_rates` are the probabilities with which training leaves
    out each residual branch (stochastic depth). `heat`: how the heatmaps are drawn of a network that sees keypoints. `family` is
    the network's entry in `FAMILIES`, if it was built by one.
    """

    dropout_probability: float = 0.0
    dropout_shape: tuple[int, int] | None = None
    drop_path_rates: tuple[float, ...] = ()
    heat: Heat | None = None
    family: str = ""

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
