"""What a retraining trains on and is judged on, and what of it production does not know.

A dataset is a folder with `list.parquet`, `list.txt` or `instances.parquet` and `videos/`, as `microaction pack` writes it; of
several the first counts. Newer labels are lists of the same kind in a folder of their own: a clip that is already listed is
corrected, any other is new and is in that folder's `videos/`. Of several lists the later by name counts. Spans of a video that
is already listed are spans of that file; if a span itself is, its actions are those of the newer list.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from microaction import storage
from microaction.clips.manifest import Clip, ManifestError, read_list
from microaction.clips.rows import SpanName
from microaction.schema import CLIP_LIST, REGION_COLUMNS, parquet_bytes

VIDEOS_FOLDER = "videos"
LIST_FILES = ("list.parquet", "list.txt", "instances.parquet")
LIST_ENDINGS = (".txt", ".parquet")
HELD_OUT, EARLIER = "held-out", "earlier"  # splits of a version's clips, beside those of training


@dataclass(frozen=True)
class DataDelta:
    """What production was not made from: clips that it does not know, and clips that had another label."""

    num_new: int
    num_corrected: int

    @property
    def num_clips(self) -> int:
        """New and corrected clips together."""
        return self.num_new + self.num_corrected


def read_dataset(dataset: str, labels: str | None, num_classes: int) -> list[Clip]:
    """Return all clips with the labels that count, in order of name. Raises `ManifestError`."""
    root = next(
        (storage.join(dataset, name) for name in LIST_FILES if storage.exists(storage.join(dataset, name))), None
    )
    if root is None:
        raise ManifestError(
            f"{dataset} is not a dataset: it must hold {', '.join(LIST_FILES[:-1])} or {LIST_FILES[-1]}, and {VIDEOS_FOLDER}/"
        )
    clips = {clip.name: clip for clip in read_list(root, storage.join(dataset, VIDEOS_FOLDER), num_classes)}
    for uri in _lists(labels):
        assert labels is not None
        newer = read_list(uri, storage.join(labels, VIDEOS_FOLDER), num_classes)
        for clip in newer:
            if clip.span is None:
                known = clips.get(clip.name)
                clips[clip.name] = clip if known is None else replace(known, label=clip.label)
        clips = _with_spans(clips, [clip for clip in newer if clip.span is not None])
    return [clips[name] for name in sorted(clips)]


def _with_spans(clips: dict[str, Clip], newer: Sequence[Clip]) -> dict[str, Clip]:
    """Return the clips by name with newer ones, which are spans: of the files that are known, and of the people in them."""
    replaced = {_place(clip) for clip in newer}
    of_place: dict[SpanName | None, Clip] = {}
    of_video: dict[str, Clip] = {}
    for clip in clips.values():
        place = _place(clip)
        if place is not None:
            of_place.setdefault(place, clip)
            of_video.setdefault(place.video, clip)
    clips = {name: clip for name, clip in clips.items() if clip.span is None or _place(clip) not in replaced}
    for clip in newer:
        place = _place(clip)
        assert place is not None
        known = of_place.get(place) or of_video.get(place.video)
        if known is not None:
            region = known.region if place in of_place else clip.region or known.region
            clip = replace(clip, uri=known.uri, subject=known.subject, region=region)  # noqa: PLW2901 - the same clip
        clips[clip.name] = clip
    return clips


def _place(clip: Clip) -> SpanName | None:
    """Return the video, span and person of a clip, whatever the action; None for a whole file."""
    name = SpanName.parse(clip.name)
    return None if name is None else name._replace(action_id=None)


def _lists(labels: str | None) -> list[str]:
    if labels is None:
        return []
    inside = storage.join(labels, VIDEOS_FOLDER) + "/"
    try:
        files = [file.uri for file in storage.list_files(labels)]
    except FileNotFoundError:
        return []  # nothing is labeled yet
    return [uri for uri in files if uri.endswith(LIST_ENDINGS) and not uri.startswith(inside)]


def delta_since(tables: Sequence[pa.Table], clips: Sequence[Clip]) -> DataDelta:
    """Compare with the clips (`schema.TRAINING_CLIPS`) of production and of the versions that were rolled back: what any of them
    was trained on is not new; a clip that all of them know by other labels only is corrected."""
    known = {
        clip for table in tables for clip in zip(table["name"].to_pylist(), table["label"].to_pylist(), strict=True)
    }
    names = {name for name, _ in known}
    num_new = sum(clip.name not in names for clip in clips)
    num_known_alike = sum((clip.name, clip.label) in known for clip in clips)
    return DataDelta(num_new, len(clips) - num_new - num_known_alike)


def hold_out(known: pa.Table, clips: Sequence[Clip], fraction: float) -> tuple[list[Clip], list[Clip]]:
    """Return the clips to train on, and those to judge on: of subjects whom neither production nor the candidate trained on.

    These are the subjects that were held out for production (for a first version, those that it was validated on), and a
    `fraction` of those whom it does not know, chosen by their names alone: a subject who is held out once stays held out. A
    subject in a clip that production knows is known to it, by whatever name the dataset lists them now. Raises `ManifestError`
    if a clip's subject is unknown, or one of the sides is empty.
    """
    nameless = next((clip.name for clip in clips if clip.subject is None), None)
    if nameless is not None:
        raise ManifestError(
            f"the subject of {nameless} is unknown, so nobody can be held out: begin names with it, as in SSSS_BB_NNNN.mp4, or "
            "give a Parquet list with a column subject"
        )
    trained_on, held_out = _subjects_now(known, clips)
    is_judged = [
        clip.subject not in trained_on and (clip.subject in held_out or _position(clip.subject) < fraction)
        for clip in clips
    ]
    train = [clip for clip, is_out in zip(clips, is_judged, strict=True) if not is_out]
    judged = [clip for clip, is_out in zip(clips, is_judged, strict=True) if is_out]
    if not train or not judged:
        raise ManifestError(
            f"{len(judged)} of {len(clips)} clips are of held-out subjects and {len(train)} are not; both sides need some: add "
            "clips of subjects whom the model in production was not trained on"
        )
    return train, judged


def absent_clips(known: pa.Table, table: pa.Table) -> pa.Table:
    """Return the clips of a version (`schema.TRAINING_CLIPS`) that a later one's table lacks, as rows to add to it: in the split
    of subjects held out, or of those trained on `EARLIER`. A later dataset may contain them again."""
    held_out, names = _held_out_subjects(known), set(table["name"].to_pylist())
    rows = [
        row | {"split": HELD_OUT if row["subject"] in held_out else EARLIER}
        for row in known.to_pylist()
        if row["name"] not in names
    ]
    return pa.Table.from_pylist(rows, schema=table.schema)


def _subjects_now(known: pa.Table, clips: Sequence[Clip]) -> tuple[set[str | None], set[str | None]]:
    """Return the subjects whom production was trained on and those held out for it, by their names then and by those that its
    clips give them now. `hold_out` counts a subject who is in both as trained on."""
    held_then = _held_out_subjects(known)
    rows = list(zip(known["name"].to_pylist(), known["subject"].to_pylist(), strict=True))
    clips_trained_on = {name for name, subject in rows if subject not in held_then}
    clips_held_out = {name for name, subject in rows if subject in held_then}
    trained_on = {subject for _, subject in rows} - held_then
    trained_on |= {clip.subject for clip in clips if clip.name in clips_trained_on}
    return trained_on, held_then | {clip.subject for clip in clips if clip.name in clips_held_out}


def _held_out_subjects(known: pa.Table) -> set[str | None]:
    """Return the subjects who are on the held-out side and on no other, as unnamed ones may be."""
    by_split: dict[str, set[str | None]] = {}
    for split, subject in zip(known["split"].to_pylist(), known["subject"].to_pylist(), strict=True):
        by_split.setdefault(split, set()).add(subject)
    held_out = by_split.pop(HELD_OUT, None) or by_split.pop("validation", set())
    return held_out.difference({None}, *by_split.values())


def list_file(clips: Sequence[Clip]) -> bytes:
    """Return a Parquet list that names each clip's URI."""
    rows = [
        {"name": clip.name, "label": clip.label, "subject": clip.subject, "uri": clip.uri, "person": clip.person}
        | (dict(zip(REGION_COLUMNS, clip.region, strict=True)) if clip.region else {})
        for clip in clips
    ]
    return parquet_bytes(pa.Table.from_pylist(rows, schema=CLIP_LIST))


def _position(subject: str | None) -> float:
    """Return a number in [0, 1) that is always the same for the same name."""
    return int.from_bytes(hashlib.sha256(str(subject).encode()).digest()[:8], "big") / 2**64
