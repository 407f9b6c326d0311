"""Decode stages and probes that misbehave or record what they do; workers import them by name, without torch."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from microaction.labeling.catalog import PROBED
from microaction.labeling.decoder import Decoder
from microaction.labeling.probe import catalog_row, claims_to_be_video
from microaction.schema import CATALOG
from microaction.storage import StorageError
from microaction.video import ChunkFrames
from tests.video.planted import decode_chunk_or_misbehave

DECODING_S = 0.2
POLL_S = 0.05
HANG_LIMIT_S = 5.0
REFUSAL = "no access to the videos"


class PoisonedDecoder(Decoder):
    """Kills its worker, as a crashing C library would, on videos with "poison" in their name."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if "poison" in row["video"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(row)


class MisbehavingDecoder(Decoder):
    """Does inside the decoder's process what a video's name says (see `tests.video.planted`).

    Only videos that hang have a short time limit: any limit stops those, and no other video must run into one.
    """

    decode = staticmethod(decode_chunk_or_misbehave)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if Path(row["video"]).name.startswith("hang") and self.limits.time_s > HANG_LIMIT_S:
            return replace(self, limits=replace(self.limits, time_s=HANG_LIMIT_S))(row)
        return super().__call__(row)


class LocatingDecoder(Decoder):
    """Records where it ran, in the column of the decoder's name."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        actor = ray.get_runtime_context().get_actor_id()
        return super().__call__(row) | {"decoder": "in a task" if actor is None else "in an actor"}


class GatedDecoder(Decoder):
    """Decodes the videos 0.mp4, 1.mp4, … whose number is below the one in the archive's `gate`, and waits with the others."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        video = Path(row["video"])
        while int(video.stem) >= int(gate(video.parent).read_text()):
            time.sleep(POLL_S)
        return super().__call__(row)


class ChaosDecoder(PoisonedDecoder):
    """Takes some time, and adds every chunk that it has decoded to the archive's `decode_log`."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        decoded = super().__call__(row)
        time.sleep(DECODING_S)
        with decode_log(Path(row["video"]).parent).open("ab", buffering=0) as log:
            log.write(row["chunk_id"].encode() + b"\n")
        return decoded


class RefusedDecoder(Decoder):
    """Finds that the store refuses to read any video."""

    @staticmethod
    def decode(*arguments: Any, **options: Any) -> ChunkFrames:
        raise StorageError(REFUSAL)


def gate(archive: Path) -> Path:
    """Return the file with the number of videos that a `GatedDecoder` may decode."""
    return archive.with_suffix(".gate")


def decode_log(archive: Path) -> Path:
    """Return the file with a chunk's ID for every time that it was decoded."""
    return archive.with_suffix(".decoded")


def probe_all_but_c(files: pa.Table) -> pa.Table:
    """Return catalog rows; the store refuses files whose name contains a c."""
    rows = [
        {**file, "error": "storage_error", "reason": REFUSAL}
        if "c" in file["video"].rsplit("/", 1)[-1]
        else catalog_row(**file)
        for file in files.to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=CATALOG)


def probe_nothing(files: pa.Table) -> pa.Table:
    """Return that the files are no videos, which is found out each time."""
    names = files["video"].to_pylist()
    assert not any(map(claims_to_be_video, names)), f"probed again: {names}"
    return pa.Table.from_pylist([{"video": name} for name in names], schema=PROBED)
