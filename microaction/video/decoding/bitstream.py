"""A packet's role, parsed from its own bytes: is it a random access point, and does any other frame refer to it?

A container's key frame flag is not enough: in open GOPs it marks frames after which earlier ones are still referred to.
Sources: ITU-T H.264 (7.3.2.1, 7.3.3, 7.4.1, 7.4.3), ITU-T H.265 (7.3.1.2, 7.4.2.2), ISO/IEC 14496-15 (avcC, hvcC), the VP9
bitstream specification (6.2).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

# H.264 and HEVC: at most this many frames precede another in decoding order and follow it in presentation order.
MAX_REORDER = 16

H264_SLICES, H264_IDR, H264_PARAMETER_SETS = range(1, 6), 5, (7, 8, 13, 15)
H264_FULL_SLICES = (1, 2, 5)  # those with a full slice header
H264_PROFILES_WITH_CHROMA = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
HEVC_SLICES, HEVC_RANDOM_ACCESS, HEVC_SPS, HEVC_PARAMETER_SETS = range(32), range(16, 22), 33, (32, 33, 34)
HEVC_SUBLAYER_NON_REFERENCE = range(0, 16, 2)  # TRAIL_N, TSA_N, STSA_N, RADL_N, RASL_N and reserved types
ANNEX_B_RANDOM_ACCESS = {  # H.264 IDR slices, HEVC IRAP pictures, MPEG sequence headers
    "h264": re.compile(rb"\x00\x00\x01[\x25\x45\x65]"),
    "hevc": re.compile(rb"\x00\x00\x01[\x20\x22\x24\x26\x28\x2a][\x00-\x07]"),
    "mpeg1video": re.compile(rb"\x00\x00\x01\xb3"),
    "mpeg2video": re.compile(rb"\x00\x00\x01\xb3"),
}
H264_SEI, SEI_RECOVERY_POINT, SEI_STOP = re.compile(rb"\x00\x00\x01\x06"), 6, 0x80
RECOVERY_POINT_BYTES = 4096  # supplemental information precedes a packet's slices
MPEG_4_VOP, MPEG_4_B = re.compile(rb"\x00\x00\x01\xb6(.)", re.DOTALL), 2
INTRA_ONLY_CODECS = ("mjpeg", "prores", "dnxhd", "rawvideo", "png", "jpeg2000")

UNCHECKED, CONTRADICTORY = None, -1
NAL_HEAD_BYTES = 16  # of a NAL unit: its header, and the slice header up to frame_num


class PacketKind(NamedTuple):
    """What a packet is to the other packets of its stream.

    `is_random_access`: decoding may start here, for all frames shown at this one's timestamp or later. `is_disposable`:
    no other frame is decoded from it, nor from anything else in its packet. `frame_num`: H.264's, of its slices;
    `UNCHECKED` where it is not read, `CONTRADICTORY` where they disagree.
    """

    is_random_access: bool
    is_disposable: bool
    frame_num: int | None = UNCHECKED


@dataclass(frozen=True)
class Structure:
    """How a stream's packets depend on each other.

    `kind_of` parses a packet. `max_reorder`: at most this many frames precede in decoding order a frame that is shown
    before them. `is_selective`: each packet is one frame, and leaving out disposable ones changes no other frame.
    `has_leading_pictures`: frames may follow a random access point and be shown before it; those cannot be decoded from
    there, and no frame shown later refers to them. `max_frame_num`: frame_num counts modulo this (MaxFrameNum), without
    gaps; 0 where it is not checked.
    """

    kind_of: Callable[[memoryview], PacketKind]
    max_reorder: int
    is_selective: bool = True
    has_leading_pictures: bool = False
    max_frame_num: int = 0


def structure_of(codec: str, extradata: bytes | None) -> Structure | None:
    """Return the structure of a stream of MP4/MOV or MKV/WebM; None where this module cannot parse its packets."""
    if codec in INTRA_ONLY_CODECS:
        return Structure(lambda packet: PacketKind(True, True), max_reorder=0)
    if codec == "vp9":
        return Structure(_vp9_kind, max_reorder=0)
    try:
        if codec == "h264":
            return _h264_structure(extradata or b"")
        if codec == "hevc":
            return _hevc_structure(extradata or b"")
    except (IndexError, ValueError):  # headers that do not parse: the decoder will report what is wrong
        return None
    return None


def annex_b_random_access(codec: str) -> Callable[[memoryview], bool] | None:
    """Return a test for random access points among packets with start codes; None where this module has none."""
    pattern = ANNEX_B_RANDOM_ACCESS.get(codec)
    if pattern is None:
        return None
    if codec == "h264":
        return lambda packet: pattern.search(packet) is not None or h264_recovery_point(packet)
    return lambda packet: pattern.search(packet) is not None


def mpeg4_coding_types(packet: memoryview) -> list[int]:
    """Return the coding type of each picture in an MPEG-4 packet: 0 I, 1 P, 2 B. Source: ISO/IEC 14496-2 (6.2.5)."""
    return [match[1][0] >> 6 for match in MPEG_4_VOP.finditer(packet)]


def h264_recovery_point(packet: memoryview) -> bool:
    """Return whether an H.264 packet with start codes has a recovery point: all frames shown from it on can be decoded.

    Camcorders and broadcasters begin groups of pictures with one instead of an IDR picture. Source: ITU-T H.264 (D.1.8).
    """
    data = bytes(packet[:RECOVERY_POINT_BYTES])
    for match in H264_SEI.finditer(data):
        position = match.end()
        while position + 2 < len(data) and data[position] != SEI_STOP:
            kind, position = _sei_number(data, position)
            size, position = _sei_number(data, position)
            if kind == SEI_RECOVERY_POINT:
                return (
                    position < len(data) and data[position] >= SEI_STOP
                )  # its count of frames (ue(v)) is 0: the first bit is 1
            position += size
    return False


def _sei_number(data: bytes, position: int) -> tuple[int, int]:
    number = 0
    while position < len(data) and data[position] == 255:
        number, position = number + 255, position + 1
    return number + (data[position] if position < len(data) else 0), position + 1


def _vp9_kind(packet: memoryview) -> PacketKind:
    """Parse a VP9 packet. Key frames reset every reference; whether other frames are referred to is not parsed."""
    bits = _BitReader(bytes(packet[:2]))
    marker, low, high = bits.u(2), bits.u(1), bits.u(1)
    if low + 2 * high == 3:
        bits.u(1)
    shows_existing, is_inter = bits.u(1), bits.u(1)
    return PacketKind(marker == 2 and not shows_existing and not is_inter, is_disposable=False)


def _h264_structure(avcc: bytes) -> Structure | None:
    if len(avcc) < 7 or avcc[0] != 1:
        return None  # Annex B start codes instead of lengths
    length_bytes = (avcc[4] & 3) + 1
    parameter_sets = {_read_h264_sps(sps) for sps in _parameter_sets(avcc, 6, avcc[5] & 31)}
    interlaced = any(not sps.is_progressive for sps in parameter_sets)
    (sps,) = parameter_sets if len(parameter_sets) == 1 else (None,)
    if sps is not None and sps.has_gaps:
        sps = None

    def kind_of(packet: memoryview) -> PacketKind:
        has_idr, is_reference = False, False
        frame_num: int | None = UNCHECKED
        for unit in _nal_units(packet, length_bytes):
            kind = unit[0] & 31
            has_idr |= kind == H264_IDR
            is_reference |= (kind in H264_SLICES and bool(unit[0] & 0x60)) or kind in H264_PARAMETER_SETS
            if kind in H264_FULL_SLICES and sps is not None:
                slice_frame_num = _h264_frame_num(unit, sps)
                frame_num = slice_frame_num if frame_num in (UNCHECKED, slice_frame_num) else CONTRADICTORY
        return PacketKind(has_idr, not is_reference, frame_num)

    # Interlaced: one field of a frame may be a reference while the other is not.
    return Structure(
        kind_of,
        MAX_REORDER,
        is_selective=bool(parameter_sets) and not interlaced,
        max_frame_num=0 if sps is None else 1 << sps.frame_num_bits,
    )


def _h264_frame_num(unit: memoryview, sps: "_H264Sps") -> int:
    bits = _BitReader(bytes(unit[1:]).replace(b"\x00\x00\x03", b"\x00\x00"))
    try:
        bits.ue(), bits.ue(), bits.ue()
        if sps.has_separate_planes:
            bits.u(2)
        return bits.u(sps.frame_num_bits)
    except IndexError:
        return CONTRADICTORY


def _hevc_structure(hvcc: bytes) -> Structure | None:
    if len(hvcc) < 23 or hvcc[0] != 1:
        return None
    length_bytes = (hvcc[21] & 3) + 1
    position, sub_layers = 23, set()
    for _ in range(hvcc[22]):
        kind, count = hvcc[position] & 63, int.from_bytes(hvcc[position + 1 : position + 3], "big")
        parameter_sets = list(_parameter_sets(hvcc, position + 3, count))
        position += 3 + sum(2 + len(parameter_set) for parameter_set in parameter_sets)
        if kind == HEVC_SPS:
            sub_layers |= {sps[2] >> 1 & 7 for sps in parameter_sets}
    if not sub_layers:
        return None
    top_sub_layer = max(sub_layers)

    def kind_of(packet: memoryview) -> PacketKind:
        is_random_access, is_reference = False, False
        for unit in _nal_units(packet, length_bytes):
            kind, layer, sub_layer = unit[0] >> 1 & 63, (unit[0] & 1) << 5 | unit[1] >> 3, (unit[1] & 7) - 1
            if kind in HEVC_SLICES and layer == 0:
                is_random_access |= kind in HEVC_RANDOM_ACCESS
                # A "sub-layer non-reference" picture may still be a reference for higher temporal sub-layers.
                is_reference |= kind not in HEVC_SUBLAYER_NON_REFERENCE or sub_layer < top_sub_layer
            is_reference |= kind in HEVC_PARAMETER_SETS
        return PacketKind(is_random_access, not is_reference)

    return Structure(kind_of, MAX_REORDER, has_leading_pictures=True)


def _nal_units(packet: memoryview, length_bytes: int) -> Iterator[memoryview]:
    """Yield the heads of a packet's length-prefixed NAL units; stop at a length that is too small."""
    position = 0
    while position + length_bytes + 2 <= len(packet):
        length = int.from_bytes(packet[position : position + length_bytes], "big")
        position += length_bytes
        if length < 2:
            return
        yield packet[position : position + min(length, NAL_HEAD_BYTES)]
        position += length


