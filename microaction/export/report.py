"""The pages about an output: `report/index.html` for the archive, and a page per video in `report/videos/`.

Pages, scripts and what they play are files beside each other, which open from disk or a bucket. Each file is written whole, and
the index last; pages and copies of videos that are no longer in the labels are deleted.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from importlib import resources

from microaction import storage
from microaction.export.archive_summary import ArchiveSummary
from microaction.export.index_page import INDEX_PAGE, index_pages
from microaction.export.labels import Labels
from microaction.export.media import MEDIA_FOLDER, Media, copy_video, media_of
from microaction.export.video_page import video_page
from microaction.pages import slug_prefix

REPORT_FOLDER = "report"
VIDEOS_FOLDER = "videos"
ASSETS_FOLDER = "assets"
LIBRARY = "d3-7.9.2.min.js"  # ISC license; see assets/THIRD_PARTY.md
SCRIPT = "timeline.js"
DIGEST_LENGTH = 16
_DIGEST = f"[0-9a-f]{{{DIGEST_LENGTH}}}"
OWN_NAMES = {
    REPORT_FOLDER: re.compile(r"index-[0-9]+\.html"),
    VIDEOS_FOLDER: re.compile(rf"(?:[a-z0-9-]+-)?{_DIGEST}\.html"),
    MEDIA_FOLDER: re.compile(rf"(?:[a-z0-9-]+-)?{_DIGEST}(?:\.[a-z0-9]{{1,5}})?"),
    ASSETS_FOLDER: re.compile(rf".+-{_DIGEST}\.js"),
}
"""What the files of a report are called, by folder: nothing else is ever deleted."""


def write_report(
    labels: Labels,
    *,
    copy_videos: bool = False,
    link_s: int = 24 * 3600,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Write the pages of an output into it; return the location of the first one.

    `copy_videos` puts a copy of every video beside the pages. Otherwise they play the videos where they are: local ones by their
    relative path, those in S3 by links that are valid for `link_s` seconds. Raises `StorageError`.
    """
    report = storage.join(labels.out, REPORT_FOLDER)
    assets = _write_assets(report)
    scripts = [f"../{ASSETS_FOLDER}/{name}" for name in assets]
    summary, total = ArchiveSummary(), int(labels.totals["num_videos"])
    written: dict[str, set[str]] = {VIDEOS_FOLDER: set(), MEDIA_FOLDER: set(), ASSETS_FOLDER: {*assets}}
    for video in labels.each_video():
        name = page_name(video.uri)
        uri = storage.join(report, VIDEOS_FOLDER, name)
        if video.facts["duration_s"] is None:
            media = Media(reason="The video cannot be read.")
        elif copy_videos:
            copy = media_name(video.uri, video.facts["video_version"])
            media = copy_video(video.uri, report, copy)
            written[MEDIA_FOLDER].add(copy)
        else:
            media = media_of(video.uri, uri, link_s)
        storage.write_bytes(uri, video_page(labels, video, media, scripts))
        summary.add(video, name)
        written[VIDEOS_FOLDER].add(name)
        on_video(len(summary.entries), total)
    written[REPORT_FOLDER] = set()
    for name, content in index_pages(labels, summary):
        storage.write_bytes(storage.join(report, name), content)
        written[REPORT_FOLDER].add(name)
    _delete_stale_files(report, written)
    return storage.join(report, INDEX_PAGE)


def page_name(uri: str) -> str:
    """Return the name of a video's page, of `a-z0-9-` alone; other videos have other names."""
    return f"{slug_prefix(uri)}{_digest(uri)}.html"


def media_name(uri: str, version: str) -> str:
    """Return the name of the copy of a version of a video, with its suffix if that is a plain one, such as .mp4."""
    suffix = re.search(r"\.[A-Za-z0-9]{1,5}$", uri)
    return f"{slug_prefix(uri)}{_digest(f'{uri} {version}')}{suffix.group().lower() if suffix else ''}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:DIGEST_LENGTH]


def _write_assets(report: str) -> list[str]:
    """Write the scripts; return their names. They name their content: a browser never takes an old one for a new one."""
    names = []
    for name in (LIBRARY, SCRIPT):
        content = resources.files("microaction.export").joinpath("assets", name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        named = f"{name.removesuffix('.js')}-{digest[:DIGEST_LENGTH]}.js"
        storage.write_bytes(storage.join(report, ASSETS_FOLDER, named), content)
        names.append(named)
    return names


def _delete_stale_files(report: str, written: Mapping[str, set[str]]) -> None:
    """Delete what an earlier report wrote and this one did not."""
    for file in list(storage.list_files(report)):
        folder, name = file.uri.rsplit("/", 2)[1:]
        if folder in OWN_NAMES and OWN_NAMES[folder].fullmatch(name) and name not in written[folder]:
            storage.delete_file(file.uri)
