"""Decode stages with a twist, for tests; workers import them by name."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import ray

from microaction.labeling.decoder import Decoder
from tests.video.planted import decode_chunk_or_misbehave

DECODING_S = 0.2


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


class ChaosDecoder(PoisonedDecoder):
    """Takes its time, and leaves a note of every chunk that it has decoded beside the archive."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        decoded = super().__call__(row)
        time.sleep(DECODING_S)
        with notes_of(Path(row["video"]).parent).open("ab", buffering=0) as notes:
            notes.write(row["chunk_id"].encode() + b"\n")
        return decoded


def notes_of(archive: Path) -> Path:
    """The file of notes: a chunk's id for every time that it was decoded."""
    return archive.with_suffix(".notes")
