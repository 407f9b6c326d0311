"""Paths of the files that the package ships.

Code that is submitted to a cluster (`ray job submit --working-dir`) does not include the large ones (`.rayignore`). They are
found in another installation of the package, on Python's path or an editable one.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import unquote, urlsplit

PACKAGE = Path(__file__).parent


def find_packaged(name: str) -> Path:
    """Return the path of a file that the package ships, by its path inside the package.

    If this package does not have it, that of another installation which does; if none has it, the path in this package.
    """
    others = (Path(place, PACKAGE.name, name) for place in (*map(Path, sys.path), *_editable_installations()))
    return next((path for path in (PACKAGE / name, *others) if path.exists()), PACKAGE / name)


def _editable_installations() -> Iterator[Path]:
    """Yield the folders that editable installations of this package refer to, which are not on Python's path."""
    for found in distributions(name=PACKAGE.name):
        with suppress(KeyError, ValueError):
            url = json.loads(found.read_text("direct_url.json") or "{}")["url"]
            if url.startswith("file://"):
                yield Path(unquote(urlsplit(url).path))