def _parameter_sets(data: bytes, position: int, count: int) -> Iterator[bytes]:
    for _ in range(count):
        length = int.from_bytes(data[position : position + 2], "big")
        yield data[position + 2 : position + 2 + length]
        position += 2 + length


class _H264Sps(NamedTuple):
    """Fields of a sequence parameter set.

    How many bits frame_num has, whether it may have gaps (gaps_in_frame_num_value_allowed_flag), whether no picture is coded
    as fields (frame_mbs_only_flag), and whether each color plane has its own slices (separate_colour_plane_flag).
    """

    frame_num_bits: int
    has_gaps: bool
    is_progressive: bool
    has_separate_planes: bool


def _read_h264_sps(sps: bytes) -> _H264Sps:
    bits = _BitReader(sps[1:].replace(b"\x00\x00\x03", b"\x00\x00"))
    profile, _ = bits.u(8), bits.u(16)
    bits.ue()
    has_separate_planes = False
    if profile in H264_PROFILES_WITH_CHROMA:
        chroma_format = bits.ue()
        if chroma_format == 3:
            has_separate_planes = bool(bits.u(1))
        bits.ue(), bits.ue(), bits.u(1)
        if bits.u(1):
            for i in range(8 if chroma_format != 3 else 12):
                if bits.u(1):
                    _skip_scaling_list(bits, 16 if i < 6 else 64)
    frame_num_bits = bits.ue() + 4
    order_type = bits.ue()
    if order_type == 0:
        bits.ue()
    elif order_type == 1:
        bits.u(1), bits.se(), bits.se()
        for _ in range(bits.ue()):
            bits.se()
    bits.ue()
    has_gaps = bool(bits.u(1))
    bits.ue(), bits.ue()
    return _H264Sps(frame_num_bits, has_gaps, bool(bits.u(1)), has_separate_planes)


def _skip_scaling_list(bits: "_BitReader", size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


class _BitReader:
    """Reads the u(n), ue(v) and se(v) descriptors of H.264 (bits and Exp-Golomb codes). Raises `IndexError` at the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def u(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError("no bits left")
        return self._value >> self._left & ((1 << count) - 1)

    def ue(self) -> int:
        zeros = 0
        while not self.u(1):
            zeros += 1
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)
