"""Ways to find actions in untrimmed video, compared: `python -m tests.benchmarks.detection FOLDER` (make bench-detection).

Draws untrimmed videos with MMA-52's lengths and overlaps, computes the features of the package's small classifier, and gives
every way the same time of training on them, of one core. What is found is calibrated on people whom nothing was trained on, and
measured on others. The same command again continues; `--seeds 0 2` runs some of the seeds, `--ways` some of the ways. With
`--seconds 900 --videos 2560 --width 128` detectors are trained as long and on as much as the package's.

Shapes: T steps of a video, W windows, C features, K actions.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

import microaction
from microaction.clips.steps import VideoPart, load_steps
from microaction.evaluation.detection import TimedAction, timed_actions, truth_of
from microaction.evaluation.detection_calibration import apply_calibration, fit_score_calibration
from microaction.evaluation.detection_report import measure_detections
from microaction.evaluation.features import FRAMES_PER_BATCH, VideoFile, compute_features
from microaction.labeling.events import EventRule, find_events
from microaction.models.checkpoint import weights_bytes
from microaction.models.detector import DetectionHead, DetectionNetwork, FeatureExtractor
from microaction.models.detector.decoding import Detections, soft_nms
from microaction.models.detector.scoring import MIN_SCORES, dense_runs, most_likely
from microaction.preprocessing import Preprocessing
from microaction.settings import DEMO_MODEL
from microaction.synthetic.untrimmed_dataset import UntrimmedDataset, make_untrimmed_dataset
from microaction.training.detection_data import (
    TrainingVideo,
    clip_places,
    draw_clip,
    record_facts,
    training_videos,
)
from microaction.training.detection_learner import DetectionBatch, DetectionLearner
from microaction.training.features import FeatureStore, digest_of_backbone
from microaction.training.recognition_loop import augmentation_of
from microaction.training.run import with_initial_backbone
from microaction.training.settings import TrainSettings
from microaction.training.split import read_video_splits
from microaction.video.windows import STEP_US
from tests.benchmarks.timing import console, cpu_name

SIZE, FPS = (96, 112), 16
NUM_VAL, NUM_TEST = 160, 240
BATCH_SIZE, EXPECTED_EPOCHS = 16, 12
WINDOW, STRIDE = 16, 8  # steps
NUM_CLASSES = 52
TODAY = EventRule(0.5, 0.35, 0, 0)
COLUMNS = ("map_challenge", "map@0.2", "map@0.5", "map@0.7", "event_f1@0.5", "event_precision@0.5", "event_recall@0.5")


@dataclass(frozen=True)
class Data:
    """Videos with their features [T, C] by name."""

    settings: TrainSettings
    train: list[TrainingVideo]
    val: list[TrainingVideo]
    test: list[TrainingVideo]
    features: dict[str, np.ndarray] = field(default_factory=dict)

    def of(self, video: TrainingVideo) -> np.ndarray:
        return self.features[video.video.uri]


Finder = Callable[[TrainingVideo], list[TimedAction]]


def settings_of(dataset: UntrimmedDataset, width: int) -> TrainSettings:
    of = TrainSettings.model_validate(
        {
            "task": "detection",
            "train_list": str(dataset.train_list),
            "train_videos": str(dataset.train_dir),
            "val_list": str(dataset.val_list),
            "val_videos": str(dataset.val_dir),
            "storage_path": "/",
            "name": "x",
            "init": str(Path(microaction.__file__).parent / "models" / DEMO_MODEL),
            "model": {"family": "detector", "pyramid_width": width},
            "recipe": {"batch_size": BATCH_SIZE, "epochs": EXPECTED_EPOCHS, "warmup_epochs": 1.0},
        }
    )
    return with_initial_backbone(of)


def prepared(root: Path, num_train: int, width: int) -> Data:
    """Draw what is not drawn, and compute what features are missing."""
    shape: dict[str, Any] = {"size": SIZE, "fps": FPS, "balanced": 1.0}
    dataset = make_untrimmed_dataset(
        root / "videos",
        num_train_subjects=150,
        num_val_subjects=30,
        num_train_videos=num_train,
        num_val_videos=NUM_VAL,
        **shape,
    )
    others = make_untrimmed_dataset(
        root / "others",
        num_train_subjects=1,
        num_val_subjects=60,
        num_train_videos=1,
        num_val_videos=NUM_TEST,
        seed=9,
        **shape,
    )
    of, of_others = settings_of(dataset, width), settings_of(others, width)
    lists = (*read_video_splits(of), read_video_splits(of_others)[1])
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    facts = record_facts(str(root), [video for videos in lists for video in videos], 600)
    train_videos, val_videos, test_videos = (training_videos(videos, facts) for videos in lists)
    data = Data(of, train_videos, val_videos, test_videos)
    network = DetectionLearner(of, 1, torch.device("cpu")).model
    store = FeatureStore(
        str(root / "features"),
        digest_of_backbone(weights_bytes(network.backbone), network.config, of.preprocessing, "torch.float32"),
    )
    everything = [*data.train, *data.val, *data.test]
    missing = store.missing(everything, retry=True)
    extractor = FeatureExtractor(network, of.preprocessing, torch.float32, FRAMES_PER_BATCH["cpu"])
    computed = compute_features(
        [VideoFile(video.video.uri, video.facts) for video in missing], extractor, of.preprocessing
    )
    for video, (features_TC, reason) in zip(missing, computed, strict=True):
        store.write(video, features_TC, reason)
    ray.shutdown()
    data.features.update({video.video.uri: store.read(video) for video in everything})
    return data


def batches(data: Data, seed: int, max_steps: int) -> Iterator[DetectionBatch]:
    """Yield batches of clips, epoch after epoch."""
    places = clip_places(data.train, max_steps)
    for epoch in range(1000):
        order = np.random.default_rng((seed, epoch)).permutation(len(places))
        for first in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
            draws = order[first : first + BATCH_SIZE]
            videos = [data.train[places[draw].video] for draw in draws]
            clips = [
                draw_clip(video, places[draw], max_steps, np.random.default_rng((seed, epoch, int(draw))))
                for video, draw in zip(videos, draws, strict=True)
            ]
            inputs = np.zeros((BATCH_SIZE, max_steps, data.of(videos[0]).shape[1]), np.float16)
            for row, (video, clip) in enumerate(zip(videos, clips, strict=True)):
                inputs[row, : len(clip.steps)] = data.of(video)[clip.steps.start : clip.steps.stop]
            yield DetectionBatch(
                torch.from_numpy(inputs),
                tuple(len(clip.steps) for clip in clips),
                tuple(clip.segments_N2 for clip in clips),
                tuple(clip.label_N for clip in clips),
                tuple(clip.is_kept_N for clip in clips),
                tuple(int(draw) for draw in draws),
            )


def frame_batches(data: Data, seed: int, max_steps: int) -> Iterator[DetectionBatch]:
    """Yield batches of four clips' frames."""
    for number, batch in enumerate(batches(data, seed + 1, max_steps)):
        places = clip_places(data.train, max_steps)
        rng = np.random.default_rng((seed, number))
        chosen = list(batch.index_B[:4])
        videos = [data.train[places[draw].video] for draw in chosen]
        clips = [draw_clip(video, places[draw], max_steps, rng) for video, draw in zip(videos, chosen, strict=True)]
        side = data.settings.preprocessing.crop
        inputs = torch.zeros((len(chosen), max_steps, side, side, 3), dtype=torch.uint8)
        for row, (video, clip, draw) in enumerate(zip(videos, clips, chosen, strict=True)):
            part = VideoPart(video.video.uri, clip.steps, video.facts.duration_us, draw)
            frames = load_steps(part, data.settings.preprocessing, augmentation_of(data.settings, number))
            inputs[row, : len(clip.steps)] = torch.from_numpy(frames.frames_NHWC[frames.row_T])
        yield DetectionBatch(
            inputs,
            tuple(len(clip.steps) for clip in clips),
            tuple(clip.segments_N2 for clip in clips),
            tuple(clip.label_N for clip in clips),
            tuple(clip.is_kept_N for clip in clips),
            tuple(chosen),
        )


