"""Which clips a run is trained on and which it is validated on."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from microaction.clips.instances import AnnotatedVideo, read_instances, refuse_several_people
from microaction.clips.manifest import Clip, ManifestError, read_list
from microaction.clips.skeletons import ClipSkeletons
from microaction.training.settings import TrainSettings


def read_splits(settings: TrainSettings) -> tuple[list[Clip], list[Clip]]:
    """Return the clips to train on and the clips to validate on, each in the order of its list.

    Raises `ManifestError` for unusable lists, and with `split_by` subject for clips without a known subject or too few
    subjects.
    """
    train, validation = _read_lists(settings)
    if settings.split_by == "list":
        return train, validation
    return split_by_subject([*train, *validation], settings.val_fraction, settings.seed)


def read_video_splits(settings: TrainSettings) -> tuple[list[AnnotatedVideo], list[AnnotatedVideo]]:
    """Return the videos to train on and the videos to validate on. Raises `ManifestError` for unusable lists.

    Those of one file name several people only if the file shows one of them at a time, which nobody checks: they are refused.
    """
    train = read_instances(settings.train_list, settings.train_videos)
    validation: list[AnnotatedVideo] = []
    if settings.val_list is not None and settings.val_videos is not None:
        validation = read_instances(settings.val_list, settings.val_videos)
    refuse_several_people([*train, *validation])
    if settings.split_by == "list":
        return train, validation
    return split_by_subject([*train, *validation], settings.val_fraction, settings.seed)


def read_instance_splits(settings: TrainSettings) -> tuple[list[Clip], list[Clip]]:
    """Return the instances of the videos to train on and of those to validate on, each as a clip, as `read_list` names them."""
    listed = [clip for clips in _read_lists(settings) for clip in clips]
    uris = [{video.uri for video in videos} for videos in read_video_splits(settings)]
    train, validation = ([clip for clip in listed if clip.uri in of_side] for of_side in uris)
    return train, validation


def read_skeletons_of_lists(settings: TrainSettings) -> ClipSkeletons | None:
    """Return the skeletons of the clips of both lists, if the network needs them. Raises `SkeletonError` and `ManifestError`."""
    tables = (settings.train_skeletons, settings.val_skeletons)
    lists = [(clips, table) for clips, table in zip(_read_lists(settings), tables, strict=True) if table is not None]
    return ClipSkeletons.read(*lists) if lists else None


def _read_lists(settings: TrainSettings) -> tuple[list[Clip], list[Clip]]:
    num_classes = settings.model.num_classes
    train = read_list(settings.train_list, settings.train_videos, num_classes)
    if settings.val_list is None or settings.val_videos is None:
        return train, []
    return train, read_list(settings.val_list, settings.val_videos, num_classes)


class Listed(Protocol):
    """A clip or a video of a list: its name, and who is in it."""

    @property
    def name(self) -> str:
        """Name as listed."""
        ...

    @property
    def subject(self) -> str | None:
        """The person in it; None if unknown."""
        ...


AnyListed = TypeVar("AnyListed", bound=Listed)


def split_by_subject(
    clips: Sequence[AnyListed], val_fraction: float, seed: int
) -> tuple[list[AnyListed], list[AnyListed]]:
    """Hold out subjects, drawn in an order that `seed` decides, until they have `val_fraction` of the clips; at least one subject
    is held out and one is not. Raises `ManifestError`."""
    indices: dict[str, list[int]] = defaultdict(list)
    for index, clip in enumerate(clips):
        if clip.subject is None:
            raise ManifestError(
                f"the subject of {clip.name} is unknown, so the clips cannot be split by subject: begin names with it, as in "
                "SSSS_BB_NNNN.mp4, or give a Parquet list with a column subject"
            )
        indices[clip.subject].append(index)
    if len(indices) < 2:
        raise ManifestError(f"all {len(clips)} clips are of one subject: nobody can be held out")
    held_out: set[int] = set()
    subjects = sorted(indices)
    for chosen in np.random.default_rng(seed).permutation(len(subjects))[:-1]:
        held_out.update(indices[subjects[chosen]])
        if len(held_out) >= val_fraction * len(clips):
            break
    train = [clip for index, clip in enumerate(clips) if index not in held_out]
    return train, [clips[index] for index in sorted(held_out)]
