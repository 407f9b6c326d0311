"""Several views of a clip, of which a network's probabilities are averaged. Needs torch alone.

Shapes: B clips, V views of a clip, T frames of a view, H height, W width, K actions.
"""

import math
from typing import cast

from torch import Tensor, nn


def split_views(frames_BTHWC: Tensor, views: int) -> Tensor:
    """Return clips [B·V, T, H, W, 3] of frames [B, V·T, H, W, 3]."""
    B, T = frames_BTHWC.shape[:2]
    return frames_BTHWC.reshape(B * views, T // views, *frames_BTHWC.shape[2:])


def mean_of_views(logits_NK: Tensor, views: int) -> Tensor:
    """Return the logarithm [B, K] of the mean of the views' probabilities; of one view, its logits as they are."""
    if views == 1:
        return logits_NK
    log_BVK = logits_NK.log_softmax(dim=1).view(-1, views, logits_NK.shape[1])
    return log_BVK.logsumexp(dim=1) - math.log(views)


class Views(nn.Module):
    """A module from uint8 frames [N, T, H, W, 3] to logits [N, K], called with all views of clips [B, V·T, H, W, 3]."""

    def __init__(self, model: nn.Module, views: int) -> None:
        super().__init__()
        self.model, self.views = model, views

    def forward(self, frames_BTHWC: Tensor) -> Tensor:
        """Return the logits [B, K] of each clip."""
        if self.views == 1:
            return cast(Tensor, self.model(frames_BTHWC))
        return mean_of_views(self.model(split_views(frames_BTHWC, self.views)), self.views)
