"""Which clips a run learns from and which it is measured on."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from microaction.clips.manifest import Clip, ManifestError, read_list
from microaction.training.settings import TrainSettings


def read_splits(settings: TrainSettings) -> tuple[list[Clip], list[Clip]]:
    """The clips to train on and the clips to measure on, each in the order of its list.

    Raises `ManifestError` for unusable lists, and with `split_by` subject where clips do not tell their subject or there are
    too few subjects.
    """
    num_classes = settings.model.num_classes
    train = read_list(settings.train_list, settings.train_videos, num_classes)
    held_out: list[Clip] = []
    if settings.val_list is not None and settings.val_videos is not None:
        held_out = read_list(settings.val_list, settings.val_videos, num_classes)
    if settings.split_by == "list":
        return train, held_out
    return split_by_subject([*train, *held_out], settings.val_fraction, settings.seed)


def split_by_subject(clips: Sequence[Clip], val_fraction: float, seed: int) -> tuple[list[Clip], list[Clip]]:
    """Subjects are drawn in an order by `seed` and held back while the share of their clips is below `val_fraction`; at least
    one is held back and one is not. Raises `ManifestError`."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, clip in enumerate(clips):
        if clip.subject is None:
            raise ManifestError(
                f"{clip.name} does not tell its subject, by which the clips are to be split: names begin with it, as in "
                "SSSS_BB_NNNN.mp4, or the list is a Parquet table with a column subject"
            )
        places[clip.subject].append(place)
    if len(places) < 2:
        raise ManifestError(f"all {len(clips)} clips are of one subject: there is nobody to hold back")
    held_back: set[int] = set()
    subjects = sorted(places)
    for chosen in np.random.default_rng(seed).permutation(len(subjects))[:-1]:
        held_back.update(places[subjects[chosen]])
        if len(held_back) >= val_fraction * len(clips):
            break
    train = [clip for place, clip in enumerate(clips) if place not in held_back]
    return train, [clips[place] for place in sorted(held_back)]
