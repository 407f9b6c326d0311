"""The training loop that runs in every training worker.

An epoch: its own order of the clips, of which each worker takes its shard of every global batch; then the validation clips,
each scored by one worker. Everything that a later start resumes from is one file, which the first worker writes periodically
and at the end of every epoch; a killed run repeats the steps since then, with the same result.
"""

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import Tensor

from microaction import storage
from microaction.distributed.progress import ProgressChannel
from microaction.models import CheckpointConfig, save_checkpoint
from microaction.taxonomy import ACTIONS
from microaction.training.checkpoints import checkpoint_uri
from microaction.training.errors import TrainingError
from microaction.training.learner import Learner
from microaction.training.log import write_log
from microaction.training.order import epoch_order, shard_of_batches, steps_per_epoch
from microaction.training.progress import TrainingProgress
from microaction.training.settings import TrainSettings
from microaction.training.state import BackgroundWriter, Epoch, RunState, load_state, save_state
from microaction.training.telemetry import Metrics, TimedIterator
from microaction.versions import versions
from microaction.video import DecodeError

STEPS_PER_REPORT = 5  # also between checks of the clock and of preemption notices


@dataclass(frozen=True)
class Measured:
    """What the validation after an epoch found: metrics, among them the trainer's `score`; what the checkpoint's configuration
    gets of it, by field; and files that are kept with the best checkpoint, by name."""

    metrics: dict[str, float]
    config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


