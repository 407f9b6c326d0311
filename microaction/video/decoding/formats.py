"""Container formats: which ones may be opened, recognized by their first bytes, and how to read their boxes and chunks."""

from typing import BinaryIO

SNIFF_BYTES = 4096
MPEG_TS_PACKET_BYTES = 188
MP4_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob")
"""Suffixes of the files that an archive's catalog lists; the format itself is recognized by content alone."""

# Formats whose packets carry presentation timestamps and whose index reliably finds a key frame.
SEEKABLE_FORMATS = ("mov", "matroska")
# Formats whose index lists every frame as soon as the file is open.
FULLY_INDEXED_FORMATS = ("mov",)
AVI_FIRST_CHUNK, AVI_CHUNK_HEADER_BYTES = 12, 8  # after "RIFF", a length and "AVI "; a name and a length
# AVI has no presentation timestamps: its frames have a constant rate, so a frame's number gives its time.
COUNTED_FORMATS = ("avi",)


def container_format(head: bytes) -> str | None:
    """Return FFmpeg's name of the container that begins with these bytes; None if it may not be opened."""
    if head[4:8] in MP4_FIRST_BOXES:
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    if head.startswith(b"\x00\x00\x01\xba"):
        return "mpeg"
    for start in (0, 4):  # m2ts puts a 4-byte timestamp before every packet
        stride = MPEG_TS_PACKET_BYTES + start
        if len(head) > 3 * stride and all(head[start + i * stride] == 0x47 for i in range(3)):
            return "mpegts"
    return None


def end_of_leading_index(head: bytes) -> int:
    """Return the offset at which the index of an MP4/MOV file ends if the index comes first; otherwise 0."""
    start = 0
    while start + 8 <= len(head):
        size = int.from_bytes(head[start : start + 4], "big")
        if head[start + 4 : start + 8] == b"moov":
            return start + size
        if size < 8:
            break
        start += size
    return 0


def end_of_chunks(file: BinaryIO, start: int, stop: int) -> int:
    """Return the offset, `stop` or later, at which the AVI chunks from `start` on end.

    Between two frames those are audio, indexes and padding.
    """
    if start >= stop:
        return start
    position = file.tell()
    while start < stop:
        file.seek(start)
        header = file.read(AVI_CHUNK_HEADER_BYTES)
        if len(header) < AVI_CHUNK_HEADER_BYTES:
            break
        size = int.from_bytes(header[4:], "little")
        is_list = header[:4] in (b"LIST", b"RIFF")  # its chunks follow its type
        start += AVI_CHUNK_HEADER_BYTES + (4 if is_list else size + size % 2)
    file.seek(position)
    return start
