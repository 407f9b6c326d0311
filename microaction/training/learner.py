"""One training process's model and what changes it: loss, optimiser, average of weights. Knows no Ray.

Shapes: B clips of this process's share of a global batch, T frames, H height, W width, C features, K actions, D embedding.
"""

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from microaction.config import TrainSettings
from microaction.model import JointEmbeddingLoss, MANet, build_model
from microaction.model.initial import load_initial_weights
from microaction.model.normalize import normalize_frames
from microaction.training.batch_norm import convert_batch_norms
from microaction.training.optimizer import build_optimizer, scaled_learning_rate, schedule, set_learning_rate


class Learner:
    """A replica of the model and all that training adds to it.

    `num_ranks` processes each have one, with the same state; with more than one, `replica` must be wrapped for distributed
    training before `learn` is called. All that is random in a step hangs on (seed, step, clip) alone: so neither
    the number of processes nor a restart changes it.
    """

    def __init__(
        self,
        settings: TrainSettings,
        label_embeddings_KD: Tensor,
        num_steps: int,
        device: torch.device,
        *,
        num_ranks: int = 1,
        begin: bool = True,
    ) -> None:
        """`num_steps` are those of an epoch. With `begin` False the state is going to be loaded, and `init` is not read."""
        self.settings, self.recipe, self.device, self.num_ranks = settings, settings.recipe, device, num_ranks
        torch.manual_seed(settings.seed)  # the same first weights everywhere
        self.model = build_model(settings.model)
        if begin and settings.init is not None:
            load_initial_weights(self.model, settings.init)
        self.model.to(device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        convert_batch_norms(self.model, self.recipe.batch_norm, device)
        self.replica = cast(nn.Module, torch.compile(self.model)) if self.recipe.compile else self.model
        self.loss = JointEmbeddingLoss(
            label_embeddings_KD, self.recipe.embedding_loss_weight, self.recipe.label_smoothing
        ).to(device)
        self.optimizer = build_optimizer(self.model, self.recipe)
        self.rate_factor = schedule(self.recipe, num_steps)
        self.average: AveragedModel | None = None
        if self.recipe.ema_decay is not None:
            average = get_ema_multi_avg_fn(self.recipe.ema_decay)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)

    def learn(self, frames_BTHWC: Tensor, target_B: Tensor, index_B: Sequence[int], step: int) -> Tensor:
        """One step of the optimiser: step number `step` (from 0) of the run.

        `frames_BTHWC` are uint8 and `target_B` int64, both on the device; `index_B` tells clips apart. Returns this process's
        part of the loss (a scalar without gradient): the mean of all processes' is that of the global batch.
        """
        self.replica.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.device)
        parts = self._parts(len(index_B))
        for number, part in enumerate(parts, start=1):
            # The gradients of all processes are added up once a step.
            waits = number < len(parts) and isinstance(self.replica, DistributedDataParallel)
            with cast(DistributedDataParallel, self.replica).no_sync() if waits else nullcontext():
                loss += self._backward(frames_BTHWC[part], target_B[part], index_B[part], step)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_gradient_norm)
        set_learning_rate(self.optimizer, scaled_learning_rate(self.recipe) * self.rate_factor(step))
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return loss

    @property
    def measured(self) -> MANet:
        """The model that is validated and saved: the average of weights where there is one."""
        return self.model if self.average is None else cast(MANet, self.average.module)

    @torch.inference_mode()
    def classify(self, frames_BTHWC: Tensor) -> Tensor:
        """Logits [B, K] (float32) of uint8 frames on the device."""
        self.measured.eval()
        with self._precision():
            logits_BK, _ = self.measured(normalize_frames(frames_BTHWC, self.settings.preprocessing))
        return cast(Tensor, logits_BK.float())

    def state(self) -> dict[str, Any]:
        """All that training goes on from, copied, so that the next step does not change it; tensors are on the CPU."""
        state: dict[str, Any] = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.average is not None:
            state["average"] = self.average.state_dict()
        return cast(dict[str, Any], _copied(state))

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def _parts(self, num_clips: int) -> list[slice]:
        """The clips of each forward pass: as many passes in every process, for they wait for each other."""
        most = -(-self.recipe.batch_size // self.num_ranks)
        num_parts = -(-most // (self.recipe.micro_batch_size or most))
        borders = [round(part * num_clips / num_parts) for part in range(num_parts + 1)]
        return [slice(start, end) for start, end in itertools.pairwise(borders)]

    def _backward(self, frames_BTHWC: Tensor, target_B: Tensor, index_B: Sequence[int], step: int) -> Tensor:
        # A mean over the global batch, whatever each process's part of it; clips that could not be read count as nothing.
        weight = len(index_B) * self.num_ranks / self.recipe.batch_size
        if len(index_B) == 0:  # the other processes wait for this one's gradients: it has none to add
            frames_BTHWC, target_B = frames_BTHWC.new_zeros((1, *frames_BTHWC.shape[1:])), target_B.new_zeros(1)
            index_B = [0]
        frames_BTCHW = normalize_frames(frames_BTHWC, self.settings.preprocessing)
        with self._precision():
            logits_BK, embedding_BD = self.replica(frames_BTCHW, self._kept(index_B, step))
        if embedding_BD is not None:
            embedding_BD = embedding_BD.float()
        loss: Tensor = weight * self.loss(logits_BK.float(), embedding_BD, target_B)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _kept(self, index_B: Sequence[int], step: int) -> Tensor | None:
        """Dropout [B, T, C]: 0 or 1/(1 − dropout) for every feature of every frame."""
        model = self.settings.model
        if model.dropout == 0:
            return None
        generator = torch.Generator()
        shape = (model.num_segments, self.model.backbone.num_features)
        kept = [
            torch.rand(shape, generator=generator.manual_seed(seed_of(self.settings.seed, step, index)))
            >= model.dropout
            for index in index_B
        ]
        return torch.stack(kept).to(self.device) / (1 - model.dropout)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")


def seed_of(*numbers: int) -> int:
    """A seed for torch that every combination of numbers changes."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in value]
    return value
