"""AVI files put together byte by byte, as cameras and capture programs write them and FFmpeg's muxer does not."""

import struct
from collections.abc import Sequence

KEY_FRAME = 0x10  # AVIIF_KEYFRAME
HAS_INDEX, IS_INTERLEAVED = 0x10, 0x100  # flags of the header 'avih'
NOT_A_KEY_FRAME = 1 << 31  # in the sizes of OpenDML's indexes
VIDEO_CHUNK = b"00dc"

Packet = tuple[bytes, bool]
"""The data of a chunk, empty if the camera gave no frame, and whether it is a key frame."""


def write_avi(
    packets: Sequence[Packet],
    *,
    fourcc: bytes,
    size: tuple[int, int],
    fps: int,
    num_riffs: int = 1,
    has_index: bool = True,
) -> bytes:
    """Return an AVI file with a chunk per packet.

    With several RIFF parts, each has an OpenDML index, and the header an index of those; the first part alone has the old
    index 'idx1'.
    """
    length = -(-len(packets) // num_riffs)
    parts = [packets[start : start + length] for start in range(0, len(packets), length)]
    file = bytearray()
    super_index_at = 0
    entries = []
    for number, part in enumerate(parts):
        riff_at = len(file)
        file += b"RIFF\0\0\0\0" + (b"AVIX" if number else b"AVI ")
        if number == 0:
            headers = _headers(len(packets), len(part), fourcc, size, fps, num_riffs)
            file += headers
            super_index_at = riff_at + 12 + headers.find(b"indx") + 8
        movie_at = len(file)
        file += b"LIST\0\0\0\0movi"
        positions = []
        for data, _ in part:
            positions.append(len(file))
            file += _chunk(VIDEO_CHUNK, data)
        if num_riffs > 1:
            index = _chunk_index(part, positions, movie_at)
            entries.append(struct.pack("<QII", len(file), len(index), len(part)))
            file += index
        _set_size(file, movie_at)
        if has_index and number == 0:
            file += _old_index(part, positions, movie_at + 8)
        _set_size(file, riff_at)
    if num_riffs > 1:
        super_index = struct.pack("<HBBI4sIII", 4, 0, 0, len(entries), VIDEO_CHUNK, 0, 0, 0) + b"".join(entries)
        file[super_index_at : super_index_at + len(super_index)] = super_index
    return bytes(file)


def _headers(
    num_frames: int, num_frames_of_first_part: int, fourcc: bytes, size: tuple[int, int], fps: int, num_riffs: int
) -> bytes:
    width, height = size
    main = struct.pack(
        "<14I",
        1_000_000 // fps,
        0,
        0,
        HAS_INDEX | IS_INTERLEAVED,
        num_frames_of_first_part,
        0,
        1,
        0,
        width,
        height,
        *[0] * 4,
    )
    stream = struct.pack(
        "<4s4sIHHIIIIIIIIHHHH", b"vids", fourcc, *[0] * 4, 1, fps, 0, num_frames, *[0] * 3, 0, 0, *size
    )
    bitmap = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, fourcc, width * height * 3, 0, 0, 0, 0)
    track = _chunk(b"strh", stream) + _chunk(b"strf", bitmap)
    open_dml = b""
    if num_riffs > 1:
        track += _chunk(b"indx", bytes(24 + 16 * num_riffs))
        open_dml = _list(b"odml", _chunk(b"dmlh", struct.pack("<I", num_frames)))
    return _list(b"hdrl", _chunk(b"avih", main) + _list(b"strl", track) + open_dml)


def _chunk_index(part: Sequence[Packet], positions: Sequence[int], base: int) -> bytes:
    """Return an OpenDML index 'ix00' of chunks; its offsets are those of their data."""
    content = struct.pack("<HBBI4sQI", 2, 0, 1, len(part), VIDEO_CHUNK, base, 0)
    for (data, is_key), position in zip(part, positions, strict=True):
        content += struct.pack("<II", position + 8 - base, len(data) | (0 if is_key else NOT_A_KEY_FRAME))
    return _chunk(b"ix00", content)


def _old_index(part: Sequence[Packet], positions: Sequence[int], base: int) -> bytes:
    """Return the index 'idx1' of chunks; its offsets count from the word 'movi'."""
    return _chunk(
        b"idx1",
        b"".join(
            struct.pack("<4sIII", VIDEO_CHUNK, KEY_FRAME if is_key else 0, position - base, len(data))
            for (data, is_key), position in zip(part, positions, strict=True)
        ),
    )


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _list(name: bytes, content: bytes) -> bytes:
    return _chunk(b"LIST", name + content)


def _set_size(file: bytearray, start: int) -> None:
    """Set the size of the chunk that begins at `start` and ends with the file."""
    file[start + 4 : start + 8] = struct.pack("<I", len(file) - start - 8)
