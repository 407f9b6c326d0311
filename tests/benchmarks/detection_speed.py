"""What a detector costs beside windows: network, decoding, and publishing. `python -m tests.benchmarks.detection_speed`.

Each is measured in turns on one core. The network: a chunk of 120 s in the middle of a long video, with the frames around it
that a detector needs, on a MANet of a quarter of ResNet-50's width at 112 pixels (`--full`: ResNet-50 at 224). Publishing: an
hour of one person, through the default detector, and through the package's, which finds something in anything.

Shapes: N frames, T steps, W windows.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from microaction.models import CheckpointConfig, load_checkpoint, save_checkpoint
from microaction.models.classifier import Classifier, Execution
from microaction.models.detector import DetectionHead, DetectionNetwork, FeatureExtractor
from microaction.models.detector.config import DetectorConfig
from microaction.models.families import build_model
from microaction.models.manet.config import ManetConfig
from microaction.preprocessing import Preprocessing
from microaction.settings import DEMO_DETECTOR
from microaction.taxonomy import ACTIONS
from microaction.video import FrameSampling, Framing, decode_chunk
from microaction.video.windows import MICROSECONDS, STEP_US, Span, num_steps_of, split_windows, step_spans
from tests.benchmarks.timing import console, cpu_name, medians
from tests.benchmarks.videos import write_long_video

CHUNK = Span(120 * MICROSECONDS, 240 * MICROSECONDS)
VIDEO_US = 360 * MICROSECONDS
HOUR_STEPS = 3600 * MICROSECONDS // STEP_US
ROUNDS = 3
BATCH_WINDOWS, BATCH_FRAMES = 8, 16


def network_costs(manet: ManetConfig, side: int, rounds: int) -> dict[str, float]:
    """Return the core-seconds of a chunk of 120 s, as windows and as steps."""
    config = DetectorConfig(backbone=manet)
    preprocessing = Preprocessing(short_side=side, crop=side)
    detector = build_model(config)
    assert isinstance(detector, DetectionNetwork)
    extractor = FeatureExtractor(detector, preprocessing, torch.float32, BATCH_FRAMES)
    with tempfile.TemporaryDirectory() as folder:
        of_classifier = CheckpointConfig(
            model=manet, preprocessing=preprocessing, labels=ACTIONS, recipe={}, versions={}, metrics={}
        )
        save_checkpoint(build_model(manet), of_classifier, folder)
        classify = Classifier(load_checkpoint(folder), Execution("fp32", is_compiled=False), BATCH_WINDOWS)
    num_steps = num_steps_of(VIDEO_US)
    owned = range(CHUNK.start_us // STEP_US, CHUNK.end_us // STEP_US)
    needed = config.needed_steps(owned, num_steps)
    frames = torch.randint(0, 256, (len(needed), side, side, 3), dtype=torch.uint8)
    rows = torch.arange(len(needed))
    starts = [
        span.start_us // STEP_US - needed.start for span in split_windows(VIDEO_US, 16 * STEP_US, 8 * STEP_US, CHUNK)
    ]
    windows_WT = torch.tensor([[start + 2 * number for number in range(8)] for start in starts]).clamp(
        max=len(needed) - 1
    )
    console.print(
        f"{len(windows_WT)} windows of 8 frames; {len(owned)} steps, and {len(needed) - len(owned)} around them"
    )
    return medians(
        {
            "windows": lambda: classify(frames, windows_WT),
            "steps": lambda: extractor(frames, rows, needed.start, owned, num_steps),
        },
        rounds,
    )


def decoding_costs(size: tuple[int, int]) -> dict[str, float]:
    """Return the core-seconds of decoding a chunk of 120 s, for windows and for steps."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "long.mp4")
        write_long_video(path, duration_s=VIDEO_US // MICROSECONDS, size=size)
        windows = split_windows(VIDEO_US, 2 * MICROSECONDS, MICROSECONDS, CHUNK)
        owned = range(CHUNK.start_us // STEP_US, CHUNK.end_us // STEP_US)
        needed = DetectorConfig().needed_steps(owned, num_steps_of(VIDEO_US))
        steps = step_spans(needed, VIDEO_US)
        span = Span(steps[0].start_us, steps[-1].end_us)
        framing = Framing(256, 224)
        return medians(
            {
                "windows": lambda: decode_chunk(path, CHUNK, windows, framing=framing),
                "steps": lambda: decode_chunk(path, span, steps, sampling=FrameSampling(1), framing=framing),
            },
            ROUNDS,
        )


def publishing_costs() -> Table:
    """Return the core-seconds of an hour of one person's features."""
    table = Table("detector", "core-s an hour and person", "detections", "stored", title="Publishing")
    packaged = load_checkpoint(DEMO_DETECTOR).model
    assert isinstance(packaged, DetectionNetwork)
    default = build_model(DetectorConfig(backbone=ManetConfig(width=8, depths=(1, 1, 1, 1))))
    assert isinstance(default, DetectionNetwork)
    rng = np.random.default_rng(0)
    default_name = f"default (width {default.config.pyramid_width}), random weights"
    for name, network in (
        (default_name, default),
        ("the package's (width 128)", packaged),
    ):
        head = DetectionHead(network.detector, network.config)
        # What the first layer gives is about normal, cut at zero.
        smooth = np.repeat(rng.normal(size=(HOUR_STEPS // 8, network.config.pyramid_width)), 8, axis=0)
        features = np.maximum(smooth + rng.normal(size=smooth.shape), 0).astype(np.float16)
        taken = []
        for _ in range(ROUNDS):
            started_s = time.process_time()
            detections, _ = head(features)
            taken.append(time.process_time() - started_s)
        table.add_row(
            name,
            f"{np.median(taken):.2f}",
            str(len(detections.score_D)),
            f"{features.nbytes / 1e6:.1f} MB an hour, uncompressed",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="ResNet-50 at 224 pixels, once")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    manet, side, rounds = ManetConfig(width=16), 112, ROUNDS
    if arguments.full:
        manet, side, rounds = ManetConfig(), 224, 1
    table = Table("", "windows", "steps", "ratio", title=f"Core-seconds of 120 s of video ({cpu_name()})")
    for name, costs in (
        ("network", network_costs(manet, side, rounds)),
        ("decoding 1080p", decoding_costs((1920, 1080))),
    ):
        table.add_row(
            name, f"{costs['windows']:.2f}", f"{costs['steps']:.2f}", f"{costs['steps'] / costs['windows']:.3f}"
        )
    console.print(table)
    console.print(publishing_costs())


if __name__ == "__main__":
    main()
