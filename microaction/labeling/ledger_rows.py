"""Rows of the ledger, as labelers make them of a batch of decoded chunks. Knows no Ray."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from microaction.errors import FailureKind
from microaction.schema import COMMITTED_CHUNK


def committed_table(batch: Mapping[str, np.ndarray], labels: Mapping[str, Any]) -> pa.Table:
    """Return a table of `schema.COMMITTED_CHUNK`, of a batch (`Decoder`) and the columns that a labeler adds to it."""
    C, is_failed_C = len(batch["error"]), batch["error"] != ""
    columns: dict[str, Any] = {name: batch[name] for name in COMMITTED_CHUNK.names if name in batch}
    columns |= labels
    columns |= {
        "stage": pa.array(
            np.where(batch["error"] == FailureKind.MODEL_ERROR, "label", "decode"), pa.string(), mask=~is_failed_C
        ),
        "error": pa.array(batch["error"], pa.string(), mask=~is_failed_C),
        "reason": pa.array(batch["reason"], pa.string(), mask=~is_failed_C),
    }
    for name in ("tracks", "features"):
        columns[name] = pa.array(columns.get(name, [None] * C), COMMITTED_CHUNK.field(name).type)
    return pa.table({name: columns[name] for name in COMMITTED_CHUNK.names}).cast(COMMITTED_CHUNK)


def reason_of_network(error: Exception) -> str:
    """Return why chunks could not be labeled."""
    return f"the network could not run: {next(iter(str(error).splitlines()), 'no reason given')}"
