"""Files about videos, one for each: where they are below a folder, where they find their video, and writing them.

Videos may be called anything. The files have names that every file system takes, Windows' and those that ignore case included.
"""

import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable

from microaction import storage
from microaction.export.display import distinct, short_digest
from microaction.export.exporter import Written
from microaction.export.labels import Labels, VideoLabels

MAX_COMPONENT_BYTES = 200  # of 255 that file systems take: a file has a longer name while it is written
# Refused by Windows; control characters and lone surrogates; what separates lines or directs writing.
_REFUSED = re.compile(
    '[\x00-\x1f\x7f-\x9f\\\\/:*?"<>|\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]'
)
# Devices of Windows, whatever follows the first period.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d|com[¹²³]|lpt[¹²³])(?=\.|$)", re.IGNORECASE)


def video_names(labels: Labels) -> list[str]:
    """Return the paths in the archive of all its videos."""
    return [labels.name_of(uri) for uri in labels.arrow("videos", columns=["video"])["video"].to_pylist()]


def file_names(names: Iterable[str], suffix: str) -> dict[str, str]:
    """Return where the file about each video is, a path below a folder: `a/one.mp4` has `a/one.eaf`.

    `names` are all videos of the archive, by their paths in it. Those that differ in their suffixes alone keep it: `one.mp4.eaf`.
    Those that still would have one file, as names with different case or with characters that file systems refuse, have a
    digest of their name too: `one-3f2a9c01.eaf`.
    """
    folder_of = {name: [_component(part) for part in _parts(name)[:-1]] for name in names}
    taken = {
        _compared("/".join(folder[:depth])) for folder in folder_of.values() for depth in range(1, len(folder) + 1)
    }

    def spelled(name: str, attempt: int) -> str:
        last = (_parts(name) or [""])[-1]
        stem = last if attempt == 1 else posixpath.splitext(last)[0]
        ending = f"-{short_digest(f'{name}/{attempt}')}{suffix}" if attempt > 1 else suffix
        return "/".join([*folder_of[name], _component(stem, ending)])

    return distinct(folder_of, spelled, _compared, taken)


def path_between(folder: str, uri: str) -> str | None:
    """Return the relative path from a folder to a file, which begins with `./` or `../`; None if they are in different stores."""
    if storage.is_remote(folder) != storage.is_remote(uri):
        return None
    if storage.is_remote(uri):
        (store, _, folder), (other, _, uri) = (_split_store(location) for location in (folder, uri))
        if store != other:
            return None
    path = posixpath.relpath(f"/{uri.lstrip('/')}", f"/{folder.lstrip('/')}")
    return path if path.startswith("../") else f"./{path}"


def write_files(
    labels: Labels, videos: Iterable[VideoLabels], dest: str, suffix: str, content: Callable[[VideoLabels, str], bytes]
) -> Written:
    """Write a file for each video that could be opened, and return what was written.

    `content(video, folder)` is the content of a video's file, and the folder is where the file will be.
    """
    dest = storage.absolute(dest)
    path_of = file_names(video_names(labels), suffix)
    location, num_videos, num_events = dest, 0, 0
    for video in videos:
        if video.facts["duration_s"] is None:
            continue
        location = storage.join(dest, path_of[video.name])
        storage.write_bytes(location, content(video, location.rpartition("/")[0]))
        num_videos += 1
        num_events += len(video.events)
    return Written((location if num_videos == 1 else dest,), num_videos, num_events)


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _split_store(location: str) -> tuple[str, str, str]:
    scheme, _, rest = location.partition("://")
    bucket, slash, key = rest.partition("/")
    return f"{scheme}://{bucket}", slash, key


def _component(text: str, ending: str = "") -> str:
    """Return a name for a file or folder that ends in `ending`, as much like `text` as file systems take."""
    plain = _REFUSED.sub("_", text)
    if not ending:
        plain = re.sub(r"[. ]+$", lambda match: "_" * len(match[0]), plain)  # Windows drops them
    plain = _DEVICE.sub(r"_\1", plain, count=1) if _DEVICE.match(plain) else plain
    if len((plain + ending).encode()) > MAX_COMPONENT_BYTES:
        ending = f"-{short_digest(text)}{ending}"
        plain = plain.encode()[: MAX_COMPONENT_BYTES - len(ending.encode())].decode(errors="ignore")
    return (plain or "_") + ending


def _compared(path: str) -> str:
    """Return what file systems that ignore case and composition of characters make of a path."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