def train(
    learner: DetectionLearner,
    source: Iterator[DetectionBatch],
    seconds: float,
    steps_per_epoch: int,
    *,
    fraction: float = 1.0,
) -> int:
    """Take steps for a time, along the whole schedule or its first `fraction`; return how many."""
    total = EXPECTED_EPOCHS * steps_per_epoch
    spent, step = 0.0, 0
    for batch in source:
        started_s = time.process_time()
        learner.train_step(batch, min(int(spent / seconds * fraction * total), total - 1))
        spent += time.process_time() - started_s
        step += 1
        if spent > seconds:
            break
    return step


def finders(data: Data, learner: DetectionLearner, features: dict[str, np.ndarray]) -> dict[str, Finder]:
    """Return what a trained detector finds with each of the ways to score."""
    network = learner.eval_model
    network = network if isinstance(network, DetectionNetwork) else learner.model
    extractor = FeatureExtractor(network, data.settings.preprocessing, torch.float32, 16)

    def finder(score: str) -> Finder:
        config = network.config.model_copy(update={"score": score})
        head = DetectionHead(network.detector, config)

        def find(video: TrainingVideo) -> list[TimedAction]:
            features_TC = torch.from_numpy(features[video.video.uri]).float()
            found, _ = head(extractor.embedded(features_TC, 0, len(features_TC)).numpy())
            return timed_actions(found, video.video.uri, video.facts.start_us, video.facts.duration_us)

        return find

    return {score: finder(score) for score in ("dense", "points", "product")}


