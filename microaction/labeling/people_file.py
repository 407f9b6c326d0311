"""`people.parquet` in an output: the list of people, which users edit, and which is not overwritten once they have.

Beside it is a note of the digests of what was written. The note is written first, so a kill in between does not make a list of
ours look like an edited one. Knows no Ray, no torch.
"""

import hashlib
import json

import pyarrow as pa

from microaction import storage
from microaction.labeling.people import PeopleError
from microaction.schema import parquet_bytes

PEOPLE_FILE = "people.parquet"
WRITTEN_FILE = "_people_written.json"


def check_unedited(out: str) -> None:
    """Raise `PeopleError` if the list of people in an output is not one that `write_people_list` wrote."""
    present = _present_digest(out)
    if present is not None and present not in _written_digests(out):
        uri = storage.join(out, PEOPLE_FILE)
        raise PeopleError(
            f"{uri} was edited since it was written: label with it (microaction label … --people {uri}), choose another folder, "
            "or replace it with --overwrite"
        )


def write_people_list(people: pa.Table, out: str, *, overwrite: bool = False) -> str:
    """Write the list of people of an output (`schema.PEOPLE_LIST`); return its location.

    Raises `PeopleError` if the list that is there was edited, unless `overwrite` is set.
    """
    if not overwrite:
        check_unedited(out)
    content = parquet_bytes(people)
    known = set(_written_digests(out)) & {_present_digest(out)}
    note = {"sha256": [_digest(content), *sorted(digest for digest in known if digest is not None)]}
    storage.write_bytes(storage.join(out, WRITTEN_FILE), json.dumps(note).encode() + b"\n")
    uri = storage.join(out, PEOPLE_FILE)
    storage.write_bytes(uri, content)
    return uri


def _present_digest(out: str) -> str | None:
    try:
        return _digest(storage.read_bytes(storage.join(out, PEOPLE_FILE)))
    except FileNotFoundError:
        return None


def _written_digests(out: str) -> list[str]:
    """Return the digests in the note; none if there is no note, or one that nobody can read."""
    try:
        note = json.loads(storage.read_bytes(storage.join(out, WRITTEN_FILE)))
        return [str(digest) for digest in note["sha256"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
