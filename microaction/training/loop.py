"""The training loop that runs in every training process.

An epoch: its own order of the clips, of which each process takes its share of every global batch; then the validation
clips, each scored by one process; then a report with a checkpoint, from which a later start goes on.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from microaction import storage
from microaction.clips.ingest import ClipBatch, read_clips
from microaction.clips.manifest import read_list
from microaction.clips.progress import ProgressChannel
from microaction.clips.sample import Augmentation, Sampling
from microaction.config import TrainSettings
from microaction.evaluation import recognition_metrics
from microaction.model import CheckpointConfig, JointEmbeddingLoss, MANet, build_model, save_checkpoint
from microaction.model.checkpoint import load_weights
from microaction.model.initial import load_initial_weights
from microaction.model.normalize import normalize_frames
from microaction.taxonomy import ACTIONS
from microaction.training.optimizer import build_optimizer, scaled_learning_rate, schedule, set_learning_rate
from microaction.training.order import epoch_order, share_of_batches, steps_per_epoch
from microaction.versions import versions
from microaction.video import DecodeError

STATE_FILE = "training_state.pt"
UNREADABLE_FILE = "unreadable.json"
METRICS_FILE = "metrics.jsonl"
VALIDATION_BATCH_SIZE = 32
STEPS_PER_REPORT = 5


@dataclass(frozen=True)
class TrainingProgress:
    """Where training is: epochs and steps count from 1; `metrics` is there at the end of an epoch."""

    epoch: int
    num_epochs: int
    step: int
    num_steps: int
    loss: float
    metrics: dict[str, float] | None = None
    num_unreadable: int = 0


class Trainer:
    """What one training process holds: its replica, its optimiser and its share of the clips."""

    def __init__(
        self, settings: TrainSettings, label_embeddings_KD: Tensor, channel: ProgressChannel, num_threads: int
    ) -> None:
        context = ray.train.get_context()
        self.rank, self.num_ranks = context.get_world_rank(), context.get_world_size()
        self.settings, self.recipe = settings, settings.recipe
        self.channel = channel
        self.device = ray.train.torch.get_device()
        if self.device.type == "cpu":
            torch.set_num_threads(num_threads)
        self.train_clips = read_list(settings.train_list, settings.train_videos, settings.model.num_classes)
        self.val_clips = read_list(settings.val_list, settings.val_videos, settings.model.num_classes)
        self.unreadable: dict[str, str] = {}  # URI: why
        self.num_steps = steps_per_epoch(len(self.train_clips), self.recipe.batch_size)

        torch.manual_seed(settings.seed)  # the same first weights everywhere
        self.model = build_model(settings.model)
        if settings.init is not None:
            load_initial_weights(self.model, settings.init)
        self.model.to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss = JointEmbeddingLoss(
            label_embeddings_KD, self.recipe.embedding_loss_weight, self.recipe.label_smoothing
        ).to(self.device)
        self.optimizer = build_optimizer(self.model, self.recipe)
        self.rate_factor = schedule(self.recipe, self.num_steps)
        self.average: AveragedModel | None = None
        if self.recipe.ema_decay is not None:
            average = get_ema_multi_avg_fn(self.recipe.ema_decay)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)
        self.first_epoch = self._resume()
        self.replica: nn.Module = self.model
        if self.num_ranks > 1:
            self.replica = ray.train.torch.prepare_model(self.model, move_to_device=False)

    def run(self) -> None:
        for epoch in range(self.first_epoch, self.recipe.epochs):
            # By (seed, epoch, rank), so that a resumed run drops the same units as one that never stopped.
            torch.manual_seed(seed_of(self.settings.seed, epoch, self.rank))
            loss = self._train_epoch(epoch)
            scores = self._validate()
            metrics = {"loss": loss, **recognition_metrics(*scores)} if self.rank == 0 else {}
            self._report(epoch, metrics)

    def _train_epoch(self, epoch: int) -> float:
        self.replica.train()
        label_N = np.array([clip.label for clip in self.train_clips])
        order = epoch_order(label_N, self.settings.seed, epoch, self.recipe.class_balance)
        share = share_of_batches(order, self.recipe.batch_size, self.rank, self.num_ranks)
        augmentation = Augmentation(self.settings.seed, epoch, self.recipe.crop_scales)
        sampling = Sampling(self.settings.model.num_segments, self.settings.preprocessing, augmentation)
        batch_size = self.recipe.batch_size // self.num_ranks
        losses = torch.zeros(self.num_steps, device=self.device)
        batches = read_clips(self.train_clips, share, sampling, batch_size, on_unreadable=self._leave_out)
        for step, batch in enumerate(batches):
            losses[step] = self._step(batch, epoch * self.num_steps + step)
            if self.rank == 0 and (step + 1) % STEPS_PER_REPORT == 0:
                mean = losses[step + 1 - STEPS_PER_REPORT : step + 1].mean().item()
                self.channel.tell(TrainingProgress(epoch + 1, self.recipe.epochs, step + 1, self.num_steps, mean))
        mean_loss = losses.mean()
        if self.num_ranks > 1:
            dist.all_reduce(mean_loss)
            mean_loss /= self.num_ranks
        return float(mean_loss)

    def _leave_out(self, error: DecodeError) -> None:
        self.unreadable[error.uri] = error.reason
        num_clips = len(self.train_clips) + len(self.val_clips)
        if len(self.unreadable) > self.settings.max_unreadable_share * num_clips:
            raise DecodeError(
                error.uri,
                f"{error.reason}; of {num_clips} clips {len(self.unreadable)} cannot be read so far, more than "
                f"max_unreadable_share ({self.settings.max_unreadable_share}) allows",
            )

    def _step(self, batch: ClipBatch, step: int) -> Tensor:
        if len(batch.index_B) == 0:  # the other processes wait for this one's gradients: it has none to add
            nothing = np.zeros((1, *batch.frames_BTHWC.shape[1:]), np.uint8)
            batch = ClipBatch(nothing, np.zeros(1, np.int64), np.zeros(1, np.int64))
            return self._step_with(batch, step, weight=0.0)
        return self._step_with(batch, step, weight=1.0)

    def _step_with(self, batch: ClipBatch, step: int, weight: float) -> Tensor:
        frames_BTCHW = normalize_frames(
            torch.from_numpy(batch.frames_BTHWC).to(self.device), self.settings.preprocessing
        )
        with self._precision():
            logits_BK, embedding_BD = self.replica(frames_BTCHW)
        if embedding_BD is not None:
            embedding_BD = embedding_BD.float()
        loss: Tensor = self.loss(logits_BK.float(), embedding_BD, torch.from_numpy(batch.target_B).to(self.device))
        if not torch.isfinite(loss):
            raise RuntimeError(
                f"the loss is {loss.item()} at step {step}; lower recipe.learning_rate ({self.recipe.learning_rate})"
            )
        loss = weight * loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_gradient_norm)
        set_learning_rate(self.optimizer, scaled_learning_rate(self.recipe) * self.rate_factor(step))
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return loss.detach()

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    @property
    def measured(self) -> MANet:
        """The model that is validated and saved: the average of weights where there is one."""
        return self.model if self.average is None else cast(MANet, self.average.module)

    @torch.inference_mode()
    def _validate(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores [N, K] and targets [N] of all validation clips that can be read."""
        self.measured.eval()
        if self.num_ranks > 1:
            for buffer in self.measured.buffers():  # batch norms' statistics are of each process's own clips until here
                dist.broadcast(buffer, 0)
        share = np.arange(self.rank, len(self.val_clips), self.num_ranks)
        sampling = Sampling(self.settings.model.num_segments, self.settings.preprocessing)
        mine: list[tuple[np.ndarray, np.ndarray]] = []
        for batch in read_clips(self.val_clips, share, sampling, VALIDATION_BATCH_SIZE, on_unreadable=self._leave_out):
            if len(batch.index_B) == 0:
                continue
            frames_BTCHW = normalize_frames(
                torch.from_numpy(batch.frames_BTHWC).to(self.device), self.settings.preprocessing
            )
            with self._precision():
                logits_BK, _ = self.measured(frames_BTCHW)
            mine.append((logits_BK.float().cpu().numpy(), batch.index_B))
        shares: list[Any] = [(mine, self.unreadable)]
        if self.num_ranks > 1:
            shares = [None] * self.num_ranks
            dist.all_gather_object(shares, (mine, self.unreadable))
        scores_NK = np.full((len(self.val_clips), self.settings.model.num_classes), np.nan, np.float32)
        for pairs, unreadable in shares:
            self.unreadable |= unreadable
            for scores_BK, index_B in pairs:
                scores_NK[index_B] = scores_BK
        is_read = ~np.isnan(scores_NK).any(axis=1)
        return scores_NK[is_read], np.array([clip.label for clip in self.val_clips])[is_read]

    def _report(self, epoch: int, metrics: dict[str, float]) -> None:
        if self.rank != 0:
            ray.train.report({})
            return
        if self.unreadable:
            listed = json.dumps(self.unreadable, indent=2, sort_keys=True).encode()
            storage.write_bytes(
                storage.join(self.settings.storage_path, self.settings.name, UNREADABLE_FILE), listed + b"\n"
            )
        self._log(epoch + 1, metrics)
        config = CheckpointConfig(
            model=self.settings.model,
            preprocessing=self.settings.preprocessing,
            labels=ACTIONS,
            recipe=self.settings.model_dump(mode="json", exclude={"config"}) | {"epoch": epoch + 1},
            versions=versions(),
            metrics=metrics,
        )
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(self.measured, config, folder)
            state: dict[str, Any] = {"epoch": epoch + 1, "optimizer": self.optimizer.state_dict()}
            if self.average is not None:
                state |= {"model": self.model.state_dict(), "average": self.average.state_dict()}
            torch.save(state, Path(folder) / STATE_FILE)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"epoch": epoch + 1, **metrics}, checkpoint=checkpoint)
        self.channel.tell(
            TrainingProgress(
                epoch + 1,
                self.recipe.epochs,
                self.num_steps,
                self.num_steps,
                metrics["loss"],
                metrics,
                len(self.unreadable),
            )
        )

    def _log(self, epoch: int, metrics: dict[str, float]) -> None:
        """A line of JSON for each epoch; of epochs that are trained again after a failure the last time counts."""
        uri = storage.join(self.settings.storage_path, self.settings.name, METRICS_FILE)
        lines = storage.read_bytes(uri).decode().splitlines() if storage.exists(uri) else []
        kept = [line for line in lines if json.loads(line)["epoch"] < epoch]
        rate = self.optimizer.param_groups[0]["lr"]
        kept.append(json.dumps({"epoch": epoch, "learning_rate": rate, "unreadable": len(self.unreadable)} | metrics))
        storage.write_bytes(uri, "".join(f"{line}\n" for line in kept).encode())

    def _resume(self) -> int:
        """Loads the last reported state, if any; returns the epoch to go on with."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return 0
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder) / STATE_FILE, map_location=self.device, weights_only=True)
            load_weights(self.model, folder)
        if self.average is not None:
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["epoch"])


def train_process(config: dict[str, Any]) -> None:
    """Ray Train's entry: one of these runs in every training process."""
    settings = TrainSettings.model_validate_json(config["settings"])
    Trainer(settings, config["label_embeddings"], config["channel"], config["num_threads"]).run()


def seed_of(*numbers: int) -> int:
    """A seed for torch that every combination of numbers changes."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
