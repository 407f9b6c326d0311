"""WebVTT files (`.vtt`): actions as captions for any player, one file for each video.

An event is a cue, so cues overlap where actions do, and players stack them. A cue has its person as the voice, its body part as
the voice's class, for style sheets, and in videos of several people the name before the action, as players do not show voices.
Videos that could not be opened have no file.
"""

import html
from collections.abc import Iterable

from microaction.export.cells import plain_text
from microaction.export.display import MILLISECONDS, person_names, published_at, span_ms
from microaction.export.exporter import Exporter, Written
from microaction.export.file_names import write_files
from microaction.export.labels import Labels, VideoLabels
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS

SUFFIX = ".vtt"


def write_webvtt(labels: Labels, videos: Iterable[VideoLabels], dest: str) -> Written:
    """Write a `.vtt` for each video that could be opened."""
    return write_files(labels, videos, dest, SUFFIX, lambda video, _: webvtt_of(labels, video).encode())


def webvtt_of(labels: Labels, video: VideoLabels) -> str:
    """Return the content of a video's `.vtt`: its events by start and end, score in parentheses."""
    names = person_names(video)
    note = [
        "NOTE",
        f"Video: {_comment(video.name)}",
        f"Labeled by microaction with the model {_comment(str(video.facts['model']))}, "
        f"SHA-256 {_comment(str(video.facts['model_digest']))}",
        f"Published on {published_at(labels):%Y-%m-%d at %H:%M:%S} UTC",
    ]
    blocks = ["WEBVTT", "\n".join(note)]
    spans = sorted((span_ms(event), event.person, event.action_id, event.probability) for event in video.events)
    for number, ((start_ms, end_ms), person, action_id, probability) in enumerate(spans, start=1):
        name = html.escape(names[person], quote=False)
        body_part = BODY_PARTS[BODY_PART_OF[action_id]].replace(" ", "-")
        prefix = f"{name}: " if len(names) > 1 else ""
        blocks.append(
            f"{number}\n{_timestamp(start_ms)} --> {_timestamp(end_ms)}\n"
            f"<v.{body_part} {name}>{prefix}{ACTIONS[action_id]} ({probability:.2f})</v>"
        )
    return "\n\n".join(blocks) + "\n"


def _timestamp(time_ms: int) -> str:
    seconds, milliseconds = divmod(time_ms, MILLISECONDS)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{milliseconds:03d}"


def _comment(text: str) -> str:
    """Return a text that neither ends a comment nor looks like the times of a cue."""
    return plain_text(text).replace("-->", "--&gt;")


EXPORTER = Exporter(title="WebVTT, captions for each video", write=write_webvtt)
