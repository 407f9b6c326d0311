"""Where the packets of a video lie in its file, and where their times are written."""

import io
import random
from functools import lru_cache

import av

from microaction.video.decoding.formats import container_format

PES_START = b"\0\0\1\xe0"  # of the first video stream
PES_HEADER_BYTES, HAS_TIME, TIME_BYTES = 9, 0x80, 5
BLOCK_TIME_BYTES, BLOCK_FLAGS_BYTES = 2, 1
AVI_CHUNK_HEADER_BYTES = 8
COMPOSITION_ENTRY_BYTES = 8


@lru_cache(maxsize=1)
def packet_positions(data: bytes) -> list[int]:
    """Return where the packets of the video stream begin."""
    with av.open(io.BytesIO(data), "r", format=container_format(data[:4096])) as container:
        packets = container.demux(video=0)
        return sorted({packet.pos for packet in packets if packet.size and packet.pos is not None and packet.pos >= 0})


def with_repeated_times(data: bytes, rng: random.Random) -> bytes:
    """Return a copy in which one to four frames have the time of the frame before them; in AVI, their chunks are empty."""
    copy = bytearray(data)
    if container_format(data[:4096]) == "avi":
        for position in sorted(rng.sample(packet_positions(data)[1:], rng.randrange(1, 5)), reverse=True):
            start = position + AVI_CHUNK_HEADER_BYTES
            size = int.from_bytes(copy[start - 4 : start], "little")
            copy[start - 4 : start + size + size % 2] = bytes(4)
        return bytes(copy)
    fields = _time_fields(data)
    for _ in range(rng.randrange(1, 5) if len(fields) > 1 else 0):
        index = rng.randrange(1, len(fields))
        (source, length), (target, _) = fields[index - 1], fields[index]
        copy[target : target + length] = copy[source : source + length]
    return bytes(copy)


@lru_cache(maxsize=1)
def _time_fields(data: bytes) -> list[tuple[int, int]]:
    """Return the offset and the length of the field that holds the time of each packet; none for other containers."""
    match container_format(data[:4096]):
        case "mpegts" | "mpeg":
            return _pes_times(data)
        case "matroska":
            return _block_times(data)
        case "mov":
            return _composition_offsets(data)
    return []


def _pes_times(data: bytes) -> list[tuple[int, int]]:
    fields, position = [], data.find(PES_START)
    while position >= 0:
        if data[position + 7] & HAS_TIME:
            fields.append((position + PES_HEADER_BYTES, TIME_BYTES))
        position = data.find(PES_START, position + 1)
    return fields


def _block_times(data: bytes) -> list[tuple[int, int]]:
    with av.open(io.BytesIO(data), "r", format="matroska") as container:
        payloads = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    fields, position = [], 0
    for payload in payloads:
        position = data.find(payload, position)
        if position < 0:  # the container leaves out bytes that all payloads begin with
            return []
        fields.append((position - BLOCK_FLAGS_BYTES - BLOCK_TIME_BYTES, BLOCK_TIME_BYTES))
        position += len(payload)
    return fields


def _composition_offsets(data: bytes) -> list[tuple[int, int]]:
    """Return the entries of the box 'ctts': how many frames follow, and how long after decoding they are shown."""
    start = data.find(b"ctts")
    if start < 0:
        return []
    num_entries = int.from_bytes(data[start + 8 : start + 12], "big")
    first = start + 12
    return [(first + index * COMPOSITION_ENTRY_BYTES + 4, 4) for index in range(num_entries)]
