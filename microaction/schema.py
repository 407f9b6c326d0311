"""The Parquet tables: the catalog of videos, the chunks of a run, the four public tables, and the clips of a model."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

REGION_COLUMNS = ("region_left", "region_top", "region_width", "region_height")
_REGION = [pa.field(name, pa.int32()) for name in REGION_COLUMNS]
# Few distinct values over many rows. Not for videos: pyarrow skips row groups by the statistics of plain strings only.
_TEXT = pa.dictionary(pa.int32(), pa.string())

SEEK_POINTS = pa.list_(
    pa.struct([pa.field(name, pa.int64()) for name in ("time_us", "position", "crc32", "pts", "dts", "offset")])
)
"""Where decoding can begin in a stream without an index: fields of `microaction.video.SeekPoint`."""

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
        pa.field("video_start_s", pa.float64()),
        pa.field("num_video_tracks", pa.int32()),
        pa.field("seek_points", SEEK_POINTS),
        *_REGION,
        pa.field("error", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
"""A row per video of an archive. Where `error` is not null, the video cannot be read, and `reason` says why.

The `region_…` columns, in pixels of displayed frames, are null in a new catalog. Fill them in to limit what the network sees
of a video.
"""
OPTIONAL_CATALOG_COLUMNS = ("video_start_s", "num_video_tracks", "seek_points", *REGION_COLUMNS)
"""Columns that a catalog made by hand may lack."""

PLAN = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("video_row", pa.int32(), nullable=False),
        pa.field("chunk_start_us", pa.int64(), nullable=False),
        pa.field("chunk_end_us", pa.int64(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
    ]
)
"""A row per chunk of a catalog. `video_row` is the row of its video in the catalog; `attempts` counts the attempts so far,
the planned one included."""

CHUNK = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("video", pa.string(), nullable=False),
        pa.field("video_version", pa.string(), nullable=False),
        pa.field("chunk_start_us", pa.int64(), nullable=False),
        pa.field("chunk_end_us", pa.int64(), nullable=False),
        pa.field("duration_us", pa.int64(), nullable=False),
        pa.field("fps", pa.float64()),
        pa.field("seek_points", SEEK_POINTS),
        *_REGION,
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("base_chunk_id", pa.string()),
        pa.field("base_file", pa.string()),
    ]
)
"""A unit of work: a row of a plan, with all that a worker must know of its video. Times count from
the start of its track. The `base_…` columns locate the chunk in the base run's ledger if some of its windows are reused;
otherwise they are null."""
UNCOMMITTED_COLUMNS = ("fps", "seek_points", *REGION_COLUMNS, "base_chunk_id", "base_file")

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
"""A chunk's whole result in one row: its windows and, if any are missing, the stage, error and reason of its failure.

`probabilities` holds the probabilities of all actions in the first window, then those in the second, and so on. `window_run`
is the run that labeled a window, by its index in this run's `runs`: 0 for this run, more for base runs.
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
"""A row per committed chunk: its columns without the windows, and the file of the ledger that holds it."""

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
"""A row per clip of a packed list: its source and its proxy, or the error and reason why it has no proxy."""

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
"""A row per window, by video and time.

`body_part` is that of the most likely action; a body part's probability is the sum over its actions. A window is `abstained`
if even its most likely action is less probable than the run's `abstain_below`. `model`, `model_digest` and `settings_digest`
are those of the run that labeled the window: with `--relabel uncertain`, this run or one that it reuses.
"""

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
"""A row per event. Each file is sorted by action, video and time, and has a row group per action."""

_ACTIVITY = [
    pa.field("num_events", pa.int64(), nullable=False),
    pa.field("events_per_minute", pa.float64(), nullable=False),
    pa.field("total_s", pa.float64(), nullable=False),
]
VIDEOS = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("duration_s", pa.float64()),
        pa.field("video_start_s", pa.float64()),
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
"""A row per video of the catalog; `duration_s` is null if the video could not be opened.

`coverage` is the fraction of its duration that windows cover, `abstained_fraction` the fraction of its windows that are
`abstained`. Rates are per minute that windows cover. `actions` and `body_parts` list those that occur; where events of one
body part overlap, their time counts once.
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
"""A row per span without labels; `end_s` is null if the video's duration is unknown."""

PUBLIC_TABLES = {"windows": WINDOWS, "events": EVENTS, "videos": VIDEOS, "failures": FAILURES}
"""The tables that `microaction label` publishes, by name."""

SCHEMA_VERSION = 4  # 4: times count from the start of the file, not of its video track; videos has video_start_s
"""Version of the public tables; in the metadata of their files as `microaction.schema_version`."""

