"""One evaluation: a checkpoint and a list of clips in, a folder of figures out."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray
import torch

from microaction import storage
from microaction.clips.ingest import read_clips
from microaction.clips.manifest import Clip, read_list
from microaction.clips.progress import ProgressChannel
from microaction.clips.sample import Sampling
from microaction.config import EvaluateSettings
from microaction.evaluation.report import write_report
from microaction.evaluation.submission import write_submission
from microaction.machines import MachinesError, await_machines, machines
from microaction.model import load_checkpoint
from microaction.model.checkpoint import require_labels
from microaction.registry import load_model, resolve
from microaction.taxonomy import ACTIONS
from microaction.video import DecodeError

UNREADABLE_FILE = "unreadable.json"


def run_evaluation(
    settings: EvaluateSettings, *, on_progress: Callable[[tuple[int, int]], None] = lambda progress: None
) -> dict[str, float]:
    """Scores the clips and writes the report into `settings.out`; returns the metrics.

    Needs a running Ray; the model runs on a GPU of the cluster where there is one. `on_progress` is called with (clips
    done, all clips). Raises `CheckpointError`, `RegistryError`, `ManifestError`, and `DecodeError` for a clip that cannot be
    read.
    """
    model = resolve(settings.model)
    checkpoint = load_model(model)
    require_labels(checkpoint.config, ACTIONS, settings.model)
    clips = read_list(settings.clips_list, settings.videos, len(ACTIONS))
    storage.require_writable(storage.join(settings.out, UNREADABLE_FILE))
    await_machines(settings)
    there = machines(settings)
    # Half of a machine's CPUs, the other half decodes.
    num_cpus = there.node_cpus / 2
    options = {"num_gpus": 1, "num_cpus": 1} if there.num_gpus > 0 else {"num_cpus": num_cpus}
    most_unreadable = int(settings.max_unreadable_share * len(clips))
    channel = ProgressChannel()
    seen_s = time.monotonic()

    def on_step(progress: tuple[int, int]) -> None:
        nonlocal seen_s
        seen_s = time.monotonic()
        on_progress(progress)

    def score() -> Any:
        task = ray.remote(score_clips).options(**options)
        scored = task.remote(model.uri, clips, settings.batch_size, max(1, int(num_cpus)), most_unreadable, channel)
        while not ray.wait([scored], timeout=1)[0]:
            if time.monotonic() - seen_s > settings.machines_wait_s:
                ray.cancel(scored, force=True)
                raise MachinesError(
                    f"no clip was measured for {settings.machines_wait_s:g} s (machines_wait_s): the machine that did is "
                    "gone, or none was free; see `ray status`"
                )
        return ray.get(scored)

    scores_NK, unreadable = channel.follow(score, on_step)
    clips = [clip for clip in clips if clip.uri not in unreadable]
    names = [clip.name for clip in clips]
    target_N = np.array([clip.label for clip in clips])
    if settings.submission is not None:
        write_submission(settings.submission, names, scores_NK)
    if unreadable:
        listed = json.dumps(unreadable, indent=2).encode() + b"\n"
        storage.write_bytes(storage.join(settings.out, UNREADABLE_FILE), listed)
    return write_report(settings.out, names, scores_NK, target_N, ACTIONS, checkpoint.digest)


def score_clips(
    model_uri: str,
    clips: Sequence[Clip],
    batch_size: int,
    num_threads: int,
    most_unreadable: int,
    channel: ProgressChannel,
) -> tuple[np.ndarray, dict[str, str]]:
    """Probabilities [N, K] of the clips that can be read, sampled and cropped as in testing, and why others cannot, by URI:
    clips → decode (CPU tasks) → classify (here).

    Raises `DecodeError` for the first that is more than `most_unreadable`.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(num_threads)
    checkpoint = load_checkpoint(model_uri, device=device)
    sampling = Sampling(checkpoint.config.model.num_segments, checkpoint.config.preprocessing)
    scores_NK = np.full((len(clips), checkpoint.config.model.num_classes), np.nan, np.float32)
    done, unreadable = 0, {}

    def leave_out(error: DecodeError) -> None:
        unreadable[error.uri] = error.reason
        if len(unreadable) > most_unreadable:
            raise error

    for batch in read_clips(clips, np.arange(len(clips)), sampling, batch_size, on_unreadable=leave_out):
        if len(batch.index_B) == 0:
            continue
        frames_BTHWC = torch.from_numpy(batch.frames_BTHWC).to(device)
        scores_NK[batch.index_B] = checkpoint.classify(frames_BTHWC).cpu().numpy()
        done += len(batch.index_B)
        channel.tell((done, len(clips)))
    is_read = [clip.uri not in unreadable for clip in clips]
    return scores_NK[is_read], unreadable
