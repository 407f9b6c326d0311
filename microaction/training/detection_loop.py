"""Training of detectors of untrimmed video: what is theirs of the loop.

Where the backbone keeps its weights, the workers first compute its features of all videos, each of one shard; the epochs then
read features. Otherwise frames are decoded in every epoch, and the whole network learns.

Shapes: B clips, T steps of a clip, S steps of the optimizer, C features.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from microaction import storage
from microaction.clips.steps import VideoPart, read_steps
from microaction.distributed.progress import ProgressChannel
from microaction.evaluation.detection import TimedAction, timed_actions, truth_of
from microaction.evaluation.detection_calibration import apply_calibration, fit_score_calibration
from microaction.evaluation.detection_report import measure_detections
from microaction.evaluation.detection_table import detections_table
from microaction.evaluation.features import FRAMES_PER_BATCH, VideoFile, compute_features
from microaction.models.checkpoint import weights_bytes
from microaction.models.detector.config import DetectorConfig
from microaction.models.detector.detection_network import DetectionNetwork
from microaction.models.detector.inference import FeatureExtractor
from microaction.training.checkpoints import PREDICTIONS_FILE
from microaction.training.detection_data import (
    ClipPlace,
    TrainingVideo,
    VideoClip,
    clip_places,
    draw_clip,
    rarest_labels,
    read_facts,
    training_videos,
)
from microaction.training.detection_learner import DetectionBatch, DetectionLearner
from microaction.training.features import FEATURES_FOLDER, FeatureStore, digest_of_backbone
from microaction.training.loop import Measured, Trainer
from microaction.training.progress import TrainingProgress
from microaction.training.recognition_loop import augmentation_of
from microaction.training.settings import TrainSettings
from microaction.training.split import read_video_splits
from microaction.training.telemetry import DETECTION_SCORE
from microaction.video import DecodeError

READING_THREADS = 4
CLIPS_AHEAD = 64  # that are read while others are learned from


class DetectionTrainer(Trainer):
    """Trains a detector."""

    score = DETECTION_SCORE
    learner: DetectionLearner

    def __init__(self, settings: TrainSettings, channel: ProgressChannel, num_threads: int) -> None:
        super().__init__(settings, channel, num_threads)
        self.config = cast(DetectorConfig, settings.model)
        self.train_clips, self.val_clips = read_video_splits(settings)
        facts = read_facts(self.run_uri)
        self.train_videos, self.val_videos = (
            training_videos(videos, facts) for videos in (self.train_clips, self.val_clips)
        )
        self.places = clip_places(self.train_videos, self.config.num_frames)
        rarest_V = rarest_labels(self.train_videos)
        self.start(rarest_V[[place.video for place in self.places]])
        for video in (*self.train_clips, *self.val_clips):
            if facts[video.uri].reason:
                self._leave_out(DecodeError(video.uri, facts[video.uri].reason))
        self.store: FeatureStore | None = None
        if self.recipe.freeze_backbone:
            self.store = self._computed_features()

    def make_learner(self, *, resumes: bool) -> DetectionLearner:
        """Return the learner of this worker."""
        return DetectionLearner(self.settings, self.num_steps, self.device, num_ranks=self.num_ranks, resumes=resumes)

    def read_batches(self, epoch: int, draws_SB: np.ndarray) -> Iterator[DetectionBatch]:
        """Yield this worker's batches of some steps of an epoch."""
        clips = [self._drawn(epoch, int(draw)) for draw in draws_SB.reshape(-1)]
        inputs = self._read_features(clips) if self.store is not None else self._read_frames(epoch, clips)
        for row in draws_SB:
            batch = [(int(draw), *next(inputs)) for draw in row]
            yield self._batch([each for each in batch if each[2] is not None])

    def train_batches(self, batches: Iterator[DetectionBatch], first_step: int) -> Iterator[Tensor]:
        """Do a step of each batch; yield this worker's part of the loss."""
        for step, batch in enumerate(batches, start=first_step):
            yield self.learner.train_step(batch, step)

    def validate(self) -> list[TimedAction]:
        """Return the detections in the validation videos."""
        shard = self.val_videos[self.rank :: self.num_ranks]
        detector = cast(DetectionNetwork, self.learner.eval_model)
        extractor = self._extractor(detector)
        head = self.learner.detection_head()
        features = self._stored(shard) if self.store is not None else self._computed(shard, extractor)
        found: list[TimedAction] = []
        for video, features_TC in features:
            embedded_TC = extractor.embedded(torch.from_numpy(features_TC).float().to(self.device), 0, len(features_TC))
            detections, _ = head(embedded_TC.numpy())
            found += timed_actions(detections, video.video.name, video.facts.start_us, video.facts.duration_us)
        if self.num_ranks == 1:
            return found
        shards: list[Any] = [None] * self.num_ranks
        dist.all_gather_object(shards, (found, self.state.unreadable))
        for _, unreadable in shards:
            self.state.unreadable |= unreadable
        return [each for of_rank, _ in shards for each in of_rank]

    def measure(self, validated: list[TimedAction]) -> Measured:
        """Return metrics and calibration."""
        unreadable = self.state.unreadable
        truth = truth_of(video for video in self.val_clips if video.uri not in unreadable)
        calibration = fit_score_calibration(validated, truth, num_classes=self.config.num_classes)
        measured = measure_detections(apply_calibration(validated, calibration), truth, calibration.thresholds)
        return Measured(
            measured.metrics, {"score_calibration": calibration}, {PREDICTIONS_FILE: detections_table(validated)}
        )

    def _drawn(self, epoch: int, draw: int) -> tuple[int, TrainingVideo, VideoClip]:
        place: ClipPlace = self.places[draw % len(self.places)]
        rng = np.random.default_rng((self.settings.seed, epoch, draw))
        video = self.train_videos[place.video]
        return draw, video, draw_clip(video, place, self.config.num_frames, rng)

    def _read_features(
        self, clips: Sequence[tuple[int, TrainingVideo, VideoClip]]
    ) -> Iterator[tuple[VideoClip, np.ndarray | None]]:
        """Yield each clip and its features [T, C], read ahead by threads; None for a video that cannot be decoded."""
        store = self.store
        assert store is not None
        with ThreadPoolExecutor(READING_THREADS, thread_name_prefix="features") as pool:
            waiting: list[Future[np.ndarray]] = []
            for number, (_, _, clip) in enumerate(clips):
                for _, ahead, part in clips[number + len(waiting) : number + CLIPS_AHEAD]:
                    waiting.append(pool.submit(store.read, ahead, part.steps))
                try:
                    yield clip, waiting.pop(0).result()
                except DecodeError as error:
                    self._leave_out(error)
                    yield clip, None

    def _read_frames(
        self, epoch: int, clips: Sequence[tuple[int, TrainingVideo, VideoClip]]
    ) -> Iterator[tuple[VideoClip, np.ndarray | None]]:
        """Yield each clip and its frames [T, H, W, 3]; None for one that cannot be decoded."""
        parts = [
            VideoPart(video.video.uri, clip.steps, video.facts.duration_us, draw, video.region)
            for draw, video, clip in clips
        ]
        decoded = read_steps(
            parts,
            self.settings.preprocessing,
            augmentation_of(self.settings, epoch),
            on_unreadable=self._leave_out,
        )
        for (_, _, clip), frames in zip(clips, decoded, strict=True):
            yield clip, None if frames is None else frames.frames_NHWC[frames.row_T]

    def _batch(self, clips: Sequence[tuple[int, VideoClip, np.ndarray | None]]) -> DetectionBatch:
        """Return clips as a batch, filled up to the length of the longest clip that there may be."""
        arrays = [array for _, _, array in clips if array is not None]
        side = self.settings.preprocessing.crop
        shape, dtype = ((self.learner.model.num_features,), np.float16)
        if self.store is None:
            shape, dtype = (side, side, 3), np.uint8  # type: ignore[assignment]
        inputs = np.zeros((len(arrays), self.config.num_frames, *shape), dtype)
        for row, array in enumerate(arrays):
            inputs[row, : len(array)] = array
        return DetectionBatch(
            torch.from_numpy(inputs),
            tuple(len(array) for array in arrays),
            tuple(clip.segments_N2 for _, clip, _ in clips),
            tuple(clip.label_N for _, clip, _ in clips),
            tuple(clip.is_kept_N for _, clip, _ in clips),
            tuple(draw for draw, _, _ in clips),
        )

    def _extractor(self, model: DetectionNetwork) -> FeatureExtractor:
        batch_size = FRAMES_PER_BATCH[self.device.type]
        return FeatureExtractor(model, self.settings.preprocessing, self._dtype, batch_size)

    @property
    def _dtype(self) -> torch.dtype:
        """In which the backbone computes features."""
        return torch.bfloat16 if self.recipe.precision == "bf16" and self.device.type == "cuda" else torch.float32

    def _computed_features(self) -> FeatureStore:
        """Compute the missing features of this worker's shard of the videos; return where all are."""
        weights = weights_bytes(self.learner.model.backbone)
        digest = digest_of_backbone(weights, self.config, self.settings.preprocessing, str(self._dtype))
        folder = self.settings.features or storage.join(self.run_uri, FEATURES_FOLDER)
        store = FeatureStore(folder, digest)
        extractor = self._extractor(self.learner.model)
        everything = [*self.train_videos, *self.val_videos]
        # Of a shard of all videos, not of those that are missing: other workers may have stored some meanwhile.
        shard = store.missing(everything[self.rank :: self.num_ranks], retry=self.state.step == 0)
        computed = compute_features(_files(shard), extractor, self.settings.preprocessing)
        for done, (video, (features_TC, reason)) in enumerate(zip(shard, computed, strict=True), start=1):
            store.write(video, features_TC, reason)
            if self.rank == 0:
                self._report_features(done, len(shard))
        if self.num_ranks > 1:
            dist.barrier()
        return store

    def _report_features(self, done: int, total: int) -> None:
        epochs = self.recipe.epochs
        self.channel.send(
            TrainingProgress(
                1, epochs, 0, self.num_steps, float("nan"), None, len(self.state.unreadable), (done, total)
            )
        )

    def _stored(self, videos: Sequence[TrainingVideo]) -> Iterator[tuple[TrainingVideo, np.ndarray]]:
        assert self.store is not None
        for video in videos:
            try:
                features_TC = self.store.read(video)
            except DecodeError as error:
                self._leave_out(error)
                continue
            yield video, features_TC

    def _computed(
        self, videos: Sequence[TrainingVideo], extractor: FeatureExtractor
    ) -> Iterator[tuple[TrainingVideo, np.ndarray]]:
        computed = compute_features(_files(videos), extractor, self.settings.preprocessing)
        for video, (features_TC, reason) in zip(videos, computed, strict=True):
            if reason:
                self._leave_out(DecodeError(video.video.uri, reason))
                continue
            yield video, features_TC


def _files(videos: Sequence[TrainingVideo]) -> list[VideoFile]:
    return [VideoFile(video.video.uri, video.facts, video.region) for video in videos]
