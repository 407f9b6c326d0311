"""A detector run on listed videos: detections in one task of the cluster, on a GPU if it has one."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from microaction.clips.instances import AnnotatedVideo, refuse_several_people
from microaction.clips.steps import probe_videos
from microaction.distributed.progress import ProgressChannel
from microaction.distributed.resources import await_nodes
from microaction.distributed.settings import ClusterSettings
from microaction.errors import DecodeError
from microaction.evaluation.detection import TimedAction, timed_actions
from microaction.evaluation.features import FRAMES_PER_BATCH, VideoFile, compute_features
from microaction.evaluation.run import in_one_task
from microaction.models import ModelRef, load_checkpoint
from microaction.models.detector import DetectionHead, DetectionNetwork, FeatureExtractor


def detect_on_cluster(
    model: ModelRef,
    videos: Sequence[AnnotatedVideo],
    settings: ClusterSettings,
    max_unreadable: int,
    on_progress: Callable[[tuple[int, int]], None],
) -> tuple[list[TimedAction], dict[str, str]]:
    """Return the detections in videos, with scores as the detector gives them, and why some cannot be read, by URI.

    Raises `DecodeError` for the first video beyond `max_unreadable`, and `NodesUnavailableError` if none is done for
    `settings.node_wait_s`.
    """
    refuse_several_people(videos)
    await_nodes(settings)
    facts = probe_videos([video.uri for video in videos], settings.node_wait_s)
    files = [
        (video.name, VideoFile(video.uri, of_file, video.instances[0].region))
        for video, of_file in zip(videos, facts, strict=True)
    ]
    args = (model, files, max_unreadable)
    detections, unreadable = in_one_task(detect_videos, args, settings, on_progress)
    return [TimedAction(*each) for each in detections], unreadable


def detect_videos(
    model: ModelRef,
    videos: Sequence[tuple[str, VideoFile]],
    max_unreadable: int,
    *,
    num_threads: int,
    channel: ProgressChannel,
) -> tuple[list[tuple[Any, ...]], dict[str, str]]:
    """Return detections as tuples, and the unreadable videos, of videos given by name and file."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(num_threads)
    checkpoint = load_checkpoint(model, device=device)
    network, preprocessing = checkpoint.model, checkpoint.config.preprocessing
    assert isinstance(network, DetectionNetwork)
    extractor = FeatureExtractor(network, preprocessing, torch.float32, FRAMES_PER_BATCH[device])
    head = DetectionHead(network.detector, network.config)
    found: list[tuple[Any, ...]] = []
    unreadable: dict[str, str] = {}
    computed = compute_features([file for _, file in videos], extractor, preprocessing)
    for done, ((name, (uri, of_file, _)), (features_TC, reason)) in enumerate(
        zip(videos, computed, strict=True), start=1
    ):
        if reason:
            unreadable[uri] = reason
            if len(unreadable) > max_unreadable:
                raise DecodeError(uri, reason)
        else:
            features = torch.from_numpy(np.asarray(features_TC)).float().to(device)
            detections, _ = head(extractor.embedded(features, 0, len(features)).numpy())
            found += [tuple(each) for each in timed_actions(detections, name, of_file.start_us, of_file.duration_us)]
        channel.send((done, len(videos)))
    return found, unreadable
