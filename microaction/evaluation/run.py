"""One evaluation: a checkpoint and a list of clips in, a folder of metrics and plots out."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch

from microaction import storage
from microaction.clips.ingest import read_clips
from microaction.clips.manifest import Clip, read_list, refuse_named_people
from microaction.clips.sample import Sampling
from microaction.clips.settings import PeopleRule
from microaction.clips.skeletons import ClipSkeletons
from microaction.distributed.progress import ProgressChannel
from microaction.distributed.resources import await_nodes, cluster_resources
from microaction.distributed.settings import ClusterSettings
from microaction.distributed.waiting import NodesUnavailableError
from microaction.errors import DecodeError, UsageError
from microaction.evaluation.report import write_report
from microaction.evaluation.settings import EvaluateSettings
from microaction.evaluation.submission import write_submission
from microaction.models import Checkpoint, ModelRef, load_checkpoint
from microaction.models.checkpoint import check_labels
from microaction.registry import resolve
from microaction.skeletons import SkeletonError
from microaction.taxonomy import ACTIONS

UNREADABLE_FILE = "unreadable.json"


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found: metrics by name, and what users of the checkpoint should know."""

    metrics: dict[str, float]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Scores:
    """Probabilities [N, K] of the clips that can be read, in order of the list, why others cannot, by location, and probabilities
    [N, P] of body parts if the network has classifiers of their own for them."""

    probabilities_NK: np.ndarray
    unreadable: dict[str, str]
    body_NP: np.ndarray | None = None


def run_evaluation(
    settings: EvaluateSettings, *, on_progress: Callable[[tuple[int, int]], None] = lambda progress: None
) -> Evaluation:
    """Score the clips and write the report into `settings.out`.

    Needs a running Ray; the network runs on a GPU of the cluster if it has one. `on_progress` is called with (clips done, all
    clips). Raises `CheckpointError`, `RegistryError`, `ManifestError`, and `DecodeError` for a clip that cannot be read.
    """
    assert settings.model is not None, "settings of recognition have one"
    checkpoint = load_checkpoint(resolve(settings.model))
    check_labels(checkpoint.config, ACTIONS, settings.model)
    clips = read_list(settings.clips_list, settings.videos, len(ACTIONS))
    skeletons = skeletons_for(checkpoint, clips, settings.skeletons)
    if settings.people == "off" and skeletons is None:
        refuse_named_people(clips)
    storage.check_writable(storage.join(settings.out, UNREADABLE_FILE))
    if settings.submission is not None and any(clip.span is not None for clip in clips):
        raise UsageError(
            f"{settings.clips_list} lists spans of videos, but a submission is of MA-52's clips: leave submission out"
        )
    if settings.submission is not None:
        storage.check_writable(settings.submission)
    max_unreadable = int(settings.max_unreadable_fraction * len(clips))
    scores = score_on_cluster(
        checkpoint.ref,
        clips,
        settings,
        settings.batch_size,
        max_unreadable,
        on_progress,
        skeletons=skeletons,
        people=settings.people,
    )
    clips = [clip for clip in clips if clip.location not in scores.unreadable]
    names = [clip.name for clip in clips]
    target_N = np.array([clip.label for clip in clips])
    if settings.submission is not None:
        write_submission(settings.submission, names, scores.probabilities_NK, scores.body_NP)
    if scores.unreadable:
        listed = json.dumps(scores.unreadable, indent=2).encode() + b"\n"
        storage.write_bytes(storage.join(settings.out, UNREADABLE_FILE), listed)
    metrics = write_report(
        settings.out, names, scores.probabilities_NK, target_N, ACTIONS, checkpoint.digest, scores.body_NP
    )
    return Evaluation(metrics, tuple(checkpoint.notices))


def skeletons_for(checkpoint: Checkpoint, clips: Sequence[Clip], table: str | None) -> ClipSkeletons | None:
    """Return the clips' skeletons for a checkpoint that needs them. Raises `SkeletonError`, also where it gets none."""
    if not checkpoint.config.needs_skeletons:
        return None
    if table is None:
        raise SkeletonError(
            f"{checkpoint.ref.uri} sees the skeletons of people: give a table of them, which `microaction skeletons import` "
            "makes"
        )
    return ClipSkeletons.read((clips, table))


