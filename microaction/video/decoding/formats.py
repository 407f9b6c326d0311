"""Container formats: which ones may be opened, recognized by their first bytes, and how to read their boxes and chunks.

Playlists and other formats that name further files are not among them.
"""

import re
from typing import BinaryIO

SNIFF_BYTES = 4096
# fmt: off
VIDEO_SUFFIXES = (
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc", ".insv", ".ivf", ".lrv",
    ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mkv", ".mod", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf",
    ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".tod", ".ts", ".vob", ".webm", ".wmv", ".wtv", ".xvid",
)
# fmt: on
"""Suffixes of files that claim to be videos. Which files are videos is recognized by content."""

# Formats whose packets carry presentation timestamps and whose index reliably finds a key frame.
SEEKABLE_FORMATS = ("mov", "matroska")
# Formats whose index lists every frame as soon as the file is open.
FULLY_INDEXED_FORMATS = ("mov",)
# AVI has no presentation timestamps: its frames have a constant rate, so the number of a frame's chunk gives its time.
COUNTED_FORMATS = ("avi",)
# Video without a container has no timestamps: its frames follow each other at a constant rate.
ELEMENTARY_FORMATS = ("h264", "hevc", "mpegvideo", "m4v")
BROADCAST_FORMATS = ("mpeg", "mpegts")  # recordings of a transmission: they continue after damage

FLV_TAG_HEADER_BYTES, FLV_TAG_SIZE_BYTES = 11, 4  # the size of a tag follows it
FLV_VIDEO, FLV_OTHERS = 9, (8, 18)  # kinds of tags; the others are audio and scripts
FLV_COMMAND, FLV_AVC, FLV_AVC_FRAME = 5, 7, 1
FLV_EXTENDED, FLV_EXTENDED_WITHOUT_FRAMES = 0x80, (0, 2, 4)  # start and end of a sequence, metadata
AVI_FIRST_CHUNK, AVI_CHUNK_HEADER_BYTES = 12, 8  # after "RIFF", a length and "AVI "; a name and a length
MP4_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"uuid")
MP4_AUDIO_BRANDS = (b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B ")
MP4_STILL_BRANDS = (b"heic", b"heix", b"heim", b"mif1", b"avif", b"crx ")
# The packet of a transport stream, alone, after a 4-byte timestamp (M2TS, AVCHD) or before 16 bytes of error correction.
MPEG_TS_STRIDES = (188, 192, 204)
MPEG_TS_SYNC, MPEG_TS_MIN_PACKETS = 0x47, 4
ASF_VIDEO_STREAM = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")  # in the header of WMV, and not of WMA
OGG_VIDEO_HEADERS = (b"\x80theora", b"OVP80", b"BBCD\x00", b"\x01video\x00")
DV_BLOCK_BYTES = 80

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "asf"),
    (b"FLV\x01", "flv"),
    (b"OggS", "ogg"),
    (bytes.fromhex("060e2b34020501010d01020101"), "mxf"),
    (b"DKIF", "ivf"),
    (b"\x00\x00\x01\xb3", "mpegvideo"),
    (b"\x00\x00\x01\xb0", "m4v"),
)
# The first NAL unit: an access unit delimiter or a parameter set, after a start code of 3 or 4 bytes.
_H264_START = re.compile(rb"\x00?\x00\x00\x01(\x09[\x10\x30\x50\x70\x90\xb0\xd0\xf0]\x00|[\x27\x47\x67])")
_HEVC_START = re.compile(rb"\x00?\x00\x00\x01(\x46\x01[\x10\x30\x50]\x00|\x40\x01)")
_HEVC_PARAMETER_SET = re.compile(rb"\x00\x00\x01[\x40\x42]\x01")
_M4V_START = re.compile(rb"\x00\x00\x01[\x00-\x1f]\x00\x00\x01[\x20-\x2f]")
_UNREADABLE_FORMATS: tuple[tuple[bytes, str], ...] = (
    (b".RMF", "RealMedia"),
    (bytes.fromhex("b7d800203749da11a64e0007e95ead8d"), "Windows Recorded TV Show"),
    (b"YUV4MPEG2", "uncompressed YUV4MPEG2"),
    (b"\x8aMNG", "MNG"),
    (b"FILM", "Sega FILM"),
)

_POINTERS: tuple[tuple[bytes, str], ...] = (
    (b"/annex/objects/", "its content is not here: it is a pointer of git-annex; `git annex get` fetches it"),
    (
        b"version https://git-lfs.github.com/",
        "its content is not here: it is a pointer of Git LFS; `git lfs pull` fetches it",
    ),
)


