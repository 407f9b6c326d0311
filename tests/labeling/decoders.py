"""Decode stages with a twist, for tests; workers import them by name."""

import os
import signal
from typing import Any

import ray

from microaction.labeling.pipeline import Decoder
from tests.video.planted import decode_chunk_or_misbehave


class PoisonedDecoder(Decoder):
    """Dies, as a crashing C library would, on a video named so."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if "poison" in row["video"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(row)


class MisbehavingDecoder(Decoder):
    """Does, inside the decoder's process, what the names of videos ask for (see `tests.video.planted`)."""

    decode = staticmethod(decode_chunk_or_misbehave)


class TellingDecoder(Decoder):
    """Leaves a note of where it ran in the place of the decoder's name."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        actor = ray.get_runtime_context().get_actor_id()
        return super().__call__(row) | {"decoder": "in a task" if actor is None else "in an actor"}
