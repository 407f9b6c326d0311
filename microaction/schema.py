"""The Parquet tables: the catalog of videos, looks, people and chunks of a run, the public tables, and the clips of a model."""

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

_CROP = [pa.field(name, pa.int32()) for name in ("left", "top", "width", "height", "limit_left", "limit_right")]
CROPS = pa.list_(
    pa.struct([pa.field("person", pa.int32()), *(pa.field(n, pa.int64()) for n in ("start_us", "end_us")), *_CROP])
)
"""Who is labeled when: the span over which a person's windows are laid, and the crop, in pixels of displayed frames."""

PLAN = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("video_row", pa.int32(), nullable=False),
        pa.field("chunk_start_us", pa.int64(), nullable=False),
        pa.field("chunk_end_us", pa.int64(), nullable=False),
        pa.field("crops", CROPS),
        pa.field("num_windows", pa.int32(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
    ]
)
"""A row per chunk of a catalog. `video_row` is the row of its video in the catalog, `num_windows` counts the windows that start
in it, and `crops` are those of these windows, or null where whole frames or regions are labeled; `attempts` counts the attempts
so far, the planned one included."""

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
        pa.field("crops", CROPS),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("base_chunk_id", pa.string()),
        pa.field("base_file", pa.string()),
        pa.field("base_crops", CROPS),
    ]
)
"""A unit of work: a row of a plan, with all that a worker must know of its video. Times count from
the start of its track. The `base_…` columns locate the chunk in the base run's ledger, and say whom it labeled there, if some of
its windows are reused; otherwise they are null."""
UNCOMMITTED_COLUMNS = ("fps", "seek_points", *REGION_COLUMNS, "crops", "base_chunk_id", "base_file", "base_crops")

TRACKS = pa.list_(
    pa.struct(
        [
            pa.field("person", pa.int32()),
            pa.field("origin_us", pa.int64()),
            pa.field("first_step", pa.int64()),
            pa.field("num_steps", pa.int32()),
            pa.field("end_us", pa.int64()),
        ]
    )
)
"""Steps of a detector, one after the other: whose they are, where the person's span begins, from which step of that on, how many,
and when the last one ends."""