def container_format(head: bytes) -> str | None:
    """Return FFmpeg's name of the container that begins with these bytes; None if it may not be opened."""
    if head[4:8] in MP4_FIRST_BOXES and (head[0] == 0 or head[4:8] in (b"mdat", b"moov")):  # the others are small
        return None if head[8:12] in MP4_STILL_BRANDS else "mov"
    if head.startswith(b"RIFF"):
        return {b"AVI ": "avi", b"CDXA": "mpeg"}.get(head[8:12])  # CDXA: sectors of a Video CD
    name = next((name for signature, name in _SIGNATURES if head.startswith(signature)), None)
    if name is not None:
        return name
    if _is_transport_stream(head):
        return "mpegts"
    if _HEVC_START.match(head) and _HEVC_PARAMETER_SET.search(head):
        return "hevc"
    if _H264_START.match(head):
        return "h264"
    if _M4V_START.match(head):
        return "m4v"
    return "dv" if _is_dv(head) else None


def is_video_content(head: bytes) -> bool:
    """Return whether a file with this beginning holds video, or is in a format that may hold video."""
    format_name = container_format(head)
    if format_name == "mov":
        return head[8:12] not in MP4_AUDIO_BRANDS
    if format_name == "asf":
        return ASF_VIDEO_STREAM in head or (
            len(head) == SNIFF_BYTES and int.from_bytes(head[16:24], "little") > len(head)
        )
    if format_name == "ogg":
        return any(header in head for header in OGG_VIDEO_HEADERS)
    if format_name == "flv":
        return len(head) > 4 and bool(head[4] & 1)
    return format_name is not None or any(head.startswith(signature) for signature, _ in _UNREADABLE_FORMATS)


def unreadable_format(head: bytes) -> str | None:
    """Return the name of a format that is video, or a picture in a container for video, and is not read."""
    if head[4:8] == b"ftyp" and head[8:12] in MP4_STILL_BRANDS:
        return "a still picture"
    return next((name for signature, name in _UNREADABLE_FORMATS if head.startswith(signature)), None)


def pointer_advice(head: bytes) -> str | None:
    """Return what to do about a small file that stands for a content that was not fetched; None for other files."""
    return next((advice for signature, advice in _POINTERS if head.startswith(signature)), None)


def _is_transport_stream(head: bytes) -> bool:
    for stride in MPEG_TS_STRIDES:
        for start in range(min(stride, len(head) - (MPEG_TS_MIN_PACKETS - 1) * stride)):
            if all(byte == MPEG_TS_SYNC for byte in head[start::stride]):
                return True
    return False


def _is_dv(head: bytes) -> bool:
    """Return whether a DIF sequence begins here: a header block, two subcode blocks, three blocks of auxiliary data."""
    blocks = [head[i * DV_BLOCK_BYTES :][:3] for i in range(6)]
    sections = [block[0] >> 5 if len(block) == 3 else -1 for block in blocks]
    return sections == [0, 1, 1, 2, 2, 2] and blocks[0][1:] == b"\x07\x00"


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


def is_next_frame(file: BinaryIO, tag: int, following: int) -> bool:
    """Return whether the FLV tag at `following` holds the next frame after that of the tag at `tag`.

    Between two frames are audio, scripts, and video tags that hold a decoder's configuration or a command.
    """
    position, first = file.tell(), tag
    is_next = True
    while tag < following and is_next:
        file.seek(tag)
        header = file.read(FLV_TAG_HEADER_BYTES + 2)
        if len(header) < FLV_TAG_HEADER_BYTES + 2:
            break
        is_next = tag == first or _holds_no_frame(header)
        tag += FLV_TAG_HEADER_BYTES + int.from_bytes(header[1:4], "big") + FLV_TAG_SIZE_BYTES
    file.seek(position)
    return is_next and tag == following


def _holds_no_frame(header: bytes) -> bool:
    kind, coding, packet_type = header[0], header[FLV_TAG_HEADER_BYTES], header[FLV_TAG_HEADER_BYTES + 1]
    if kind != FLV_VIDEO:
        return kind in FLV_OTHERS
    if coding & FLV_EXTENDED:
        return coding & 0x0F in FLV_EXTENDED_WITHOUT_FRAMES
    return coding >> 4 == FLV_COMMAND or (coding & 0x0F == FLV_AVC and packet_type != FLV_AVC_FRAME)


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
