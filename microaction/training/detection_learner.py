"""One training worker's detector and what changes it. Knows no Ray.

Shapes: B clips of this worker's shard of a global batch, T steps of a clip, C features, H height, W width, K actions, N instances
of a clip, P points, L residual branches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from microaction.models.detector.detection_network import DetectionInputs, DetectionNetwork
from microaction.models.detector.inference import DetectionHead
from microaction.models.detector.loss import DetectionLoss, dense_loss, detection_loss, num_positive
from microaction.models.detector.network import DetectorOutputs
from microaction.models.detector.targets import Points, Targets, assign_targets, dense_targets
from microaction.models.normalize import normalize_frames
from microaction.training.learner import Learner
from microaction.training.settings import TrainSettings


@dataclass(frozen=True)
class DetectionBatch:
    """B clips of up to T steps: their features [B, T, C] (float16), or frames [B, T, H, W, 3] (uint8), filled up with zeros; the
    number of steps of each, the visible parts of its instances [N, 2] (float32, in grid units), their labels [N] (int64), which
    of them points learn to find (bool [N]; the dense probabilities learn all), and its index."""

    inputs_BT: Tensor
    lengths_B: tuple[int, ...]
    segments_B: tuple[Tensor, ...]
    labels_B: tuple[Tensor, ...]
    is_kept_B: tuple[Tensor, ...]
    index_B: tuple[int, ...]


class DetectionLearner(Learner):
    """A learner of clips of untrimmed video, each with its instances."""

    model: DetectionNetwork

    def __init__(
        self,
        settings: TrainSettings,
        num_steps: int,
        device: torch.device,
        *,
        num_ranks: int = 1,
        resumes: bool = False,
    ) -> None:
        """See `Learner`."""
        super().__init__(settings, num_steps, device, num_ranks=num_ranks, resumes=resumes)
        if self.recipe.freeze_backbone:
            self.model.backbone.requires_grad_(False)
        if self.recipe.freeze_first_layer:
            self.model.detector.embedding[0].requires_grad_(False)
            self.model.detector.embedding_norms[0].requires_grad_(False)
        self.config = self.model.config
        self.loss = DetectionLoss()

    def train_step(self, batch: DetectionBatch, step: int) -> Tensor:
        """Do one step of the optimizer: step number `step` (from 0) of the run.

        Returns this worker's part of the loss (a scalar without gradient): the mean over all workers is that of the global
        batch.
        """
        T = batch.inputs_BT.shape[1]
        padded = T + -T % self.model.detector.options.pad_to
        points = Points.of_levels([padded >> level for level in range(self.config.pyramid_levels)])
        is_per_class, K = self.config.boundaries == "per-class", self.config.num_classes
        clips = list(zip(batch.segments_B, batch.labels_B, batch.is_kept_B, strict=True))
        targets = [
            assign_targets(segments[is_kept], labels[is_kept], points, K, per_class=is_per_class)
            for segments, labels, is_kept in clips
        ]
        dense = [dense_targets(segments, labels, T, K) for segments, labels, _ in clips]
        masks = [points.position_P < length for length in batch.lengths_B]
        counts = torch.tensor(
            [sum(num_positive(*each) for each in zip(targets, masks, strict=True)), sum(batch.lengths_B)],
            dtype=torch.float64,
        )
        if self.num_ranks > 1:
            counts = counts.to(self.device)
            dist.all_reduce(counts)
        num_points, num_real = (int(count) for count in counts.tolist())
        self.loss.count(num_points)

        def backward(part: slice) -> Tensor:
            if part.start == part.stop:  # the other workers wait for this one's gradients: it adds zeros
                return self._backward_of_nothing(batch, step)
            outputs = self._outputs(batch, part, step)
            with torch.autocast(self.device.type, enabled=False):
                loss = self._loss(outputs, targets[part], dense[part], max(1, num_real))
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        return self._step(len(batch.index_B), step, backward)

    def detection_head(self) -> DetectionHead:
        """Return a copy of what turns features into detections."""
        return DetectionHead(cast(DetectionNetwork, self.eval_model).detector, self.config)

    def state(self) -> dict[str, Any]:
        """Return all that training resumes from, copied."""
        return super().state() | {"normalizer": self.loss.normalizer.clone()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Load what `state` returned."""
        super().load_state(state)
        self.loss.normalizer.copy_(state["normalizer"])

    def _outputs(self, batch: DetectionBatch, part: slice, step: int) -> DetectorOutputs:
        inputs_BT, lengths_B = batch.inputs_BT[part].to(self.device), batch.lengths_B[part]
        masks_BL = self._drop_path_mask(batch.index_B[part], step)
        if inputs_BT.dtype == torch.uint8:
            frames = normalize_frames(inputs_BT, self.settings.preprocessing)
            inputs = DetectionInputs(lengths_B, frames_BTCHW=frames, drop_path_mask_BL=masks_BL)
        else:
            inputs = DetectionInputs(lengths_B, features_BTC=inputs_BT.float(), drop_path_mask_BL=masks_BL)
        with self._precision():
            return cast(DetectorOutputs, self.replica(inputs))

    def _loss(
        self, outputs: DetectorOutputs, targets: Sequence[Targets], dense: Sequence[Tensor], num_real: int
    ) -> Tensor:
        """Return what this part adds to the global batch's loss, times the number of workers, over which it is averaged."""
        assert outputs.dense is not None
        T, dense_BTK = dense[0].shape[0], outputs.dense
        floats = outputs._replace(logits=outputs.logits.float(), offsets=outputs.offsets.float())
        on_device = [Targets(*(tensor.to(self.device) for tensor in each)) for each in targets]
        smoothing = self.recipe.label_smoothing
        terms = detection_loss(floats, on_device, float(self.loss.normalizer), label_smoothing=smoothing)
        summed = dense_loss(dense_BTK[:, :T].float(), outputs.mask[:, :T], torch.stack(list(dense)).to(self.device))
        mean = summed / (num_real * self.config.num_classes)
        return self.num_ranks * (terms.total + self.recipe.dense_loss_weight * mean)

    def _backward_of_nothing(self, batch: DetectionBatch, step: int) -> Tensor:
        shape = (1, self.config.num_frames, *batch.inputs_BT.shape[2:])
        none = DetectionBatch(batch.inputs_BT.new_zeros(shape), (1,), (), (), (), (0,))
        outputs = self._outputs(none, slice(1), step)
        assert outputs.dense is not None
        zero: Tensor = 0 * (outputs.logits.sum() + outputs.offsets.sum() + outputs.dense.sum()).float()
        zero.backward()  # type: ignore[no-untyped-call]
        return zero.detach()
