"""One training worker's network and what changes it: loss, optimizer, average of the weights. Knows no Ray.

Shapes: B clips of this worker's shard of a global batch, T frames, H height, W width, C features, K actions, D embedding, L
residual branches.
"""

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from microaction.models import JointEmbeddingLoss, Network, build_model
from microaction.models.families import family_of
from microaction.models.initial import load_initial_paths, load_initial_weights
from microaction.models.inputs import predict, prepare_inputs
from microaction.models.interface import Prediction
from microaction.models.layers import store_channels_last
from microaction.models.video_classifier import VideoClassifier
from microaction.training.batch_norm import convert_batch_norms
from microaction.training.errors import TrainingError
from microaction.training.global_batch import gather_batch, sum_of
from microaction.training.optimizer import build_optimizer, scaled_learning_rate, schedule, set_learning_rate
from microaction.training.settings import TrainSettings

DROP_PATH_STREAM = 1  # of random numbers, beside that of dropout


class Learner:
    """A replica of the network and all that training adds to it: what all tasks have in common.

    Each of `num_ranks` workers has one, with the same state; with more than one, `replica` must be wrapped for distributed
    training before `train_step` is called. Everything random in a step depends on (seed, step, clip) alone: neither the number
    of workers nor a restart changes it.
    """

    def __init__(
        self,
        settings: TrainSettings,
        num_steps: int,
        device: torch.device,
        *,
        num_ranks: int = 1,
        resumes: bool = False,
    ) -> None:
        """`num_steps` are those of an epoch. With `resumes` the state will be loaded, and `init` is not read."""
        self.settings, self.recipe, self.device, self.num_ranks = settings, settings.recipe, device, num_ranks
        torch.manual_seed(settings.seed)  # the same initial weights everywhere
        self.model = build_model(settings.model)
        if not resumes:
            load_initial(self.model, settings)
        if self.recipe.gradient_checkpointing:
            _keep_inputs_alone(self.model)
        self.model.to(device)
        store_channels_last(self.model)
        convert_batch_norms(self.model, self.recipe.batch_norm, device)
        self.replica = cast(nn.Module, torch.compile(self.model)) if self.recipe.compile else self.model
        self.optimizer = build_optimizer(self.model, settings.model, self.recipe)
        self.rate_factor = schedule(self.recipe, num_steps)
        self.ema_model: AveragedModel | None = None
        if self.recipe.ema_decay is not None:
            average = get_ema_multi_avg_fn(self.recipe.ema_decay)  # type: ignore[no-untyped-call]
            self.ema_model = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)

    def _step(self, num_clips: int, step: int, backward: Callable[[slice], Tensor]) -> Tensor:
        """Do one step of the optimizer, whose gradients `backward` accumulates from parts of this worker's clips; return the
        sum of what it returns."""
        self.replica.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.device)
        parts = self._parts(num_clips)
        for number, part in enumerate(parts, start=1):
            # The gradients of all workers are reduced once per step.
            accumulates = number < len(parts) and isinstance(self.replica, DistributedDataParallel)
            with cast(DistributedDataParallel, self.replica).no_sync() if accumulates else nullcontext():
                loss += backward(part)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_gradient_norm)
        set_learning_rate(self.optimizer, scaled_learning_rate(self.recipe) * self.rate_factor(step))
        self.optimizer.step()
        if self.ema_model is not None:
            self.ema_model.update_parameters(self.model)
        return loss

    @property
    def eval_model(self) -> Network:
        """The network that is validated and saved: the average of the weights if there is one."""
        return self.model if self.ema_model is None else cast(Network, self.ema_model.module)

    def state(self) -> dict[str, Any]:
        """Return all that training resumes from, copied, so that the next step does not change it; tensors are on the CPU."""
        state: dict[str, Any] = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.ema_model is not None:
            state["ema_model"] = self.ema_model.state_dict()
        return cast(dict[str, Any], _copied(state))

    def load_state(self, state: dict[str, Any]) -> None:
        """Load what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema_model is not None:
            self.ema_model.load_state_dict(state["ema_model"])

    def _parts(self, num_clips: int) -> list[slice]:
        """Return the clips of each forward pass: equally many passes in every worker, because they wait for each other."""
        max_clips = -(-self.recipe.batch_size // self.num_ranks)
        num_parts = -(-max_clips // (self.recipe.micro_batch_size or max_clips))
        borders = [round(part * num_clips / num_parts) for part in range(num_parts + 1)]
        return [slice(start, end) for start, end in itertools.pairwise(borders)]

    def _drop_path_mask(self, index_B: Sequence[int], step: int) -> Tensor | None:
        """Return stochastic depth [B, L]: 0 or 1/(1 − rate) for every residual branch."""
        rates = self.model.drop_path_rates
        if not any(rates):
            return None
        rate_L = torch.tensor(rates, device=self.device)
        return (self._random((len(rates),), index_B, step, DROP_PATH_STREAM) >= rate_L) / (1 - rate_L)

    def _random(self, shape: Sequence[int], index_B: Sequence[int], step: int, *stream: int) -> Tensor:
        """Return numbers in [0, 1) [B, *shape] that depend on seed, step, clip and stream alone."""
        generator = torch.Generator()
        seeds = [seed_of(self.settings.seed, step, index, *stream) for index in index_B]
        return torch.stack([torch.rand(shape, generator=generator.manual_seed(seed)) for seed in seeds]).to(self.device)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")


class RecognitionLearner(Learner):
    """A learner of clips, each with one label."""

    def __init__(
        self,
        settings: TrainSettings,
        label_embeddings_KD: Tensor,
        num_steps: int,
        device: torch.device,
        *,
        num_ranks: int = 1,
        resumes: bool = False,
    ) -> None:
        """See `Learner`."""
        super().__init__(settings, num_steps, device, num_ranks=num_ranks, resumes=resumes)
        self.loss = JointEmbeddingLoss(
            label_embeddings_KD, self.recipe.embedding_loss_weight, self.recipe.label_smoothing
        ).to(device)
        of_batch = family_of(settings.model).batch_loss
        self.batch_loss = None if of_batch is None else of_batch(self.model)

    def train_step(
        self,
        frames_BTHWC: Tensor,
        target_B: Tensor,
        index_B: Sequence[int],
        step: int,
        keypoints_BMTK3: Tensor | None = None,
    ) -> Tensor:
        """Do one step of the optimizer: step number `step` (from 0) of the run.

        `frames_BTHWC` are uint8, `target_B` int64 and `keypoints_BMTK3`, for networks that see skeletons, float32, all on the
        device; `index_B` identifies the clips. Returns this worker's part of the loss (a scalar without gradient): the mean over
        all workers is that of the global batch.
        """

        def backward(part: slice) -> Tensor:
            keypoints = None if keypoints_BMTK3 is None else keypoints_BMTK3[part]
            return self._backward(frames_BTHWC[part], target_B[part], index_B[part], step, keypoints)

        return self._step(len(index_B), step, backward)

    @torch.inference_mode()
    def predict(self, frames_BTHWC: Tensor, keypoints_BMTK3: Tensor | None = None) -> Prediction:
        """Return what the network says (float32) of uint8 frames, and keypoints, of all views on the device."""
        self.eval_model.eval()
        with self._precision():
            return predict(self.eval_model, frames_BTHWC, keypoints_BMTK3, self.settings.preprocessing)

    def _backward(
        self,
        frames_BTHWC: Tensor,
        target_B: Tensor,
        index_B: Sequence[int],
        step: int,
        keypoints_BMTK3: Tensor | None,
    ) -> Tensor:
        num_clips = len(index_B)
        if num_clips == 0:  # the other workers wait for this one's gradients: it adds zeros
            frames_BTHWC, target_B = frames_BTHWC.new_zeros((1, *frames_BTHWC.shape[1:])), target_B.new_zeros(1)
            if keypoints_BMTK3 is not None:
                keypoints_BMTK3 = keypoints_BMTK3.new_zeros((1, *keypoints_BMTK3.shape[1:]))
            index_B = [0]
        inputs = prepare_inputs(self.model, frames_BTHWC, keypoints_BMTK3, self.settings.preprocessing)
        with self._precision():
            outputs = self.replica(
                inputs._replace(
                    dropout_mask_BTC=self._dropout_mask(index_B, step),
                    drop_path_mask_BL=self._drop_path_mask(index_B, step),
                )
            )
        if self.batch_loss is not None:
            max_clips = -(-self.recipe.batch_size // self.num_ranks)
            outputs, target_B = gather_batch(outputs, target_B, num_clips, max_clips)
            # If not one clip of the batch could be read, a loss of 0 that still has gradients.
            loss = self.batch_loss(outputs, target_B) if len(target_B) else 0 * sum_of(outputs)
            # Every worker has the loss of the global batch, of whose gradient its own clips give a part; parts are averaged.
            (loss * self.num_ranks).backward()
            return cast(Tensor, loss.detach())
        # A mean over the global batch, whatever the size of each worker's part; clips that could not be read count as nothing.
        weight = num_clips * self.num_ranks / self.recipe.batch_size
        embedding_BD = None if outputs.embedding is None else outputs.embedding.float()
        loss = weight * self.loss(outputs.logits.float(), embedding_BD, target_B)
        loss.backward()
        return cast(Tensor, loss.detach())

    def _dropout_mask(self, index_B: Sequence[int], step: int) -> Tensor | None:
        """Return dropout [B, T, C]: 0 or 1/(1 − dropout) for every feature of every frame."""
        shape, probability = self.model.dropout_shape, self.model.dropout_probability
        if shape is None or probability == 0:
            return None
        return (self._random(shape, index_B, step) >= probability) / (1 - probability)


def load_initial(model: Network, settings: TrainSettings) -> None:
    """Load the weights that training starts with, if the settings name any. Raises `CheckpointError`."""
    if settings.init is not None and settings.init_pose is not None:
        load_initial_paths(model, settings.init, settings.init_pose)
    elif settings.init is not None:
        load_initial_weights(model, settings.init)


def _keep_inputs_alone(model: Network) -> None:
    if not isinstance(model, VideoClassifier):
        raise TrainingError("recipe.gradient_checkpointing: this network has no blocks to recompute; leave it out")
    try:
        model.set_gradient_checkpointing()
    except ValueError as error:
        raise TrainingError(f"recipe.gradient_checkpointing: {error}") from error


def seed_of(*numbers: int) -> int:
    """Return a seed for torch that every combination of numbers changes."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in value]
    return value