COLUMN_DOCS: dict[str, str] = {
    "video": "Path or URI of the video.",
    "start_s": "Start of the span, in seconds on the file's timeline: 0 s is where players start the file.",
    "end_s": "End of the span (exclusive), in seconds; null in `failures` if the video's duration is unknown.",
    "action": "Name of the action; of a window, its most likely action.",
    "action_id": "Label index of the action, 0 to 51.",
    "body_part": "Name of the body part; beside an action, the one that the action belongs to.",
    "body_part_id": "Label index of the body part, 0 to 6.",
    "probability": "Probability of the action, 0 to 1; of an event, the mean over its windows.",
    "peak_probability": "Maximum of the action's probability over the event's windows, 0 to 1.",
    "abstained": "Whether even the most likely action is less probable than the run's `abstain_below`.",
    "probabilities": "Probability of every action, 0 to 1, by `action_id`; they sum to 1.",
    "body_part_probabilities": "Probability of every body part, 0 to 1, by `body_part_id`: the sum over its actions.",
    "video_version": "Version of the video file: its ETag, or its size and modification time.",
    "model": "Location of the checkpoint.",
    "model_digest": "Hexadecimal SHA-256 of the checkpoint's weights and of all that changes their predictions.",
    "settings_digest": "Hexadecimal SHA-256 of the settings that decide windows and probabilities.",
    "decoder": "Decoder and its version; if there are several, separated by commas.",
    "num_windows": "Number of windows in the event or the video.",
    "duration_s": "Duration of the video track in seconds; null if the video cannot be opened.",
    "video_start_s": "When the video track starts on the file's timeline, in seconds; more than 0 where only sound comes first.",
    "covered_s": "Seconds of the video that windows cover.",
    "failed_s": "Seconds of the video that are in `failures`.",
    "coverage": "Fraction of the duration that windows cover, 0 to 1; null if the duration is unknown.",
    "abstained_fraction": "Fraction of the video's windows that are `abstained`, 0 to 1; null if it has no windows.",
    "num_events": "Number of events of the video, the action or the body part.",
    "events_per_minute": "Events per minute of video that windows cover; null if the video has no windows.",
    "total_s": "Seconds that the events cover; where events overlap, their time counts once.",
    "actions": "The actions that occur, by `action_id`: a struct for each.",
    "body_parts": "The body parts that occur, by `body_part_id`: a struct for each.",
    "codec": "Codec by FFmpeg's name, such as `h264`.",
    "width": "Width of displayed frames in square pixels: sample aspect ratio and display matrix are applied.",
    "height": "Height of displayed frames in square pixels.",
    "fps": "Average frame rate, in frames per second.",
    "stage": "Stage that failed: `catalog`, `decode` or `label`.",
    "error": "Kind of the failure, such as `decode_error`; null in the catalog if the video can be read.",
    "reason": "Cause of the failure in plain words; null in the catalog if the video can be read.",
    "attempts": "Number of attempts so far.",
    "version": "Version of the file: its ETag, or its size and modification time.",
    "size_bytes": "Size of the file in bytes.",
    "rotation": "Degrees clockwise (0, 90, 180 or 270) by which the display matrix turns stored frames, before it mirrors them.",
    "num_frames": "Number of frames of the video track.",
    "has_audio": "Whether the file has an audio track.",
    "num_video_tracks": "Number of video tracks; the default one is labeled.",
    "seek_points": "Where decoding can begin in a stream without an index; null or empty for files with one.",
    "time_us": "When the frame of a seek point is shown, in microseconds from the start of the video track.",
    "position": "Byte of the file at which reading begins for a seek point.",
    "crc32": "Checksum of a seek point's packet.",
    "pts": "Presentation timestamp of a seek point's packet, in ticks of the stream's clock.",
    "dts": "Decoding timestamp of a seek point's packet, in ticks; in AVI, the number of its chunk.",
    "offset": "Ticks between the timestamps in the file and those of a seek point.",
    "region_left": "Left edge of the region that the network sees, in pixels of displayed frames; null for whole frames.",
    "region_top": "Top edge of the region, in pixels of displayed frames; null for whole frames.",
    "region_width": "Width of the region, in pixels of displayed frames; null for whole frames.",
    "region_height": "Height of the region, in pixels of displayed frames; null for whole frames.",
}
"""What each column of the public tables and of the catalog holds, fields of structs included. A name means the same in every
table. The documentation of the tables is generated from this."""

CLIP_LIST = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("subject", pa.string()),
        pa.field("uri", pa.string()),
        *_REGION,
    ]
)
"""A list of labeled clips. Where `uri` is null, the clip is in the list's folder of videos."""

SKELETONS = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("person", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("keypoints", pa.list_(pa.float32(), 84), nullable=False),
    ]
)
"""A row per clip or video, frame (from 0) and person (from 1); the rows of a video lie one after the other.

`keypoints` holds x, y and score of each of 28 keypoints, in pixels of frames of `width`×`height`; 0, 0 is one that was not
found. Their order is OpenPose's 18 points of COCO, then five of the left hand and five of the right.
"""

TRAINING_CLIPS = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("subject", pa.string()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("is_readable", pa.bool_(), nullable=False),
    ]
)
"""A row per clip that a checkpoint was trained, validated or tested on; `split` is train, validation or held-out."""
CLIPS_FILE = "clips.parquet"


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    """Return a table as the content of a Parquet file; `options` are those of `pyarrow.parquet.write_table`."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return bytes(sink.getvalue().to_pybytes())
