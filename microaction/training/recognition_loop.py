"""Training of networks that classify clips: what is theirs of the loop."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from microaction.clips.ingest import ClipBatch, read_clips
from microaction.clips.sample import Augmentation, Sampling
from microaction.clips.skeletons import ClipSkeletons
from microaction.distributed.progress import ProgressChannel
from microaction.evaluation.calibration import fit_temperature, probabilities_of
from microaction.evaluation.metrics import measure
from microaction.evaluation.report import predictions_table
from microaction.models import Calibration
from microaction.training.checkpoints import PREDICTIONS_FILE
from microaction.training.device import on_device
from microaction.training.learner import RecognitionLearner
from microaction.training.loop import Measured, Trainer
from microaction.training.settings import TrainSettings
from microaction.training.split import read_splits
from microaction.training.telemetry import RECOGNITION_SCORE
from microaction.training.validation import ValidationScores, validate
from microaction.video.transforms import ResizedCrop


class RecognitionTrainer(Trainer):
    """Trains a network that classifies clips."""

    score = RECOGNITION_SCORE
    learner: RecognitionLearner

    def __init__(
        self,
        settings: TrainSettings,
        channel: ProgressChannel,
        num_threads: int,
        label_embeddings_KD: Tensor,
        skeletons: ClipSkeletons | None = None,
    ) -> None:
        super().__init__(settings, channel, num_threads)
        self._label_embeddings_KD, self.skeletons = label_embeddings_KD, skeletons
        self.train_clips, self.val_clips = read_splits(settings)
        self.start(np.array([clip.label for clip in self.train_clips]))

    def make_learner(self, *, resumes: bool) -> RecognitionLearner:
        """Return the learner of this worker."""
        return RecognitionLearner(
            self.settings,
            self._label_embeddings_KD,
            self.num_steps,
            self.device,
            num_ranks=self.num_ranks,
            resumes=resumes,
        )

    def read_batches(self, epoch: int, draws_SB: np.ndarray) -> Iterator[ClipBatch]:
        """Yield this worker's batches of some steps of an epoch."""
        augmentation = augmentation_of(self.settings, epoch)
        sampling = Sampling.of(self.settings.model, self.settings.preprocessing, augmentation, self.settings.people)
        return read_clips(
            self.train_clips,
            draws_SB.reshape(-1),
            sampling,
            draws_SB.shape[1],
            skeletons=self.skeletons,
            on_unreadable=self._leave_out,
        )

    def train_batches(self, batches: Iterator[ClipBatch], first_step: int) -> Iterator[Tensor]:
        """Do a step of each batch; yield this worker's part of the loss."""
        on_its_way = on_device(batches, self.device)
        for step, (batch, frames_BTHWC, keypoints_BMTK3) in enumerate(on_its_way, start=first_step):
            target_B = torch.from_numpy(batch.target_B).to(self.device)
            yield self.learner.train_step(frames_BTHWC, target_B, batch.index_B.tolist(), step, keypoints_BMTK3)

    def validate(self) -> ValidationScores:
        """Return the scores of the validation clips."""
        return validate(self.learner, self.val_clips, self.state.unreadable, self._leave_out, skeletons=self.skeletons)

    def measure(self, validated: ValidationScores) -> Measured:
        """Return metrics and calibration."""
        logits_NK, body_NP, clips = validated
        target_N = np.array([clip.label for clip in clips])
        temperature = fit_temperature(logits_NK, target_N)
        probabilities_NK = probabilities_of(logits_NK, temperature)
        metrics = measure(probabilities_NK, target_N, body_NP) | {"temperature": temperature}
        names = [clip.name for clip in clips]
        return Measured(
            metrics,
            {"calibration": Calibration(temperature=temperature)},
            {PREDICTIONS_FILE: predictions_table(names, probabilities_NK, target_N, body_NP)},
        )


def augmentation_of(settings: TrainSettings, epoch: int) -> Augmentation:
    """Return the random sampling of an epoch's clips."""
    recipe = settings.recipe
    resized = ResizedCrop(recipe.crop_area, recipe.crop_aspect) if recipe.crop == "resized" else None
    return Augmentation(
        settings.seed,
        epoch,
        recipe.crop_scales,
        resized,
        recipe.color_jitter,
        recipe.erasing,
        recipe.part_shift,
        recipe.part_scale,
    )
