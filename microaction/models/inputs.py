"""From what decoding gives, uint8 frames and keypoints, to what a network takes. Needs torch alone.

Shapes: B clips, V views of a clip, M people, T frames of a view, K keypoints, H height, W width.
"""

from typing import Protocol

from torch import Tensor

from microaction.models.heatmaps import draw_heatmaps
from microaction.models.interface import ChannelStatistics, Inputs, Network, Prediction
from microaction.models.normalize import normalize_frames
from microaction.models.views import mean_of_views, split_keypoints, split_views


class ViewStatistics(ChannelStatistics, Protocol):
    """Channel statistics, and how many views of a clip testing has; `Preprocessing` has them."""

    @property
    def views(self) -> int:
        """Views of a clip."""
        ...


def prepare_inputs(
    model: Network,
    frames_BTHWC: Tensor,
    keypoints_BMTK3: Tensor | None,
    statistics: ChannelStatistics,
    *,
    views: int = 1,
) -> Inputs:
    """Return the input of all views of clips, on the same device.

    `frames_BTHWC`: uint8 [B, V·T, H, W, 3], square; T is 0 for a network that sees keypoints alone. `keypoints_BMTK3`: float32
    [B, M, V·T, K, 3], for networks that see heatmaps. Raises `ValueError` where such a network gets none.
    """
    frames_BTCHW = normalize_frames(split_views(frames_BTHWC, views), statistics)
    if model.heat is None:
        return Inputs(frames_BTCHW)
    if keypoints_BMTK3 is None:
        raise ValueError("the network sees skeletons beside the frames: give it keypoints")
    keypoints_BMTK3 = split_keypoints(keypoints_BMTK3, views)
    return Inputs(frames_BTCHW, draw_heatmaps(keypoints_BMTK3, frames_BTHWC.shape[2], model.heat))


def predict(
    model: Network, frames_BTHWC: Tensor, keypoints_BMTK3: Tensor | None, preprocessing: ViewStatistics
) -> Prediction:
    """Return what the network says of clips (float32), of which several views are one."""
    views = preprocessing.views
    outputs = model(prepare_inputs(model, frames_BTHWC, keypoints_BMTK3, preprocessing, views=views))
    body_BP: Tensor | None = getattr(outputs, "body_probabilities", None)
    if body_BP is not None:
        body_BP = body_BP.float().view(-1, views, body_BP.shape[1]).mean(dim=1)
    return Prediction(mean_of_views(outputs.logits.float(), views), body_BP)
