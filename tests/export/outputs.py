"""Published outputs of given labels, without labeling anything."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from microaction.export.labels import Event
from microaction.labeling.published import PUBLICATION_FILE
from microaction.labeling.record import LEDGER_FORMAT, RUN_FILE
from microaction.schema import PUBLIC_TABLES
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS

VERSION = "20260101T000000Z-000000"
PROVENANCE = {
    "video_version": "1-1",
    "model": "demo-detector",
    "model_digest": "0" * 64,
    "settings_digest": "1" * 64,
    "decoder": "av 18.1.0",
}
STEP_S = 0.125
HOSTILE_NAMES = (
    "quote\"'s.mp4",
    "<script>alert(1)</script>.mp4",
    "line\nbreak\t.mp4",
    "\u202egnp.mp4",
    "=cmd|' /C calc'!A0.mp4",
    "+1.mp4",
    "@sum.mp4",
    "emoji 🙂 ü.mp4",
    "a,b;c.mp4",
    "&amp; %20 #frag?.mp4",
    "x" * 200 + ".mp4",
)


@dataclass(frozen=True)
class Video:
    """A video and its labels; people are those of the events, named by `names`, or nobody."""

    name: str
    events: Sequence[Event] = ()
    duration_s: float | None = 60.0
    size: tuple[int, int] = (640, 360)
    names: Mapping[int, str] = field(default_factory=dict)
    failures: Sequence[tuple[float, float | None, str, str]] = ()  # start, end, error, reason
    activity: Mapping[int, np.ndarray] = field(default_factory=dict)  # of a person: uint8 [steps, actions]
    num_people: int | None = None


def write_output(out: Path, archive: str, videos: Iterable[Video], videos_per_part: int = 100) -> Path:
    """Write what `microaction label ARCHIVE OUT` would have published, a part after the other; return `out`."""
    out.mkdir(parents=True, exist_ok=True)
    identity = {"format": LEDGER_FORMAT, "archive": archive, "model_digest": PROVENANCE["model_digest"]}
    runs = [{name: PROVENANCE[name] for name in ("model", "model_digest", "settings_digest")}]
    (out / RUN_FILE).write_text(json.dumps({"identity": identity, "runs": runs, "settings": {}}))
    totals = {
        "num_videos": 0,
        "num_people": 0,
        "num_windows": 0,
        "num_abstained": 0,
        "num_events": 0,
        "num_failures": 0,
    }
    part: list[Video] = []
    number = 0
    for video in videos:
        part.append(video)
        totals["num_videos"] += 1
        totals["num_events"] += len(video.events)
        totals["num_failures"] += len(video.failures)
        if len(part) == videos_per_part:
            _write_part(out, archive, part, number)
            part, number = [], number + 1
    if part:
        _write_part(out, archive, part, number)
    seconds = {"video_s": 0.0, "covered_s": 0.0, "failed_s": 0.0}
    tables = {name: f"{out}/tables/{VERSION}/{name}" for name in PUBLIC_TABLES}
    record = {"content": "", "previous": None, "totals": totals | seconds | {"version": VERSION}, "tables": tables}
    (out / PUBLICATION_FILE).write_text(json.dumps(record))
    for name in PUBLIC_TABLES:
        link = out / name
        if not link.is_symlink():
            link.symlink_to(f"tables/{VERSION}/{name}")
    return out


def _write_part(out: Path, archive: str, videos: Sequence[Video], number: int) -> None:
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in PUBLIC_TABLES}
    for video in sorted(videos, key=lambda video: video.name):
        _add(rows, f"{archive}/{video.name}", video)
    rows["events"].sort(key=lambda row: (row["action_id"], row["video"], row["person"], row["start_s"]))
    for name, schema in PUBLIC_TABLES.items():
        folder = out / "tables" / VERSION / name
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows[name], schema), folder / f"{VERSION}-{number:05d}.parquet")


def _add(rows: dict[str, list[dict[str, Any]]], uri: str, video: Video) -> None:
    base: dict[str, Any] = {"video": uri} | PROVENANCE
    duration_s = video.duration_s or 0.0
    failed_s = sum((end_s or 0.0) - start_s for start_s, end_s, _, _ in video.failures)
    covered_s = max(duration_s - failed_s, 0.0)
    persons = sorted({event.person for event in video.events} | set(video.names) | set(video.activity))
    totals: dict[str, Any] = {"num_windows": 0, "covered_s": covered_s, "failed_s": failed_s}
    totals |= {"coverage": covered_s / duration_s if duration_s else None, "abstained_fraction": None}
    rows["videos"].append(
        base
        | totals
        | _rates(video.events, covered_s)
        | {
            "duration_s": video.duration_s,
            "video_start_s": 0.0,
            "num_people": len(persons) if video.num_people is None else video.num_people,
            "num_shots": 1,
            "nobody_s": 0.0,
            "codec": "h264",
            "width": video.size[0],
            "height": video.size[1],
            "fps": 25.0,
        }
    )
    for place, person in enumerate(persons):
        events = [event for event in video.events if event.person == person]
        width = video.size[0] // max(len(persons), 1)
        span: dict[str, Any] = {
            "start_s": 0.0,
            "end_s": duration_s,
            "shot": 0,
            "left": place * width,
            "top": 0,
            "width": width,
        }
        span |= {"height": video.size[1], "body": "whole", "height_px": 300.0, "score": 0.9, "num_looks": 30}
        rows["people"].append(
            base
            | totals
            | _rates(events, covered_s)
            | {
                "person": person,
                "name": video.names.get(person),
                "seen_s": duration_s,
                "spans": [span] if person else [],
            }
        )
    for event in video.events:
        part = BODY_PART_OF[event.action_id]
        names: dict[str, Any] = {
            "action": ACTIONS[event.action_id],
            "body_part": BODY_PARTS[part],
            "body_part_id": part,
        }
        rows["events"].append(base | event._asdict() | names | {"num_windows": 0})
    for start_s, end_s, error, reason in video.failures:
        failure: dict[str, Any] = {
            "person": None,
            "start_s": start_s,
            "end_s": end_s,
            "stage": "decode",
            "error": error,
        }
        rows["failures"].append(base | failure | {"reason": reason, "attempts": 1})
    for person, activity in video.activity.items():
        steps: dict[str, Any] = {"person": person, "start_s": 0.0, "end_s": len(activity) * STEP_S, "step_s": STEP_S}
        rows["activity"].append(base | steps | {"num_steps": len(activity), "activity": activity.reshape(-1)})


def _rates(events: Sequence[Event], covered_s: float) -> dict[str, Any]:
    def rates(some: Sequence[Event]) -> dict[str, Any]:
        per_minute = len(some) / (covered_s / 60) if covered_s else 0.0
        total_s = sum(event.end_s - event.start_s for event in some)
        return {"num_events": len(some), "events_per_minute": per_minute, "total_s": total_s}

    actions = [
        {"action": ACTIONS[action_id], "body_part": BODY_PARTS[BODY_PART_OF[action_id]]}
        | rates([event for event in events if event.action_id == action_id])
        for action_id in sorted({event.action_id for event in events})
    ]
    parts = [
        {"body_part": BODY_PARTS[part]} | rates([event for event in events if BODY_PART_OF[event.action_id] == part])
        for part in sorted({BODY_PART_OF[event.action_id] for event in events})
    ]
    whole = rates(events)
    whole.pop("total_s")
    return whole | {"actions": actions, "body_parts": parts}
