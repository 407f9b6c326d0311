"""Which tables of an output readers see."""

import json
from typing import Any

from microaction import storage

TABLES_FOLDER = "tables"
PUBLICATION_FILE = "_publication.json"


def read_publication(out: str) -> dict[str, Any] | None:
    """Return the content of `_publication.json`: `tables` has each table's folder. None before the first publication."""
    try:
        record: dict[str, Any] = json.loads(storage.read_bytes(storage.join(out, PUBLICATION_FILE)))
    except FileNotFoundError:
        return None
    return record
