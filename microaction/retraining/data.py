"""What a retraining learns from and is judged on, and what of it production does not know.

A dataset is a folder with `list.parquet` or `list.txt` and `videos/`, as `jobs.pack` writes it; of both the first counts.
Newer labels are lists of the same kind in a folder of their own: a clip that is listed already is corrected, another one is
new and lies in that folder's `videos/`. Of several lists the later by name counts.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from microaction import storage
from microaction.clips.manifest import Clip, ManifestError, read_list
from microaction.schema import CLIP_LIST, REGION_COLUMNS, parquet_bytes

VIDEOS_FOLDER = "videos"
LIST_FILES = ("list.parquet", "list.txt")
LIST_ENDINGS = (".txt", ".parquet")
HELD_OUT, EARLIER = "held-out", "earlier"  # splits of a version's clips, beside those of training


@dataclass(frozen=True)
class DataDelta:
    """What production was not made from: clips that it does not know, and clips whose label was another one."""

    num_new: int
    num_corrected: int

    @property
    def num_clips(self) -> int:
        return self.num_new + self.num_corrected


def read_dataset(dataset: str, labels: str | None, num_classes: int) -> list[Clip]:
    """All clips with the labels that count, in order of name. Raises `ManifestError`."""
    root = next(
        (storage.join(dataset, name) for name in LIST_FILES if storage.exists(storage.join(dataset, name))), None
    )
    if root is None:
        raise ManifestError(f"{dataset} is no dataset: it must hold {' or '.join(LIST_FILES)}, and {VIDEOS_FOLDER}/")
    clips = {clip.name: clip for clip in read_list(root, storage.join(dataset, VIDEOS_FOLDER), num_classes)}
    for uri in _lists(labels):
        assert labels is not None
        for clip in read_list(uri, storage.join(labels, VIDEOS_FOLDER), num_classes):
            known = clips.get(clip.name)
            clips[clip.name] = clip if known is None else replace(known, label=clip.label)
    return [clips[name] for name in sorted(clips)]


def _lists(labels: str | None) -> list[str]:
    if labels is None:
        return []
    inside = storage.join(labels, VIDEOS_FOLDER) + "/"
    try:
        files = [file.uri for file in storage.list_files(labels)]
    except FileNotFoundError:
        return []  # nobody has labelled anything yet
    return [uri for uri in files if uri.endswith(LIST_ENDINGS) and not uri.startswith(inside)]


def delta_since(tables: Sequence[pa.Table], clips: Sequence[Clip]) -> DataDelta:
    """Compares with the clips (`schema.TRAINING_CLIPS`) of production, and of the versions that were taken back: what any of
    them has learned is nothing new to try, a clip that all of them know by other labels only is corrected."""
    known = {
        clip for table in tables for clip in zip(table["name"].to_pylist(), table["label"].to_pylist(), strict=True)
    }
    names = {name for name, _ in known}
    num_new = sum(clip.name not in names for clip in clips)
    num_known_alike = sum((clip.name, clip.label) in known for clip in clips)
    return DataDelta(num_new, len(clips) - num_new - num_known_alike)


def hold_out(known: pa.Table, clips: Sequence[Clip], share: float) -> tuple[list[Clip], list[Clip]]:
    """The clips to train on, and those to judge on: of people whom neither production nor the candidate has learned from.

    These are the people that were held out for production (for a first version, those that it was validated on), and `share`
    of those whom it does not know, chosen by their names alone: who is held out once stays so. Somebody in a clip that
    production knows is known to it, whatever the dataset calls them now. Raises `ManifestError` where clips do not tell their
    subject, or one of the sides is empty.
    """
    nameless = next((clip.name for clip in clips if clip.subject is None), None)
    if nameless is not None:
        raise ManifestError(
            f"{nameless} does not tell its subject, by which people are held out: names begin with it, as in "
            "SSSS_BB_NNNN.mp4, or the list is a Parquet table with a column subject"
        )
    learned, kept = _people_now(known, clips)
    held = [clip.subject not in learned and (clip.subject in kept or _fraction(clip.subject) < share) for clip in clips]
    train = [clip for clip, is_held in zip(clips, held, strict=True) if not is_held]
    judged = [clip for clip, is_held in zip(clips, held, strict=True) if is_held]
    if not train or not judged:
        raise ManifestError(
            f"of {len(clips)} clips {len(judged)} are of people held out and {len(train)} are not; both sides need some: add "
            "clips of people whom the model in production was not trained on"
        )
    return train, judged


def absent_clips(known: pa.Table, table: pa.Table) -> pa.Table:
    """The clips of a version (`schema.TRAINING_CLIPS`) that another one's table lacks, as that one is to remember them: of
    people held out, or of those learned from `EARLIER`. They may come back."""
    kept, names = _held_out_people(known), set(table["name"].to_pylist())
    rows = [
        row | {"split": HELD_OUT if row["subject"] in kept else EARLIER}
        for row in known.to_pylist()
        if row["name"] not in names
    ]
    return pa.Table.from_pylist(rows, schema=table.schema)


def _people_now(known: pa.Table, clips: Sequence[Clip]) -> tuple[set[str | None], set[str | None]]:
    """Whom production has learned from and who was held out for it, by their names then and by those that its clips give them
    now. Who is in both has been learned from."""
    held_then = _held_out_people(known)
    rows = list(zip(known["name"].to_pylist(), known["subject"].to_pylist(), strict=True))
    clips_learned = {name for name, subject in rows if subject not in held_then}
    clips_kept = {name for name, subject in rows if subject in held_then}
    learned = {subject for _, subject in rows} - held_then
    learned |= {clip.subject for clip in clips if clip.name in clips_learned}
    return learned, held_then | {clip.subject for clip in clips if clip.name in clips_kept}


def _held_out_people(known: pa.Table) -> set[str | None]:
    """Those who are on the side that was held out and on no other, as somebody without a name may be."""
    people: dict[str, set[str | None]] = {}
    for split, subject in zip(known["split"].to_pylist(), known["subject"].to_pylist(), strict=True):
        people.setdefault(split, set()).add(subject)
    held = people.pop(HELD_OUT, None) or people.pop("validation", set())
    return held.difference({None}, *people.values())


def list_file(clips: Sequence[Clip]) -> bytes:
    """A Parquet list that names each clip's place."""
    rows = [
        {"name": clip.name, "label": clip.label, "subject": clip.subject, "uri": clip.uri}
        | (dict(zip(REGION_COLUMNS, clip.region, strict=True)) if clip.region else {})
        for clip in clips
    ]
    return parquet_bytes(pa.Table.from_pylist(rows, schema=CLIP_LIST))


def _fraction(subject: str | None) -> float:
    """Between 0 and 1, the same for the same name for ever."""
    return int.from_bytes(hashlib.sha256(str(subject).encode()).digest()[:8], "big") / 2**64
