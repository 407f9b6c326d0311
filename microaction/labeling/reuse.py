"""Reuse of the windows of another run over the same videos: a later run labels again only what that one was not sure of.

Both have the same windows and chunks. What is reused of a chunk is read where the chunk is decoded, from the base run's ledger;
the later run's ledger then holds all of the chunk's windows, each with the run that labeled it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from microaction.labeling.ledger import best_rows, read_index, read_rows
from microaction.labeling.plan import plan_chunks
from microaction.labeling.tables import Provenance


class Windows(NamedTuple):
    """Labeled windows of a chunk, by time: their spans, their probabilities, and the index of the run that labeled each in the
    list of runs."""

    start_us_W: np.ndarray
    end_us_W: np.ndarray
    probabilities_WK: np.ndarray
    run_W: np.ndarray

    @classmethod
    def none(cls, num_classes: int = 0) -> Self:
        """Return no windows."""
        empty = np.empty(0, np.int64)
        return cls(empty, empty, np.empty((0, num_classes), np.float32), np.empty(0, np.int32))

    def merged(self, others: "Windows") -> "Windows":
        """Return these and others, by time."""
        starts_us_W = np.concatenate([self.start_us_W, others.start_us_W])
        order_W = np.argsort(starts_us_W, kind="stable")
        rest = (np.concatenate([mine, theirs])[order_W] for mine, theirs in zip(self[1:], others[1:], strict=True))
        return Windows(starts_us_W[order_W], *rest)


@dataclass(frozen=True)
class WindowReuse:
    """What is reused of a base run: windows whose most likely action has at least the probability `below`."""

    out: str
    below: float

    def reused(self, chunk: Mapping[str, Any]) -> Windows:
        """Return the reused windows of a row of `schema.CHUNK`. Raises what reading raises."""
        if chunk["base_file"] is None:
            return Windows.none()
        row = self._row(chunk)
        starts_us_W = np.array(row["window_start_us"], np.int64)
        if not len(starts_us_W):
            return Windows.none()
        probabilities_WK = np.array(row["probabilities"], np.float32).reshape(len(starts_us_W), -1)
        is_reused_W = probabilities_WK.max(axis=1) >= self.below
        return Windows(
            starts_us_W[is_reused_W],
            np.array(row["window_end_us"], np.int64)[is_reused_W],
            probabilities_WK[is_reused_W],
            np.array(row["window_run"], np.int32)[is_reused_W] + 1,
        )

    def _row(self, chunk: Mapping[str, Any]) -> dict[str, Any]:
        """Return the base run's row of the chunk."""
        video, ids = chunk["video"], pa.array([chunk["base_chunk_id"]])
        try:
            rows = read_rows(self.out, [chunk["base_file"]], ids, (video, video))
        except FileNotFoundError:  # that run's command was started again, and compacted its files
            index = read_index(self.out)
            files = pc.unique(index["file"].filter(pc.is_in(index["chunk_id"], value_set=ids))).to_pylist()
            rows = read_rows(self.out, files, ids, (video, video))
        (row,) = rows.to_pylist()
        return dict(row)


@dataclass(frozen=True)
class BaseRun:
    """A finished run, and what is reused of it. `runs` are those that labeled its windows, itself first."""

    reuse: WindowReuse
    runs: tuple[Provenance, ...]

    @classmethod
    def of(cls, out: str, record: Mapping[str, Any], relabel_below: float) -> Self:
        """Return the run that `_run.json` describes. What it did not abstain on and what is not below `relabel_below` is
        reused."""
        runs = tuple(Provenance(**run) for run in record["runs"])
        return cls(WindowReuse(out, max(record["settings"]["abstain_below"], relabel_below)), runs)

    @property
    def digests(self) -> dict[str, str]:
        """What identifies the run exactly."""
        return {"model_digest": self.runs[0].model_digest, "settings_digest": self.runs[0].settings_digest}

    def chunk_index(self, plan: pa.Table, catalog: pa.Table, chunk_us: int) -> pa.Table:
        """Return a row for each row of the plan: its `chunk_id`, and this run's row of the same chunk (`base_chunk_id`,
        `base_file`), null where it has none: new videos, or those that have changed."""
        index = best_rows(read_index(self.reuse.out))
        base_ids = plan_chunks(catalog, chunk_us, **self.digests)["chunk_id"]
        found = pc.index_in(base_ids, value_set=index["chunk_id"].combine_chunks())
        files = index["file"].take(found)
        return pa.table({"chunk_id": plan["chunk_id"], "base_chunk_id": base_ids, "base_file": files})
