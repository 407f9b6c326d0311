"""Reuse of the windows of another run over the same videos: a later run labels again only what that one was not sure of.

Both have the same windows and chunks. What is reused of a chunk is read where the chunk is decoded, from the base run's ledger;
the later run's ledger then holds all of the chunk's windows, each with the run that labeled it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from microaction.labeling.ledger import CHUNKS, best_rows
from microaction.labeling.people import crop_of, read_video_people
from microaction.labeling.plan import plan_chunks
from microaction.labeling.settings import VideoLabelSettings
from microaction.labeling.tables import Provenance
from microaction.people.looks import iou
from microaction.video.framing import Crop

MIN_SAME_CROP_IOU = 0.8  # of networks whose training clips show people in about the same scale


class Windows(NamedTuple):
    """Labeled windows of a chunk, by person and time: their spans, whose they are, their probabilities, and the index of the run
    that labeled each in the list of runs."""

    start_us_W: np.ndarray
    end_us_W: np.ndarray
    person_W: np.ndarray
    probabilities_WK: np.ndarray
    run_W: np.ndarray

    @classmethod
    def none(cls, num_classes: int = 0) -> Self:
        """Return no windows."""
        empty = np.empty(0, np.int64)
        no_numbers = np.empty(0, np.int32)
        return cls(empty, empty, no_numbers, np.empty((0, num_classes), np.float32), no_numbers)

    def only(self, is_kept_W: np.ndarray) -> "Windows":
        """Return those of a mask [W]."""
        return Windows(*(column[is_kept_W] for column in self))

    def merged(self, others: "Windows") -> "Windows":
        """Return these and others, by person and time."""
        joined = Windows(*(np.concatenate([mine, theirs]) for mine, theirs in zip(self, others, strict=True)))
        order_W = np.lexsort((joined.start_us_W, joined.person_W))
        return Windows(*(column[order_W] for column in joined))


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
        windows = Windows(
            starts_us_W,
            np.array(row["window_end_us"], np.int64),
            np.array(row["window_person"], np.int32),
            probabilities_WK,
            np.array(row["window_run"], np.int32) + 1,
        )
        return windows.only(probabilities_WK.max(axis=1) >= self.below)

    def _row(self, chunk: Mapping[str, Any]) -> dict[str, Any]:
        """Return the base run's row of the chunk."""
        video, ids = chunk["video"], pa.array([chunk["base_chunk_id"]])
        try:
            rows = CHUNKS.read_rows(self.out, [chunk["base_file"]], ids, (video, video))
        except FileNotFoundError:  # that run's command was started again, and compacted its files
            index = CHUNKS.read_index(self.out)
            files = pc.unique(index["file"].filter(pc.is_in(index["chunk_id"], value_set=ids))).to_pylist()
            rows = CHUNKS.read_rows(self.out, files, ids, (video, video))
        (row,) = rows.to_pylist()
        return dict(row)


@dataclass(frozen=True)
class BaseRun:
    """A finished run, and what is reused of it. `runs` are those that labeled its windows, itself first; `people` are those whom
    it labeled, or None if it labeled whole frames."""

    reuse: WindowReuse
    runs: tuple[Provenance, ...]
    people: pa.Table | None

    @classmethod
    def of(cls, out: str, record: Mapping[str, Any], relabel_below: float) -> Self:
        """Return the run that `_run.json` describes. What it did not abstain on and what is not below `relabel_below` is
        reused."""
        runs = tuple(Provenance(**run) for run in record["runs"])
        below = max(record["settings"]["abstain_below"], relabel_below)
        people = None if record["settings"]["people"] == "off" else read_video_people(out)
        return cls(WindowReuse(out, below), runs, people)

    @property
    def digests(self) -> dict[str, str]:
        """What identifies the run exactly."""
        return {"model_digest": self.runs[0].model_digest, "settings_digest": self.runs[0].settings_digest}

    def chunk_index(self, plan: pa.Table, catalog: pa.Table, settings: VideoLabelSettings) -> pa.Table:
        """Return a row for each row of the plan: its `chunk_id`, and this run's row of the same chunk (`base_chunk_id`,
        `base_file`, `base_crops`), null where it has none: new videos, or those that have changed."""
        index = best_rows(CHUNKS.read_index(self.reuse.out))
        base_plan = plan_chunks(catalog, settings, self.runs[0].model_digest, self.runs[0].settings_digest, self.people)
        # The same part of the same video; its people may have another crop there.
        keys = [_place_of(table) for table in (plan, base_plan)]
        found = pc.index_in(keys[0], value_set=keys[1])
        base_ids = base_plan["chunk_id"].take(found)
        files = index["file"].take(pc.index_in(base_ids, value_set=index["chunk_id"].combine_chunks()))
        return pa.table(
            {
                "chunk_id": plan["chunk_id"],
                "base_chunk_id": base_ids,
                "base_file": files,
                "base_crops": base_plan["crops"].take(found),
            }
        )


def _place_of(plan: pa.Table) -> pa.Array:
    parts = [plan[name].cast(pa.string()) for name in ("video_row", "chunk_start_us")]
    return pc.binary_join_element_wise(*parts, " ").combine_chunks()


def shown_alike(
    windows: Windows,
    present: Mapping[tuple[int, int, int], Crop | None],
    base_crops: Sequence[Mapping[str, Any]] | None,
) -> np.ndarray:
    """Return which windows of a base run [W] are present, and showed about the same: the same person, in the same span.

    `present` has the crop of each window (person, start, end) of the chunk, `base_crops` those of the base run's chunk; both are
    None where whole frames are labeled. Lists of people may have given a number to somebody else, or have moved the crop.
    """
    spans = zip(windows.person_W.tolist(), windows.start_us_W.tolist(), windows.end_us_W.tolist(), strict=True)
    return np.array([_is_alike(span, present, base_crops) for span in spans], bool)


def _is_alike(
    span: tuple[int, int, int],
    present: Mapping[tuple[int, int, int], Crop | None],
    base_crops: Sequence[Mapping[str, Any]] | None,
) -> bool:
    if span not in present:
        return False
    crop, (person, start_us, _) = present[span], span
    if crop is None or base_crops is None:
        return crop is None and base_crops is None
    return any(
        placed["person"] == person
        and placed["start_us"] <= start_us < placed["end_us"]
        and iou(crop.box, crop_of(placed).box) >= MIN_SAME_CROP_IOU
        for placed in base_crops
    )
