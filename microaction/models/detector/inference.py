"""A detector as labeling runs it: frames in, what is stored of each step out; and from that, the detections of whole videos.

Shapes: N frames, T steps, C features, D detections, K classes.
"""

import copy
import hashlib
import json
from typing import Self

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from microaction.models.detector.config import STEPS_PER_S, DetectorConfig
from microaction.models.detector.decoding import Detections
from microaction.models.detector.detection_network import STORED_PARTS, DetectionNetwork, detector_of
from microaction.models.detector.frame_features import frame_features
from microaction.models.detector.network import PointDetector
from microaction.models.detector.scoring import find_detections
from microaction.models.interface import ChannelStatistics, Network
from microaction.models.layers import store_channels_last
from microaction.models.normalize import normalize_frames

ROWS_PER_PRODUCT = 64  # of the first layer: one size, so that rounding does not depend on where a video is cut


class FeatureExtractor(nn.Module):
    """A detector's backbone and first layer, as fast as the device can: folded batch norms, channels last, in `dtype`.

    The first layer stays in float32. Batches of the backbone have `batch_size` frames.
    """

    def __init__(
        self, model: DetectionNetwork, statistics: ChannelStatistics, dtype: torch.dtype, batch_size: int
    ) -> None:
        super().__init__()
        self.statistics, self.dtype, self.batch_size, self.config = statistics, dtype, batch_size, model.config
        self.backbone = copy.deepcopy(model.backbone).eval().requires_grad_(False)
        self.backbone.fold_norms()
        self.backbone.to(dtype)
        store_channels_last(self.backbone)
        self.detector = copy.deepcopy(model.detector).eval().requires_grad_(False).float()
        self.eval()

    @torch.inference_mode()
    def features(self, frames_NHWC: Tensor, row_T: Tensor, first: int, steps: range, num_steps: int) -> Tensor:
        """Return the features [T, C] (float32) of `steps` of a video of `num_steps`, on the device.

        `frames_NHWC` are uint8, `row_T` the rows of the frames of the steps from `first` on, which `config.needed_steps` names.
        """
        device = next(self.backbone.parameters()).device

        def frames_of(part: range) -> Tensor:
            chosen = frames_NHWC[row_T[part.start - first : part.stop - first]].to(device, non_blocking=True)
            return normalize_frames(chosen[None], self.statistics)[0].to(self.dtype)

        return frame_features(self.backbone, self.config, frames_of, steps, num_steps, self.batch_size).float()

    @torch.inference_mode()
    def forward(self, frames_NHWC: Tensor, row_T: Tensor, first: int, steps: range, num_steps: int) -> Tensor:
        """Return what is stored of `steps` [T, width]: the first layer's output in float16, on the CPU."""
        around = range(max(steps.start - 1, 0), min(steps.stop + 1, num_steps))
        features_TC = self.features(frames_NHWC, row_T, first, around, num_steps)
        return self.embedded(features_TC, steps.start - around.start, len(steps))

    @torch.inference_mode()
    def embedded(self, features_TC: Tensor, offset: int, num_steps: int) -> Tensor:
        """Return the first layer's output [T, width] (float16, on the CPU) of `num_steps` features from `offset` on; beyond those
        given there are none."""
        padded = nn.functional.pad(features_TC, (0, 0, 1, 1))[offset : offset + num_steps + 2]
        neighborhoods_TN = torch.cat([padded[:-2], padded[1:-1], padded[2:]], dim=1)
        parts = []
        for start in range(0, num_steps, ROWS_PER_PRODUCT):
            some = neighborhoods_TN[start : start + ROWS_PER_PRODUCT]
            filled = nn.functional.pad(some, (0, 0, 0, ROWS_PER_PRODUCT - len(some)))
            parts.append(self.detector.embed(filled)[: len(some)])
        return torch.cat(parts).half().cpu()


def features_digest(model: Network, preprocessing: BaseModel) -> str:
    """Return the digest of all that decides what is stored of a frame: backbone, first layer and preprocessing.

    Detectors that agree in it have the same stored features: the rest of one takes those of the other.
    """
    assert isinstance(model, DetectionNetwork)
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name.startswith(STORED_PARTS)
    }
    described = [model.config.backbone.model_dump(mode="json"), preprocessing.model_dump(mode="json")]
    digest = hashlib.sha256(safetensors.torch.save(weights))
    digest.update(json.dumps(described, sort_keys=True).encode())
    return digest.hexdigest()


class DetectionHead:
    """The rest of a detector, on the CPU in float32: from what is stored of a whole video to its detections. A pure function."""

    def __init__(self, detector: PointDetector, config: DetectorConfig) -> None:
        self.detector, self.config = copy.deepcopy(detector).cpu().float().eval().requires_grad_(False), config

    @torch.inference_mode()
    def __call__(self, embedded_TC: np.ndarray) -> tuple[Detections, np.ndarray]:
        """Return the detections, in seconds from the first step, and the dense probabilities [T, K] (float32).

        `embedded_TC`: float16 [T, width], of all steps of a video.
        """
        outputs = self.detector.detect(torch.from_numpy(np.ascontiguousarray(embedded_TC)).float()[None])
        num_steps = len(embedded_TC)
        found = find_detections(outputs, num_steps, self.config.score)
        assert outputs.dense is not None
        dense_TK: np.ndarray = outputs.dense[0, :num_steps].sigmoid().numpy()
        return found._replace(segments_D2=(found.segments_D2 + 0.5) / STEPS_PER_S), dense_TK

    def to_bytes(self) -> bytes:
        """Return the head as a safetensors file, with its configuration."""
        weights = {name: tensor.contiguous() for name, tensor in self.detector.state_dict().items()}
        metadata = {
            "config": self.config.model_dump_json(),
            "input_channels": str(self.detector.options.input_channels),
        }
        return bytes(safetensors.torch.save(weights, metadata=metadata))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return what `to_bytes` made a file of."""
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        config = DetectorConfig.model_validate_json(metadata["config"])
        detector = detector_of(config, int(metadata["input_channels"]))
        detector.load_state_dict(safetensors.torch.load(data), strict=True)
        return cls(detector, config)