def score_on_cluster(
    model: ModelRef,
    clips: Sequence[Clip],
    settings: ClusterSettings,
    batch_size: int,
    max_unreadable: int,
    on_progress: Callable[[tuple[int, int]], None],
    *,
    skeletons: ClipSkeletons | None = None,
    people: PeopleRule = "off",
) -> Scores:
    """Score clips in one task of the cluster, on a GPU if it has one.

    Raises `NodesUnavailableError` if no clip is scored for `settings.node_wait_s`, and what `score_clips` raises.
    """
    await_nodes(settings)
    args = (model, clips, batch_size, max_unreadable, skeletons, people)
    return Scores(*in_one_task(score_clips, args, settings, on_progress))


def in_one_task(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    settings: ClusterSettings,
    on_progress: Callable[[tuple[int, int]], None],
) -> Any:
    """Return what `function(*args, num_threads=, channel=)` returns in a task of the cluster, on a GPU if it has one.

    What the function sends on its channel goes to `on_progress`. Raises `NodesUnavailableError` if nothing is sent for
    `settings.node_wait_s`.
    """
    resources = cluster_resources(settings)
    num_cpus = resources.node_cpus / 2  # the other half decodes
    options = {"num_gpus": 1, "num_cpus": 1} if resources.num_gpus > 0 else {"num_cpus": num_cpus}
    channel = ProgressChannel()
    progressed_s = time.monotonic()

    def on_step(progress: tuple[int, int]) -> None:
        nonlocal progressed_s
        progressed_s = time.monotonic()
        on_progress(progress)

    def score() -> Any:
        task = ray.remote(function).options(**options)
        scored = task.remote(*args, num_threads=max(1, int(num_cpus)), channel=channel)
        while not ray.wait([scored], timeout=1)[0]:
            if time.monotonic() - progressed_s > settings.node_wait_s:
                ray.cancel(scored, force=True)
                raise NodesUnavailableError(
                    f"no clip was scored for {settings.node_wait_s:g} s (node_wait_s): the node that did is lost, or none was "
                    "free; see `ray status`"
                )
        return ray.get(scored)

    return channel.follow(score, on_step)


def score_clips(
    model: ModelRef,
    clips: Sequence[Clip],
    batch_size: int,
    max_unreadable: int,
    skeletons: ClipSkeletons | None = None,
    people: PeopleRule = "off",
    *,
    num_threads: int,
    channel: ProgressChannel,
) -> tuple[np.ndarray, dict[str, str], np.ndarray | None]:
    """Return the fields of `Scores`, of clips sampled and cropped as in testing: clips → decode (CPU tasks) → classify (here).

    Raises `DecodeError` for the first clip beyond `max_unreadable`.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(num_threads)
    checkpoint = load_checkpoint(model, device=device)
    sampling = Sampling.of(checkpoint.config.model, checkpoint.config.preprocessing, people=people)
    body_NP: np.ndarray | None = None
    scores_NK = np.full((len(clips), checkpoint.config.model.num_classes), np.nan, np.float32)
    unreadable: dict[str, str] = {}
    done = 0

    def leave_out(error: DecodeError) -> None:
        unreadable[error.uri] = error.reason
        if len(unreadable) > max_unreadable:
            raise error

    order = np.arange(len(clips))
    for batch in read_clips(clips, order, sampling, batch_size, skeletons=skeletons, on_unreadable=leave_out):
        if len(batch.index_B) == 0:
            continue
        frames_BTHWC, keypoints_BMTK3 = (
            torch.from_numpy(array).to(device) for array in (batch.frames_BTHWC, batch.keypoints_BMTK3)
        )
        outputs = checkpoint.predict(frames_BTHWC, keypoints_BMTK3)
        scores_NK[batch.index_B] = outputs.logits.softmax(dim=1).cpu().numpy()
        if outputs.body_probabilities is not None:
            if body_NP is None:
                body_NP = np.full((len(clips), outputs.body_probabilities.shape[1]), np.nan, np.float32)
            body_NP[batch.index_B] = outputs.body_probabilities.cpu().numpy()
        done += len(batch.index_B)
        channel.send((done, len(clips)))
    is_read = [clip.location not in unreadable for clip in clips]
    return scores_NK[is_read], unreadable, None if body_NP is None else body_NP[is_read]
