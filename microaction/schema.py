"""The Parquet tables: a catalog of videos, the chunks of a run, and the four tables that people query."""

import pyarrow as pa

REGION_COLUMNS = ("region_left", "region_top", "region_width", "region_height")
_REGION = [pa.field(name, pa.int32()) for name in REGION_COLUMNS]
_TEXT = pa.dictionary(pa.int32(), pa.string())  # few distinct values over many rows

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
    ]
)
"""A unit of work. `attempts` counts the tries, this one included."""

COMMITTED_CHUNK = pa.schema(
    [
        *(field for field in CHUNK if field.name not in REGION_COLUMNS),
        pa.field("decoder", pa.string(), nullable=False),
        pa.field("window_start_us", pa.list_(pa.int64()), nullable=False),
        pa.field("window_end_us", pa.list_(pa.int64()), nullable=False),
        pa.field("probabilities", pa.list_(pa.list_(pa.float32())), nullable=False),
        pa.field("stage", pa.string()),
        pa.field("error", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
"""A chunk's whole result in one row: its windows, and if any are missing the stage, error and reason of its failure."""

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
        pa.field("video", _TEXT, nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("action", _TEXT, nullable=False),
        pa.field("action_id", pa.int32(), nullable=False),
        pa.field("body_part", _TEXT, nullable=False),
        pa.field("body_part_id", pa.int32(), nullable=False),
        pa.field("probability", pa.float32(), nullable=False),
        pa.field("probabilities", pa.list_(pa.float32()), nullable=False),
        *_PROVENANCE,
    ]
)

EVENTS = pa.schema(
    [
        pa.field("video", _TEXT, nullable=False),
        pa.field("action", _TEXT, nullable=False),
        pa.field("action_id", pa.int32(), nullable=False),
        pa.field("body_part", _TEXT, nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("probability", pa.float32(), nullable=False),
        pa.field("num_windows", pa.int32(), nullable=False),
        *_PROVENANCE,
    ]
)

VIDEOS = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("duration_s", pa.float64()),
        pa.field("num_windows", pa.int64(), nullable=False),
        pa.field("covered_s", pa.float64(), nullable=False),
        pa.field("failed_s", pa.float64(), nullable=False),
        pa.field("num_events", pa.int64(), nullable=False),
        pa.field("codec", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("fps", pa.float64()),
        *_PROVENANCE,
    ]
)
"""A row per video of the catalog; `duration_s` is null where the video could not be opened."""

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

PUBLISHED = {"windows": WINDOWS, "events": EVENTS, "videos": VIDEOS, "failures": FAILURES}
