"""The Parquet tables: a catalog of videos, the chunks of a run, the four tables that people query, the clips of a model."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

REGION_COLUMNS = ("region_left", "region_top", "region_width", "region_height")
_REGION = [pa.field(name, pa.int32()) for name in REGION_COLUMNS]
# Few distinct values over many rows. Not for videos: pyarrow passes over row groups by the statistics of plain texts only.
_TEXT = pa.dictionary(pa.int32(), pa.string())

CATALOG = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("codec", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("rotation", pa.int32()),
        pa.field("fps", pa.float64()),
        pa.field("num_frames", pa.int64()),
        pa.field("duration_s", pa.float64()),
        pa.field("has_audio", pa.bool_()),
        *_REGION,
        pa.field("error", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
"""A row per video of an archive; where `error` is not null the video cannot be read, and `reason` says why.

`region_…`, in pixels of frames as they are shown, are null in a new catalog; whoever fills them in limits what the model sees
of that video.
"""

PLAN = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("video_row", pa.int32(), nullable=False),
        pa.field("chunk_start_us", pa.int64(), nullable=False),
        pa.field("chunk_end_us", pa.int64(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
    ]
)
"""A row per chunk of a catalog; `video_row` is the row of its video there. `attempts` counts the tries, this one included."""

CHUNK = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("video", pa.string(), nullable=False),
        pa.field("video_version", pa.string(), nullable=False),
        pa.field("chunk_start_us", pa.int64(), nullable=False),
        pa.field("chunk_end_us", pa.int64(), nullable=False),
        pa.field("duration_us", pa.int64(), nullable=False),
        *_REGION,
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("base_chunk_id", pa.string()),
        pa.field("base_file", pa.string()),
    ]
)
"""A unit of work: a row of a plan with all that is to be known of its video. `earlier_…` say where an earlier run's ledger
has this chunk, of which some windows are to be kept; null where none are."""
UNCOMMITTED_COLUMNS = (*REGION_COLUMNS, "base_chunk_id", "base_file")

COMMITTED_CHUNK = pa.schema(
    [
        *(field for field in CHUNK if field.name not in UNCOMMITTED_COLUMNS),
        pa.field("decoder", pa.string(), nullable=False),
        pa.field("num_windows", pa.int32(), nullable=False),
        pa.field("window_start_us", pa.list_(pa.int64()), nullable=False),
        pa.field("window_end_us", pa.list_(pa.int64()), nullable=False),
        pa.field("probabilities", pa.list_(pa.float32()), nullable=False),
        pa.field("window_run", pa.list_(pa.int32()), nullable=False),
        pa.field("stage", pa.string()),
        pa.field("error", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
"""A chunk's whole result in one row: its windows, and if any are missing the stage, error and reason of its failure.

