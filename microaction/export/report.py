"""The pages about an output: `report/index.html` for the archive, and a page per video in `report/videos/`.

Pages, scripts and what they play are files beside each other, which open from disk or a bucket. Each file is written whole, and
the index last; pages of videos that are no longer in the labels are deleted.
"""

import hashlib
import re
from collections.abc import Callable
from importlib import resources

from microaction import storage
from microaction.export.archive_summary import ArchiveSummary
from microaction.export.index_page import INDEX_PAGE, index_pages
from microaction.export.labels import Labels
from microaction.export.media import Media, copied, media_of
from microaction.export.video_page import video_page
from microaction.pages import slug_prefix

REPORT_FOLDER = "report"
VIDEOS_FOLDER = "videos"
ASSETS_FOLDER = "assets"
LIBRARY = "d3-7.9.2.min.js"  # ISC license; see assets/THIRD_PARTY.md
SCRIPT = "timeline.js"
DIGEST_LENGTH = 16
PAGE_NAME = re.compile(rf"(?:[a-z0-9-]+-)?[0-9a-f]{{{DIGEST_LENGTH}}}\.html")
INDEX_NAME = re.compile(r"index-[0-9]+\.html")


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
    scripts = [f"../{ASSETS_FOLDER}/{name}" for name in _write_assets(report)]
    summary, written, total = ArchiveSummary(), set(), int(labels.totals["num_videos"])
    for video in labels.each_video():
        name = page_name(video.uri)
        uri = storage.join(report, VIDEOS_FOLDER, name)
        if video.facts["duration_s"] is None:
            media = Media(reason="The video cannot be read.")
        elif copy_videos:
            media = copied(video.uri, report, name.removesuffix(".html") + _suffix(video.uri))
        else:
            media = media_of(video.uri, uri, link_s)
        storage.write_bytes(uri, video_page(labels, video, media, scripts))
        summary.add(video, name)
        written.add(name)
        on_video(len(written), total)
    indexes = set()
    for name, content in index_pages(labels, summary):
        storage.write_bytes(storage.join(report, name), content)
        indexes.add(name)
    _delete_others(report, written, indexes)
    return storage.join(report, INDEX_PAGE)


def page_name(uri: str) -> str:
    """Return the name of a video's page, of `a-z0-9-` alone; other videos have other names."""
    return f"{slug_prefix(uri)}{hashlib.sha256(uri.encode(errors='surrogatepass')).hexdigest()[:DIGEST_LENGTH]}.html"


def _suffix(uri: str) -> str:
    """Return a file's suffix if it is a plain one, such as .mp4, and otherwise nothing."""
    found = re.search(r"\.[A-Za-z0-9]{1,5}$", uri)
    return found.group().lower() if found else ""


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


def _delete_others(report: str, pages: set[str], indexes: set[str]) -> None:
    for file in list(storage.list_files(report)):
        folder, name = file.uri.rsplit("/", 2)[1:]
        is_old_page = folder == VIDEOS_FOLDER and PAGE_NAME.fullmatch(name) and name not in pages
        is_old_index = folder == REPORT_FOLDER and INDEX_NAME.fullmatch(name) and name not in indexes
        if is_old_page or is_old_index:
            storage.delete_file(file.uri)
