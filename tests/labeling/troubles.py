"""Stages of labelling that meet trouble which is not their videos' fault; workers import them by name."""

from typing import Any

import numpy as np
import pyarrow as pa

from microaction.labeling.decoder import Decoder
from microaction.labeling.pipeline import LabelerActor
from microaction.labeling.probe import catalog_row
from microaction.schema import CATALOG
from microaction.storage import StorageError
from microaction.video import ChunkFrames

REFUSED = "no access to the videos"


def refuse(*arguments: Any, **options: Any) -> ChunkFrames:
    raise StorageError(REFUSED)


class RefusedDecoder(Decoder):
    """Storage hands out nothing."""

    decode = staticmethod(refuse)


class BrokenLabeler(LabelerActor):
    """Its network cannot run on chunks of which one is as long as the one that it is meant to fail on."""

    def _probabilities(self, frames_of_chunks: np.ndarray, windows_of_chunks: np.ndarray) -> np.ndarray:
        if any(len(windows) == 1 for windows in windows_of_chunks):
            raise RuntimeError("out of memory")
        return super()._probabilities(frames_of_chunks, windows_of_chunks)


def probe_but_not_c(files: pa.Table) -> pa.Table:
    """Catalog rows; of files whose name has a c storage hands out nothing."""
    rows = [
        {**file, "error": "storage_error", "reason": REFUSED}
        if "c" in file["video"].rsplit("/", 1)[-1]
        else catalog_row(**file)
        for file in files.to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=CATALOG)


def probe_nothing(files: pa.Table) -> pa.Table:
    raise AssertionError("nothing is to be opened")