`probabilities` has those of all actions of the first window, then of the second, and so on. `window_run` says which run
labelled a window: 0 for this one, else an earlier one, by its place in this run's `runs`.
"""

LEDGER_INDEX = pa.schema(
    [
        pa.field("chunk_id", pa.string()),
        pa.field("attempts", pa.int32()),
        pa.field("error", pa.string()),
        pa.field("num_windows", pa.int32()),
        pa.field("file", pa.string()),
    ]
)
"""What is known of a committed chunk without its windows, and the file of the ledger that holds it."""

PACKED_CLIP = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_version", pa.string()),
        pa.field("proxy", pa.string(), nullable=False),
        pa.field("short_side", pa.int32(), nullable=False),
        *_REGION,
        pa.field("num_frames", pa.int64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("size_bytes", pa.int64()),
        pa.field("psnr_db", pa.float64()),
        pa.field("error", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
"""A row per clip of a packed list: where it came from and what its proxy is, or why there is none."""

_PROVENANCE = [
    pa.field("video_version", pa.string(), nullable=False),
    pa.field("model", _TEXT, nullable=False),
    pa.field("model_digest", _TEXT, nullable=False),
    pa.field("settings_digest", _TEXT, nullable=False),
    pa.field("decoder", _TEXT, nullable=False),
]

WINDOWS = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("action", _TEXT, nullable=False),
        pa.field("action_id", pa.int32(), nullable=False),
        pa.field("body_part", _TEXT, nullable=False),
        pa.field("body_part_id", pa.int32(), nullable=False),
        pa.field("probability", pa.float32(), nullable=False),
        pa.field("abstained", pa.bool_(), nullable=False),
        pa.field("probabilities", pa.list_(pa.float32()), nullable=False),
        pa.field("body_part_probabilities", pa.list_(pa.float32()), nullable=False),
        *_PROVENANCE,
    ]
)
"""A row per window, by video and time. `body_part` is that of the likeliest action; a body part's probability is the sum over
its actions. `abstained` where even the likeliest action is less likely than the run asks for. `model`, `model_digest` and
`settings_digest` are those of the run that labelled the window: with `--relabel uncertain` this one or an earlier one."""

EVENTS = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("action", _TEXT, nullable=False),
        pa.field("action_id", pa.int32(), nullable=False),
        pa.field("body_part", _TEXT, nullable=False),
        pa.field("body_part_id", pa.int32(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("probability", pa.float32(), nullable=False),
        pa.field("peak_probability", pa.float32(), nullable=False),
        pa.field("num_windows", pa.int32(), nullable=False),
        *_PROVENANCE,
    ]
)
"""A row per event, in each file by action, video and time, a row group per action."""

_ACTIVITY = [
    pa.field("num_events", pa.int64(), nullable=False),
    pa.field("events_per_minute", pa.float64(), nullable=False),
    pa.field("total_s", pa.float64(), nullable=False),
]
VIDEOS = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("duration_s", pa.float64()),
        pa.field("num_windows", pa.int64(), nullable=False),
        pa.field("covered_s", pa.float64(), nullable=False),
        pa.field("failed_s", pa.float64(), nullable=False),
        pa.field("coverage", pa.float64()),
        pa.field("abstained_fraction", pa.float64()),
        pa.field("num_events", pa.int64(), nullable=False),
        pa.field("events_per_minute", pa.float64()),
        pa.field(
            "actions",
            pa.list_(pa.struct([pa.field("action", pa.string()), pa.field("body_part", pa.string()), *_ACTIVITY])),
            nullable=False,
        ),
        pa.field("body_parts", pa.list_(pa.struct([pa.field("body_part", pa.string()), *_ACTIVITY])), nullable=False),
        pa.field("codec", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("fps", pa.float64()),
        *_PROVENANCE,
    ]
)
"""A row per video of the catalog; `duration_s` is null where the video could not be opened.

`coverage` is the share of its time that windows cover, `abstained_fraction` that of its windows without an answer; rates are
per minute that windows cover. `actions` and `body_parts` have those that occur; where events of one body part overlap, their
time counts once.
"""

FAILURES = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64()),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        *_PROVENANCE,
    ]
)
"""A row per span that carries no labels; `end_s` is null where the video's length could not be learned."""

PUBLIC_TABLES = {"windows": WINDOWS, "events": EVENTS, "videos": VIDEOS, "failures": FAILURES}
SCHEMA_VERSION = 2
"""Of the published tables; in their files' metadata as `microaction.schema_version`."""

CLIP_LIST = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("subject", pa.string()),
        pa.field("uri", pa.string()),
        *_REGION,
    ]
)
"""A list of labelled clips; where `uri` is null a clip lies in the list's folder of videos."""

TRAINING_CLIPS = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("subject", pa.string()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("is_readable", pa.bool_(), nullable=False),
    ]
)
"""A row per clip that a model was made from or judged on; `split` is train, validation or held-out."""
CLIPS_FILE = "clips.parquet"


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    """The content of a Parquet file; `options` are those of `pyarrow.parquet.write_table`."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return bytes(sink.getvalue().to_pybytes())