class Trainer(ABC):
    """One training worker: its learner, its shard of the clips, and how far the run is. A subclass knows what clips are.

    `score`: the metric that decides which checkpoint is the best.
    """

    score: str
    learner: Learner
    train_clips: Sequence[Any]
    val_clips: Sequence[Any]

    def __init__(self, settings: TrainSettings, channel: ProgressChannel, num_threads: int) -> None:
        context = ray.train.get_context()
        self.rank, self.num_ranks = context.get_world_rank(), context.get_world_size()
        self.settings, self.recipe = settings, settings.recipe
        self.run_uri = storage.join(settings.storage_path, settings.name)
        self.channel = channel
        self.device = ray.train.torch.get_device()
        if self.device.type == "cpu":
            torch.set_num_threads(num_threads)

    def start(self, label_N: np.ndarray) -> None:
        """Make the learner, and load the state of an earlier start. `label_N` are the labels of what an epoch draws from."""
        self.label_N = label_N
        self.num_steps = steps_per_epoch(len(label_N), self.recipe.batch_size)
        state = self._broadcast(load_state(self.run_uri) if self.rank == 0 else None)
        self.learner = self.make_learner(resumes=state is not None)
        self.state = state or RunState(0, torch.full((self.recipe.epochs * self.num_steps,), torch.nan), {})
        if state is not None:
            self.learner.load_state(state.learner)
        if self.num_ranks > 1:
            self.learner.replica = ray.train.torch.prepare_model(self.learner.replica, move_to_device=False)
        self.writer, self.metrics = BackgroundWriter(), Metrics(self.score)
        self.saved_s = time.monotonic()
        self.preemption: object = None

    @abstractmethod
    def make_learner(self, *, resumes: bool) -> Learner:
        """Return the learner of this worker."""

    @abstractmethod
    def read_batches(self, epoch: int, draws_SB: np.ndarray) -> Iterator[Any]:
        """Yield this worker's batches of some steps [S] of an epoch."""

    @abstractmethod
    def train_batches(self, batches: Iterator[Any], first_step: int) -> Iterator[Tensor]:
        """Do a step of each batch; yield this worker's part of the loss."""

    @abstractmethod
    def validate(self) -> Any:
        """Return what the first worker measures; all workers call this together."""

    @abstractmethod
    def measure(self, validated: Any) -> Measured:
        """Return how good the network is."""

    def run(self) -> None:
        """Train the epochs that are not done yet."""
        while self.state.step < len(self.state.losses):
            epoch = self.state.step // self.num_steps
            timing = self._train_epoch(epoch)
            started_s = time.monotonic()
            validated = self.validate()
            timing["validation_s"] = time.monotonic() - started_s
            if self.rank == 0:
                self._end_epoch(epoch, self.measure(validated), timing)
        self.writer.wait()

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Do the rest of the epoch; return how long it took, and which fraction of that was waiting for clips."""
        order = epoch_order(self.label_N, self.settings.seed, epoch, self.recipe.class_balance)
        shard = shard_of_batches(order, self.recipe.batch_size, self.rank, self.num_ranks)
        first_step = self.state.step
        waiting = TimedIterator(self.read_batches(epoch, shard[first_step - epoch * self.num_steps :]))
        losses: list[Tensor] = []
        started_s = time.monotonic()
        reported_s, reported_waiting_s = started_s, 0.0
        for step, loss in enumerate(self.train_batches(waiting, first_step), start=first_step):
            losses.append(loss)
            done = step + 1 - epoch * self.num_steps
            if done % STEPS_PER_REPORT == 0 or done == self.num_steps:
                self._record(losses)
                if self.rank == 0:
                    now_s = time.monotonic()
                    num_clips = len(losses) * self.recipe.batch_size
                    self.metrics.count(num_clips, now_s - reported_s, waiting.seconds - reported_waiting_s)
                    reported_s, reported_waiting_s = now_s, waiting.seconds
                losses.clear()
                if done < self.num_steps:
                    self._save_when_due()
                self._report(epoch, done)
        train_s = time.monotonic() - started_s
        return {
            "train_s": train_s,
            "data_wait_fraction": waiting.seconds / train_s,
            "clips_per_s": (self.state.step - first_step) * self.recipe.batch_size / train_s,
        }

    def _record(self, losses: list[Tensor]) -> None:
        """Record steps as done, with their losses over all workers."""
        mean_losses = torch.stack(losses)
        if self.num_ranks > 1:
            dist.all_reduce(mean_losses)
            mean_losses /= self.num_ranks
        first = self.state.step
        self.state.losses[first : first + len(losses)] = mean_losses.cpu()
        self.state.step += len(losses)
        for step, loss in enumerate(mean_losses.tolist(), start=first):
            if not np.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at step {step}: lower recipe.learning_rate ({self.recipe.learning_rate})"
                )

    def _save_when_due(self) -> None:
        """Save periodically, and at once when a node announces its end."""
        notice = ray.train.get_preemption_info()  # a barrier: all workers get the same answer
        is_new, self.preemption = notice != self.preemption, notice
        if self.rank != 0:
            return
        if notice is not None and is_new:
            self._save()
            self.writer.wait()
        elif time.monotonic() - self.saved_s > self.settings.checkpoint_interval_s and not self.writer.is_busy:
            self._save()

    def _save(self, *more: Callable[[], None], first: Callable[[], None] = lambda: None) -> None:
        """Write the present state beside training; before it `first`, after it `more`."""
        self.writer.wait()
        self.state.learner = self.learner.state()
        state = copy.copy(self.state)
        state.losses, state.unreadable = state.losses.clone(), dict(state.unreadable)

        def write() -> None:
            first()
            save_state(self.run_uri, state)
            for each in more:
                each()

        self.writer.start(write)
        self.saved_s = time.monotonic()

    def _leave_out(self, error: DecodeError) -> None:
        unreadable = self.state.unreadable
        unreadable[error.uri] = error.reason
        num_clips = len(self.train_clips) + len(self.val_clips)
        if len(unreadable) > self.settings.max_unreadable_fraction * num_clips:
            raise DecodeError(
                error.uri,
                f"{error.reason}; {len(unreadable)} of {num_clips} clips could not be read so far, more than "
                f"max_unreadable_fraction ({self.settings.max_unreadable_fraction}) allows",
            )

    def _end_epoch(self, epoch: int, measured: Measured, timing: dict[str, float]) -> None:
        """Keep the checkpoint if it is the best so far, and write the logs."""
        losses = self.state.losses[epoch * self.num_steps : self.state.step]
        metrics = {"loss": float(losses.mean()), **measured.metrics}
        self.metrics.observe_epoch(metrics)
        rate = self.learner.optimizer.param_groups[0]["lr"]
        finished = Epoch(epoch + 1, rate, len(self.state.unreadable), metrics, timing, time.time())
        before = {done.number: done.metrics[self.score] for done in self.state.epochs}
        self.state.epochs = [*self.state.epochs, finished]
        former_best = self.state.best_epoch
        is_best = former_best is None or metrics[self.score] > before[former_best]
        if is_best:
            self.state.best_epoch = epoch + 1
        model, config = copy.deepcopy(self.learner.eval_model), self._config(finished, measured)
        epochs, unreadable = self.state.epochs, dict(self.state.unreadable)
        all_losses = self.state.losses[: self.state.step].clone()

        def save_best() -> None:
            if is_best:
                uri = checkpoint_uri(self.run_uri, epoch + 1)
                for name, content in measured.files.items():
                    storage.write_bytes(storage.join(uri, name), content)
                save_checkpoint(model, config, uri)

        def delete_former_best() -> None:
            if is_best and former_best is not None:
                storage.delete_tree(checkpoint_uri(self.run_uri, former_best))

        self._save(
            delete_former_best,
            lambda: write_log(self.run_uri, epochs, all_losses, unreadable),
            first=save_best,
        )
        self._report(epoch, self.num_steps, metrics)

    def _config(self, epoch: Epoch, measured: Measured) -> CheckpointConfig:
        return CheckpointConfig(
            model=self.settings.model,
            preprocessing=self.settings.preprocessing,
            labels=ACTIONS,
            recipe=self.settings.model_dump(mode="json", exclude={"config"}) | {"epoch": epoch.number},
            versions=versions(),
            metrics=epoch.metrics,
            **measured.config,
        )

    def _report(self, epoch: int, done: int, metrics: dict[str, float] | None = None) -> None:
        if self.rank != 0:
            return
        step = epoch * self.num_steps + done
        loss = float(self.state.losses[max(0, step - STEPS_PER_REPORT) : step].mean())
        if metrics is not None:
            loss = metrics["loss"]
        num_unreadable = len(self.state.unreadable)
        self.channel.send(
            TrainingProgress(epoch + 1, self.recipe.epochs, done, self.num_steps, loss, metrics, num_unreadable)
        )

    def _broadcast(self, state: RunState | None) -> RunState | None:
        """Return the first worker's state in every worker: only one reads it, because the folder may change meanwhile."""
        if self.num_ranks == 1:
            return state
        states = [state]
        dist.broadcast_object_list(states, 0)
        return states[0]