def windows_of(features_TC: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Return the mean features [W, C] of windows of 2 s every second, and their starts [W] in steps."""
    T = len(features_TC)
    last = max(T - WINDOW, 0)
    starts = np.unique([*range(0, last + 1, STRIDE), last])
    means = np.stack([features_TC[start : start + WINDOW].astype(np.float32).mean(axis=0) for start in starts])
    return torch.from_numpy(means), starts


def window_targets(video: TrainingVideo, starts: np.ndarray) -> Tensor:
    """Return the fraction [W, K] of each window that each action fills."""
    targets = np.zeros((len(starts), NUM_CLASSES), np.float32)
    for (first, end), label in zip(video.segments_N2, video.label_N, strict=True):
        overlap = np.minimum(end, starts + WINDOW - 0.5) - np.maximum(first, starts - 0.5)
        targets[:, label] = np.maximum(targets[:, label], overlap.clip(0) / WINDOW)
    return torch.from_numpy(targets)


def train_windows(data: Data, seed: int, seconds: float, *, is_softmax: bool) -> Finder:
    """Train a linear layer on windows' mean features: one action or none of each, or several."""
    torch.manual_seed(seed)
    parts = [(windows_of(data.of(video)), video) for video in data.train]
    features = torch.cat([means for (means, _), _ in parts])
    fractions = torch.cat([window_targets(video, starts) for (_, starts), video in parts])
    layer = nn.Linear(features.shape[1], NUM_CLASSES + 1)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=3e-3, weight_decay=1e-3)
    most, label = fractions.max(dim=1)
    one = torch.where(most >= 0.5, label, NUM_CLASSES)
    several = (fractions >= 0.5).float()
    started_s = time.process_time()
    while time.process_time() - started_s < seconds:
        chosen = torch.randint(len(features), (256,))
        logits = layer(features[chosen])
        loss = functional.cross_entropy(logits, one[chosen])
        if not is_softmax:
            loss = functional.binary_cross_entropy_with_logits(logits[:, :NUM_CLASSES], several[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    @torch.inference_mode()
    def find(video: TrainingVideo) -> list[TimedAction]:
        means, starts = windows_of(data.of(video))
        logits = layer(means)
        if is_softmax:
            return window_events(video, logits.softmax(dim=1)[:, :NUM_CLASSES].numpy(), starts)
        return window_runs(video, logits[:, :NUM_CLASSES].sigmoid().numpy(), starts)

    return find


def window_events(video: TrainingVideo, probabilities_WK: np.ndarray, starts: np.ndarray) -> list[TimedAction]:
    """Return events by the rule of classifiers."""
    starts_us = starts.astype(np.int64) * STEP_US
    ends_us = np.minimum(starts_us + WINDOW * STEP_US, video.facts.duration_us)
    events = find_events(starts_us, ends_us, probabilities_WK, TODAY)
    return [
        TimedAction(video.video.uri, event.action_id, event.start_us / 1e6, event.end_us / 1e6, event.probability)
        for event in events
    ]


def window_runs(video: TrainingVideo, probabilities_WK: np.ndarray, starts: np.ndarray) -> list[TimedAction]:
    """Return runs of the mean probability of the windows around each step, as of dense probabilities."""
    total, count = np.zeros((video.num_steps, NUM_CLASSES)), np.zeros((video.num_steps, 1))
    for start, row in zip(starts, probabilities_WK, strict=True):
        total[start : start + WINDOW] += row
        count[start : start + WINDOW] += 1
    found = soft_nms(
        *most_likely(dense_runs((total / count).astype(np.float32))), min_score=MIN_SCORES["dense"], max_detections=None
    )
    seconds = Detections((found.segments_D2 + 0.5) * STEP_US / 1e6, found.score_D, found.class_D)
    return timed_actions(seconds, video.video.uri, video.facts.start_us, video.facts.duration_us)


def today(video: TrainingVideo) -> list[TimedAction]:
    """Return the events of the package's classifier."""
    events = microaction.label_video(video.video.uri, DEMO_MODEL, people="off", precision="fp32").events.to_pylist()
    return [
        TimedAction(video.video.uri, row["action_id"], row["start_s"], row["end_s"], row["probability"])
        for row in events
    ]


def measured(data: Data, find: Finder) -> dict[str, float]:
    """Calibrate on the validation videos, and measure on those of other people."""
    found, truth = {}, {}
    for name, videos in (("val", data.val), ("test", data.test)):
        found[name] = [action for video in videos for action in find(video)]
        annotated = [replace(video.video, name=video.video.uri) for video in videos]
        truth[name] = truth_of(annotated)
    calibration = fit_score_calibration(found["val"], truth["val"])
    metrics = measure_detections(
        apply_calibration(found["test"], calibration), truth["test"], calibration.thresholds
    ).metrics
    return {name: metrics[name] for name in (*COLUMNS, "calibration_error", "mean_overlap")}


def trained_rows(
    data: Data, seed: int, seconds: float
) -> Iterator[tuple[str, Callable[[], dict[str, dict[str, float]]]]]:
    """Yield a name and what trains and measures, for each training."""
    yield "demo classifier, as it labels", lambda: {"": measured(data, today)}
    yield "windows, softmax", lambda: {"": measured(data, train_windows(data, seed, seconds, is_softmax=True))}
    yield "windows, multi-label", lambda: {"": measured(data, train_windows(data, seed, seconds, is_softmax=False))}

    def detector(end_to_end: bool = False, **model: Any) -> dict[str, dict[str, float]]:
        of = data.settings.model_copy(update={"seed": seed, "model": data.settings.model.model_copy(update=model)})
        steps_per_epoch = len(data.train) // BATCH_SIZE
        learner = DetectionLearner(of, steps_per_epoch, torch.device("cpu"))
        max_steps = of.model.num_frames
        features = data.features
        train(
            learner,
            batches(data, seed, max_steps),
            seconds / 2 if end_to_end else seconds,
            steps_per_epoch,
            fraction=0.5 if end_to_end else 1,
        )
        if end_to_end:
            learner.model.backbone.requires_grad_(True)
            train(learner, frame_batches(data, seed, max_steps), seconds / 2, steps_per_epoch)
            features = recomputed(data, learner)
        return {name: measured(data, find) for name, find in finders(data, learner, features).items()}

    yield "max pool, per class", detector
    yield "max pool, shared", lambda: detector(boundaries="shared")
    yield "attention 9, per class", lambda: detector(mixing="attention", attention_window=9)
    yield "attention 5, per class", lambda: detector(mixing="attention", attention_window=5)
    yield "max pool, per class, half end to end", lambda: detector(end_to_end=True)


def recomputed(data: Data, learner: DetectionLearner) -> dict[str, np.ndarray]:
    """Return the features of the videos that are measured, of a backbone that has learned."""
    network = learner.eval_model
    assert isinstance(network, DetectionNetwork)
    extractor = FeatureExtractor(network, data.settings.preprocessing, torch.float32, 16)
    found = {}
    for video in (*data.val, *data.test):
        part = VideoPart(video.video.uri, range(video.num_steps), video.facts.duration_us)
        frames = load_steps(part, Preprocessing.model_validate(data.settings.preprocessing.model_dump()))
        pixels, rows = torch.from_numpy(frames.frames_NHWC), torch.from_numpy(frames.row_T)
        features = extractor.features(pixels, rows, 0, range(video.num_steps), video.num_steps)
        found[video.video.uri] = features.half().numpy()
    return found


def print_table(results: Sequence[Path]) -> None:
    rows: dict[str, list[dict[str, float]]] = {}
    for path in results:
        for name, metrics in json.loads(path.read_text()).items():
            rows.setdefault(name, []).append(metrics)
    table = Table(title=f"Finding actions in untrimmed drawn video, people never seen ({cpu_name()})")
    table.add_column("way")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for name, seeds in rows.items():
        cells = []
        for column in COLUMNS:
            values = [100 * metrics[column] for metrics in seeds]
            deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{deviation}")
        table.add_row(name, *cells)
    console.print(table)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="of one core, to train each way")
    parser.add_argument("--videos", type=int, default=1280, help="to train on")
    parser.add_argument("--width", type=int, default=64, help="of the detectors' pyramid")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="*", metavar="NAME", help="default: all of them")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    root = arguments.folder.absolute()
    root.mkdir(parents=True, exist_ok=True)
    data = prepared(root, arguments.videos, arguments.width)
    name_of_run = f"result-{arguments.videos}-{arguments.width}-{arguments.seconds:g}s"
    for seed in arguments.seeds:
        path = root / f"{name_of_run}-{seed}.json"
        results: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
        for name, run in trained_rows(data, seed, arguments.seconds):
            if any(known == name or known.startswith(f"{name}: ") for known in results):
                continue
            if arguments.ways and name not in arguments.ways:
                continue
            for score, metrics in run().items():
                results[f"{name}: {score}" if score else name] = metrics
            path.write_text(json.dumps(results, indent=1))
            console.print(seed, name, [f"{row['map_challenge']:.3f}" for key, row in results.items() if name in key])
    print_table(sorted(root.glob(f"{name_of_run}-*.json")))


if __name__ == "__main__":
    main()
