"""Several views of a clip, of which a network's probabilities are averaged. Needs torch alone.

Shapes: B clips, V views of a clip, T frames of a view, H height, W width, K actions or keypoints, M people.
"""

import math
from typing import cast

from torch import Tensor, nn


def split_views(frames_BTHWC: Tensor, views: int) -> Tensor:
    """Return clips [B·V, T, H, W, 3] of frames [B, V·T, H, W, 3]."""
    B, T = frames_BTHWC.shape[:2]
    return frames_BTHWC.reshape(B * views, T // views, *frames_BTHWC.shape[2:])


def split_keypoints(keypoints_BMTK3: Tensor, views: int) -> Tensor:
    """Return keypoints of clips [B·V, M, T, K, 3] of keypoints [B, M, V·T, K, 3]."""
    B, M, T, K, _ = keypoints_BMTK3.shape
    return keypoints_BMTK3.reshape(B, M, views, T // views, K, 3).transpose(1, 2).flatten(0, 1)


def mean_of_views(logits_NK: Tensor, views: int) -> Tensor:
    """Return the logarithm [B, K] of the mean of the views' probabilities; of one view, its logits as they are."""
    if views == 1:
        return logits_NK
    log_BVK = logits_NK.log_softmax(dim=1).view(-1, views, logits_NK.shape[1])
    return log_BVK.logsumexp(dim=1) - math.log(views)


class Views(nn.Module):
    """A module from uint8 frames [N, T, H, W, 3], and keypoints [N, M, T, K, 3] where it takes them, to logits [N, K], called
    with all views of clips: [B, V·T, H, W, 3] and [B, M, V·T, K, 3]."""

    def __init__(self, model: nn.Module, views: int) -> None:
        super().__init__()
        self.model, self.views = model, views

    def forward(self, frames_BTHWC: Tensor, keypoints_BMTK3: Tensor | None = None) -> Tensor:
        """Return the logits [B, K] of each clip."""
        inputs = [split_views(frames_BTHWC, self.views)]
        if keypoints_BMTK3 is not None:
            inputs.append(split_keypoints(keypoints_BMTK3, self.views))
        return mean_of_views(cast(Tensor, self.model(*inputs)), self.views)
