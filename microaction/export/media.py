"""Where a page finds the video that it shows."""

import os
import shutil
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from microaction import storage

MEDIA_FOLDER = "media"


@dataclass(frozen=True)
class Media:
    """What a page plays: a relative or absolute URI, and if it is elsewhere its origin; or the reason why there is none."""

    uri: str = ""
    origin: str = ""
    reason: str = ""


def media_of(video: str, page: str, expires_s: int) -> Media:
    """Return what the page at a location plays for a video.

    Of a local page and a local video that is the path from one to the other, so that both may move together; of a video in S3
    it is a URL that anybody may read it with for `expires_s` seconds.
    """
    if not storage.is_remote(video):
        if storage.is_remote(page):
            return Media(reason="The page is in a bucket and the video is not.")
        return Media(quote_path(os.path.relpath(video, os.path.dirname(page))))
    if not video.startswith("s3://"):
        return Media(reason="The video is in a store that makes no links for browsers: copy it beside the page.")
    uri = storage.presigned_url(video, expires_s)
    parts = urlsplit(uri)
    return Media(uri, origin=f"{parts.scheme}://{parts.netloc}")


def copy_video(video: str, report: str, name: str) -> Media:
    """Copy a video into a report, unless that file exists, and return what its page plays."""
    to = storage.join(report, MEDIA_FOLDER, name)
    if not storage.exists(to):
        with storage.open_input(video) as source, storage.open_output(to) as sink:
            shutil.copyfileobj(source, sink)
    return Media(quote_path(f"../{MEDIA_FOLDER}/{name}"))


def quote_path(path: str) -> str:
    """Return a relative path as a relative URI, whatever bytes the file's name has."""
    return "/".join(quote(os.fsencode(name)) for name in path.split("/"))
