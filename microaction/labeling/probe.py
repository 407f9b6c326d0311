"""The probe stage of the catalog: what one file is. Knows no Ray."""

from dataclasses import asdict
from typing import Any

from microaction import storage
from microaction.errors import FailureKind, MicroactionError, VideoChangedError, reason_of
from microaction.video import probe
from microaction.video.decoding.formats import SNIFF_BYTES, VIDEO_SUFFIXES, is_video_content
from microaction.video.sandbox import Limits, sandboxed

PROBE_LIMITS = Limits(time_s=600)  # without an index every packet is read


def claims_to_be_video(name: str) -> bool:
    """Return whether a file's name ends as those of videos do."""
    return name.lower().endswith(VIDEO_SUFFIXES)


def is_video(name: str) -> bool:
    """Return whether a file is or claims to be a video: by the suffix of its name, or by its content.

    A file that cannot be read is taken for one: its row in the catalog will say why. One that has vanished is none.
    """
    if claims_to_be_video(name):
        return True
    try:
        with storage.open_input(name) as file:
            return is_video_content(file.read(SNIFF_BYTES))
    except FileNotFoundError:
        return False
    except (OSError, MicroactionError):
        return True


def catalog_row(video: str, version: str, size_bytes: int) -> dict[str, Any]:
    """Return the catalog's row of one file; never raises for what is in the file."""
    row: dict[str, Any] = {"video": video, "version": version, "size_bytes": size_bytes}
    try:
        info = sandboxed(video, PROBE_LIMITS, probe, video)
        return row | asdict(info) | {"fps": float(info.fps)}
    except Exception as error:  # whatever a library makes of a file's bytes is a fact about that file
        return row | {"error": str(FailureKind.of(error)), "reason": reason_of(error)}


def check_version(video: str, version: str) -> None:
    """Raise `VideoChangedError` unless the file is still the cataloged one: windows of two files must not pass for those of
    one."""
    try:
        present = storage.version_of(video)
    except FileNotFoundError:
        present = ""
    if present != version:
        what = "has changed" if present else "no longer exists"
        raise VideoChangedError(
            f"the file {what} since it was cataloged: run the same command again, or make a new catalog"
        )
