"""How people lie in the clips of a run: measured once, at its start, and recorded with it.

training clips → look at each (CPU tasks, 1:1) → medians → the run's preprocessing, and so its checkpoint's
"""

import json
import logging
from collections.abc import Iterator, Sequence

import ray

from microaction import storage
from microaction.clips.ingest import DECODE_CPUS
from microaction.clips.manifest import Clip
from microaction.distributed.waiting import pop_first_done
from microaction.errors import MicroactionError, TransientError
from microaction.people.scale import ClipLook, load_clip_look, measure_scale
from microaction.preprocessing import PersonScale
from microaction.training.errors import TrainingError
from microaction.training.settings import TrainSettings

PERSON_FILE = "person.json"
MAX_CLIPS = 512  # a look takes about 50 ms, and decoding up to the middle of the clip
FIRST_CLIPS = 32  # of them, after which the rest is left out if nobody was seen
CLIPS_PER_TASK = 32  # a process that decodes takes a second to start

logger = logging.getLogger(__name__)


def with_person_scale(settings: TrainSettings, train_clips: Sequence[Clip], run_uri: str) -> TrainSettings:
    """Return the settings with `preprocessing.person` as it is recorded in the run's folder, or as it is measured now.

    What is given stays, and nothing is measured for networks that see no frames, or only the square around the people of
    skeletons. None stays where too few clips show anybody. Needs a running Ray. Raises
    `NodesUnavailableError`, `StoreUnavailableError`, and `TrainingError` where the detector's weights are missing.
    """
    preprocessing = settings.preprocessing
    if preprocessing.person is not None or settings.model.num_rgb_frames == 0 or preprocessing.fit == "people":
        return settings
    uri = storage.join(run_uri, PERSON_FILE)
    try:
        recorded = json.loads(storage.read_bytes(uri))
        person = None if recorded is None else PersonScale.model_validate(recorded)
    except FileNotFoundError:
        person = _measure(settings, train_clips)
        recorded = None if person is None else person.model_dump(mode="json")
        storage.write_bytes(uri, json.dumps(recorded, indent=2).encode() + b"\n")
    return settings.model_copy(update={"preprocessing": preprocessing.model_copy(update={"person": person})})


def _measure(settings: TrainSettings, clips: Sequence[Clip]) -> PersonScale | None:
    num_chosen = min(len(clips), MAX_CLIPS)
    chosen = [clips[number * len(clips) // num_chosen] for number in range(num_chosen)]
    every = -(-num_chosen // FIRST_CLIPS)
    looks = list(_looks(settings, chosen[::every]))
    if any(look.people for look in looks):
        looks += _looks(settings, [clip for number, clip in enumerate(chosen) if number % every])
    return measure_scale(looks)


def _looks(settings: TrainSettings, clips: Sequence[Clip]) -> Iterator[ClipLook]:
    """Yield the looks at the clips, in the order in which tasks end; the medians do not depend on it."""
    look_at = ray.remote(_look_at_block).options(num_cpus=DECODE_CPUS, retry_exceptions=[TransientError])
    blocks = [clips[start : start + CLIPS_PER_TASK] for start in range(0, len(clips), CLIPS_PER_TASK)]
    tasks = [look_at.remote(block, settings.people == "auto") for block in blocks]
    while tasks:
        try:
            yield from pop_first_done(
                tasks, settings.node_wait_s, "measuring how people lie in the clips", setting="node_wait_s"
            )
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, MicroactionError):
                raise error.cause from error
            if isinstance(error.cause, ValueError):
                raise TrainingError(str(error.cause)) from error
            raise


def _look_at_block(clips: Sequence[Clip], cuts_people: bool) -> list[ClipLook]:
    """Return the looks at clips, without those that cannot be read, which training itself reports, and with `cuts_people`
    without those that will be cut to one person in the scale that the others give."""
    looks = []
    for clip in clips:
        try:
            look = load_clip_look(clip.uri, clip.region, clip.span)
        except TransientError:
            raise
        except (MicroactionError, RuntimeError) as error:
            logger.warning("%s is left out of measuring how people lie in the clips: %s", clip.location, error)
            continue
        if not (cuts_people and clip.region is None and len(look.participants) > 1):
            looks.append(look)
    return looks