COMMITTED_CHUNK = pa.schema(
    [
        *(field for field in CHUNK if field.name not in UNCOMMITTED_COLUMNS),
        pa.field("decoder", pa.string(), nullable=False),
        pa.field("num_windows", pa.int32(), nullable=False),
        pa.field("window_start_us", pa.list_(pa.int64()), nullable=False),
        pa.field("window_end_us", pa.list_(pa.int64()), nullable=False),
        pa.field("window_person", pa.list_(pa.int32()), nullable=False),
        pa.field("probabilities", pa.list_(pa.float32()), nullable=False),
        pa.field("window_run", pa.list_(pa.int32()), nullable=False),
        pa.field("tracks", TRACKS),
        pa.field("features", pa.large_binary()),
        pa.field("stage", pa.string()),
        pa.field("error", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
"""A chunk's whole result in one row: its windows and, if any are missing, the stage, error and reason of its failure.

Windows are by person and time. `probabilities` holds the probabilities of all actions in the first window, then those in the
second, and so on. `window_run` is the run that labeled a window, by its index in this run's `runs`: 0 for this run, more for
base runs.

A detector's chunk has no windows, but `tracks`, and `features`: what its first layer gives for each of their steps, float16, one
track after the other; `num_windows` counts the steps. Both are null for classifiers.
"""

LOOKS = pa.list_(
    pa.struct(
        [
            pa.field("time_us", pa.int64()),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("thumbnail", pa.binary()),
            pa.field("cut_us", pa.int64()),
            pa.field(
                "people",
                pa.list_(
                    pa.struct(
                        [
                            pa.field("box", pa.list_(pa.float64())),
                            pa.field("keypoints", pa.list_(pa.float32())),
                            pa.field("score", pa.float64()),
                            pa.field("colors", pa.list_(pa.float32())),
                        ]
                    )
                ),
            ),
        ]
    )
)
"""The looks at a part of a video: fields of `microaction.people.Look`, arrays as flat lists, the thumbnail as its bytes."""

COMMITTED_LOOKS = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("video", pa.string(), nullable=False),
        pa.field("video_version", pa.string(), nullable=False),
        pa.field("chunk_start_us", pa.int64(), nullable=False),
        pa.field("chunk_end_us", pa.int64(), nullable=False),
        pa.field("duration_us", pa.int64(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("looks", LOOKS, nullable=False),
        pa.field("error", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
"""All looks at a part of a video, the chunk of this ledger, or the error and reason why there are none."""

_SPAN_OF_PERSON = [
    pa.field("body", pa.string()),
    pa.field("height_px", pa.float64()),
    pa.field("score", pa.float64()),
    pa.field("num_looks", pa.int32()),
    pa.field("error", pa.string()),
    pa.field("reason", pa.string()),
]
VIDEO_PEOPLE = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("num_shots", pa.int32(), nullable=False),
        pa.field(
            "spans",
            pa.list_(
                pa.struct(
                    [
                        pa.field("person", pa.int32()),
                        pa.field("name", pa.string()),
                        pa.field("shot", pa.int32()),
                        pa.field("start_us", pa.int64()),
                        pa.field("end_us", pa.int64()),
                        *_CROP,
                        *_SPAN_OF_PERSON,
                    ]
                )
            ),
            nullable=False,
        ),
        pa.field(
            "problems",
            pa.list_(
                pa.struct(
                    [
                        pa.field("start_us", pa.int64()),
                        pa.field("end_us", pa.int64()),
                        pa.field("error", pa.string()),
                        pa.field("reason", pa.string()),
                    ]
                )
            ),
            nullable=False,
        ),
    ]
)
"""The people of a video, in a run's `_people.parquet`; times count from the start of its track.

`key` identifies all that they are a function of. A span with an `error` is not labeled; `problems` are not a person's: parts that
could not be looked at, or in which there may be more people.
"""

PEOPLE_LIST = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("video_version", pa.string()),
        pa.field("person", pa.int32(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("shot", pa.int32()),
        pa.field("left", pa.int32(), nullable=False),
        pa.field("top", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("limit_left", pa.int32()),
        pa.field("limit_right", pa.int32()),
        *_SPAN_OF_PERSON,
    ]
)
"""A row per video, person and span, as `microaction people` writes it and `label --people` takes it; by video, person and time.

What is renamed, merged, deleted or moved in it is labeled so. A span with an `error` is not labeled: make that null to have it.
"""
OPTIONAL_PEOPLE_COLUMNS = tuple(field.name for field in PEOPLE_LIST if field.nullable)
"""Columns that a list of people made by hand may lack."""

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

CROP_COLUMNS = ("crop_left", "crop_top", "crop_width", "crop_height")
PACKED_CLIP = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("label", pa.int64()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_version", pa.string()),
        pa.field("proxy", pa.string(), nullable=False),
        pa.field("short_side", pa.int32(), nullable=False),
        *_REGION,
        pa.field("person", pa.int32()),
        pa.field("person_scale", pa.string()),
        *(pa.field(name, pa.int32()) for name in CROP_COLUMNS),
        pa.field("num_frames", pa.int64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("size_bytes", pa.int64()),
        pa.field("psnr_db", pa.float64()),
        pa.field("video_start_s", pa.float64()),
        pa.field("error", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
"""A row per clip of a packed list: its source and its proxy, or the error and reason why it has no proxy.

Or a row per video of a list of spans: `label` is null. A proxy begins with the source's video track, at `video_start_s` on the
timeline of the source.

Where people were looked for, `person_scale` is the JSON of a `PersonScale`, and `person` is whom the list names. The `crop_…`
columns are the rectangle that shows one of several people, in pixels of displayed frames; it may leave the frame. They are null
where whole frames or regions are shown.
"""

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
        pa.field("person", pa.int32(), nullable=False),
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
"""A row per window, by video, person and time.

`body_part` is that of the most likely action; a body part's probability is the sum over its actions. A window is `abstained`
if even its most likely action is less probable than the run's `abstain_below`. `model`, `model_digest` and `settings_digest`
are those of the run that labeled the window: with `--relabel uncertain`, this run or one that it reuses.
"""

EVENTS = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("person", pa.int32(), nullable=False),
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
"""A row per event. Each file is sorted by action, video, person and time, and has a row group per action."""

_RATES = [
    pa.field("num_events", pa.int64(), nullable=False),
    pa.field("events_per_minute", pa.float64(), nullable=False),
    pa.field("total_s", pa.float64(), nullable=False),
]
_ACTIVITY = [
    pa.field("num_windows", pa.int64(), nullable=False),
    pa.field("covered_s", pa.float64(), nullable=False),
    pa.field("failed_s", pa.float64(), nullable=False),
    pa.field("coverage", pa.float64()),
    pa.field("abstained_fraction", pa.float64()),
    pa.field("num_events", pa.int64(), nullable=False),
    pa.field("events_per_minute", pa.float64()),
    pa.field(
        "actions",
        pa.list_(pa.struct([pa.field("action", pa.string()), pa.field("body_part", pa.string()), *_RATES])),
        nullable=False,
    ),
    pa.field("body_parts", pa.list_(pa.struct([pa.field("body_part", pa.string()), *_RATES])), nullable=False),
]
VIDEOS = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("duration_s", pa.float64()),
        pa.field("video_start_s", pa.float64()),
        pa.field("num_people", pa.int32()),
        pa.field("num_shots", pa.int32()),
        pa.field("nobody_s", pa.float64()),
        *_ACTIVITY,
        pa.field("codec", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("fps", pa.float64()),
        *_PROVENANCE,
    ]
)
"""A row per video of the catalog; `duration_s` is null if the video could not be opened.

`num_people` counts those who are labeled, `nobody_s` are seconds in which nobody is seen; they and `num_shots` are null where
people were not looked for. `coverage` is the fraction of its duration that windows of anybody cover, `abstained_fraction` the
fraction of its windows that are `abstained`. Rates are per minute that windows cover. `actions` and `body_parts` list those that
occur; where events of one body part overlap, their time counts once.
"""

PEOPLE = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("person", pa.int32(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("seen_s", pa.float64(), nullable=False),
        *_ACTIVITY,
        pa.field(
            "spans",
            pa.list_(
                pa.struct(
                    [
                        pa.field("start_s", pa.float64()),
                        pa.field("end_s", pa.float64()),
                        pa.field("shot", pa.int32()),
                        *_CROP,
                        *_SPAN_OF_PERSON,
                    ]
                )
            ),
            nullable=False,
        ),
        *_PROVENANCE,
    ]
)
"""A row per person of a video who is seen in it, by video and person; 0 stands for the whole frame, or the catalog's region.

`spans`: where the person is seen, and the crop that the network sees there; empty for person 0. A span with an `error` has no
labels, and is in `failures/`. `coverage` is the fraction of `seen_s` that windows cover. A person has no identity beyond one
video.
"""

FAILURES = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("person", pa.int32()),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64()),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        *_PROVENANCE,
    ]
)
"""A row per span without labels: of a person, or of the video, if `person` is null.

`end_s` is null if the video's duration is unknown. Of each person, the spans are what is seen and not covered by windows;
together with the rows of the video and what windows cover, they are the whole video.
"""

ACTIVITY = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("person", pa.int32(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("step_s", pa.float64(), nullable=False),
        pa.field("num_steps", pa.int32(), nullable=False),
        pa.field("activity", pa.list_(pa.uint8()), nullable=False),
        *_PROVENANCE,
    ]
)
"""A row for at most a minute of a person, by video, person and time: a detector's dense probabilities. Empty for classifiers.

`activity` has a number for every action at every step of `step_s` seconds, from `start_s` on: the probability times 255, all
actions of the first step, then all of the second, and so on. As an array of `num_steps` × 52:
`np.array(row["activity"], np.uint8).reshape(row["num_steps"], 52) / 255`.
"""

PUBLIC_TABLES = {
    "windows": WINDOWS,
    "activity": ACTIVITY,
    "events": EVENTS,
    "people": PEOPLE,
    "videos": VIDEOS,
    "failures": FAILURES,
}
"""The tables that `microaction label` publishes, by name."""

SCHEMA_VERSION = 6  # 6: activity; 5: people; 4: times count from the start of the file, not of its video track
"""Version of the public tables; in the metadata of their files as `microaction.schema_version`."""

COLUMN_DOCS: dict[str, str] = {
    "video": "Path or URI of the video.",
    "person": "Number of the person in the video, from 1; 0: the whole frame or region; null: a failure of nobody's.",
    "name": "Name that the list of people gives the person; null without one.",
    "seen_s": "Seconds in which the person is seen.",
    "spans": "Where the person is seen, by time: a struct for each span.",
    "shot": "Number of the shot in the video, from 0: a shot lasts from one cut of the camera to the next.",
    "left": "Left edge of the person's crop, in pixels of displayed frames; the crop may leave the frame.",
    "top": "Top edge of the person's crop, in pixels of displayed frames.",
    "limit_left": "What is left of this, in pixels of displayed frames, shows a neighbor and is not used; null: none.",
    "limit_right": "What is right of this, in pixels of displayed frames, shows a neighbor and is not used; null: none.",
    "body": "What is visible of the person: `whole`, `no legs` or `head and shoulders`.",
    "height_px": "Height of the whole person in pixels of displayed frames, estimated where a part is hidden.",
    "score": "Median score of the detections of the person, 0 to 1.",
    "num_looks": "Number of looks that the span was found in.",
    "num_people": "Number of people who are labeled; null if people were not looked for.",
    "num_shots": "Number of shots; null if people were not looked for.",
    "nobody_s": "Seconds of the video in which nobody is seen; null if people were not looked for.",
    "start_s": "Start of the span, in seconds on the file's timeline: 0 s is where players start the file.",
    "end_s": "End of the span (exclusive), in seconds; null in `failures` if the video's duration is unknown.",
    "action": "Name of the action; of a window, its most likely action.",
    "action_id": "Label index of the action, 0 to 51.",
    "body_part": "Name of the body part; beside an action, the one that the action belongs to.",
    "body_part_id": "Label index of the body part, 0 to 6.",
    "probability": "Probability of the action, 0 to 1; of an event, the mean over its windows, or that it is true.",
    "peak_probability": "Maximum of the action's probability over the event's windows or steps, 0 to 1.",
    "step_s": "Length of a step in seconds.",
    "num_steps": "Number of steps.",
    "activity": "Probability of every action at each step, times 255: all of the first step, then all of the second.",
    "abstained": "Whether even the most likely action is less probable than the run's `abstain_below`.",
    "probabilities": "Probability of every action, 0 to 1, by `action_id`; they sum to 1.",
    "body_part_probabilities": "Probability of every body part, 0 to 1, by `body_part_id`: the sum over its actions.",
    "video_version": "Version of the video file: its ETag, or its size and modification time.",
    "model": "Location of the checkpoint.",
    "model_digest": "Hexadecimal SHA-256 of the checkpoint's weights and of all that changes their predictions.",
    "settings_digest": "Hexadecimal SHA-256 of the settings that decide windows and probabilities.",
    "decoder": "Decoder and its version; if there are several, separated by commas.",
    "num_windows": "Number of windows in the event, of the person or of the video; 0 for detectors.",
    "duration_s": "Duration of the video track in seconds; null if the video cannot be opened.",
    "video_start_s": "When the video track starts on the file's timeline, in seconds; more than 0 where only sound comes first.",
    "covered_s": "Seconds that windows cover: the person's, or of the video anybody's.",
    "failed_s": "Seconds that no window covers, which are in `failures`.",
    "coverage": "Fraction of the duration, or of `seen_s`, that windows cover, 0 to 1; null if the duration is unknown.",
    "abstained_fraction": "Fraction of the windows that are `abstained`, 0 to 1; null without windows.",
    "num_events": "Number of events of the video, the person, the action or the body part.",
    "events_per_minute": "Events per minute of video that windows cover; null without windows.",
    "total_s": "Seconds that the events cover; where events overlap, their time counts once.",
    "actions": "The actions that occur, by `action_id`: a struct for each.",
    "body_parts": "The body parts that occur, by `body_part_id`: a struct for each.",
    "codec": "Codec by FFmpeg's name, such as `h264`.",
    "width": "Width of displayed frames, or of a crop, in square pixels: sample aspect ratio and display matrix are applied.",
    "height": "Height of displayed frames, or of a crop, in square pixels.",
    "fps": "Average frame rate, in frames per second.",
    "stage": "Stage that failed: `catalog`, `people`, `decode` or `label`.",
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
        pa.field("person", pa.int32()),
        *_REGION,
    ]
)
"""A list of labeled clips. Where `uri` is null, the clip is in the list's folder of videos. `person` says who counts of several
people, from 1 from left to right; a region comes first."""

INSTANCE_LIST = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("action", pa.string(), nullable=False),
        pa.field("action_id", pa.int32(), nullable=False),
        pa.field("person", pa.int32()),
        pa.field("subject", pa.string()),
        *_REGION,
    ]
)
"""A list of the instances of actions in videos, over [start_s, end_s) of each file's timeline. `person` and the region are those
of `CLIP_LIST`."""

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
