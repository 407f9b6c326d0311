"""What a packet is to its neighbours, read from its own bytes: may decoding start here, and does anything refer to it?

A container's key-frame flag is not enough: in open groups of pictures it marks frames after which older ones are still
referred to. Sources: ITU-T H.264 (7.3.2.1, 7.3.3, 7.4.1, 7.4.3), ITU-T H.265 (7.3.1.2, 7.4.2.2), ISO/IEC 14496-15 (avcC,
hvcC), the VP9 bitstream specification (6.2).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

MAX_REORDER = 16  # H.264 and HEVC: at most so many frames precede another in decoding order and follow it on the screen

H264_SLICES, H264_IDR, H264_PARAMETER_SETS = range(1, 6), 5, (7, 8, 13, 15)
H264_FRAME_SLICES = (1, 2, 5)  # those with a whole slice header
H264_PROFILES_WITH_CHROMA = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
HEVC_SLICES, HEVC_RANDOM_ACCESS, HEVC_SPS, HEVC_PARAMETER_SETS = range(32), range(16, 22), 33, (32, 33, 34)
HEVC_SUBLAYER_NON_REFERENCE = range(0, 16, 2)  # TRAIL_N, TSA_N, STSA_N, RADL_N, RASL_N and reserved kin
ANNEX_B_STARTS = {  # H.264 IDR slices, HEVC random access pictures, MPEG sequence headers
    "h264": re.compile(rb"\x00\x00\x01[\x25\x45\x65]"),
    "hevc": re.compile(rb"\x00\x00\x01[\x20\x22\x24\x26\x28\x2a][\x00-\x07]"),
    "mpeg1video": re.compile(rb"\x00\x00\x01\xb3"),
    "mpeg2video": re.compile(rb"\x00\x00\x01\xb3"),
}
INTRA_ONLY_CODECS = ("mjpeg", "prores", "dnxhd", "rawvideo", "png", "jpeg2000")


UNCHECKED, CONTRADICTORY = None, -1
UNIT_HEAD_BYTES = 16  # of a NAL unit: its header, and a slice's up to the number of its frame


class PacketKind(NamedTuple):
    """`is_random_access`: decoding may start here, for all frames shown at this one's time or later. `disposable`: no other
    frame is decoded from it, nor from anything else in its packet. `number`: the H.264 frame_num of its slices.
    """

    is_random_access: bool
    disposable: bool
    number: int | None = UNCHECKED


@dataclass(frozen=True)
class Structure:
    """How a stream's packets are told apart.

    `selective`: each packet is one frame, and leaving out disposable ones changes no other frame. `max_reorder` frames at
    most come before a frame that is shown earlier. `leads`: frames may follow a clean start and be shown before it; those
    cannot be decoded from there, and nothing shown later refers to them. `num_numbers`: frames' numbers are counted modulo
    this, without gaps; 0 where they are not checked.
    """

    kind_of: Callable[[memoryview], PacketKind]
    max_reorder: int
    selective: bool = True
    has_leading_pictures: bool = False
    num_numbers: int = 0


def structure_of(codec: str, extradata: bytes | None) -> Structure | None:
    """The structure of a stream of MP4/MOV or MKV/WebM; None where this module cannot tell its packets apart."""
    if codec in INTRA_ONLY_CODECS:
        return Structure(lambda packet: PacketKind(True, True), max_reorder=0)
    if codec == "vp9":
        return Structure(_vp9_kind, max_reorder=0)
    try:
        if codec == "h264":
            return _h264_structure(extradata or b"")
        if codec == "hevc":
            return _hevc_structure(extradata or b"")
    except (IndexError, ValueError):  # headers that do not parse: whoever decodes will say what is wrong
        return None
    return None


def annex_b_start(codec: str) -> Callable[[memoryview], bool] | None:
    """Tells whether decoding may start at a packet of a transport or program stream; None where nothing tells."""
    pattern = ANNEX_B_STARTS.get(codec)
    return None if pattern is None else lambda packet: pattern.search(packet) is not None


def _vp9_kind(packet: memoryview) -> PacketKind:
    """Key frames reset everything that later frames could refer to; what else is referred to is not looked into."""
    bits = _Bits(bytes(packet[:2]))
    marker, low, high = bits.u(2), bits.u(1), bits.u(1)
    if low + 2 * high == 3:
        bits.u(1)
    shows_existing, is_inter = bits.u(1), bits.u(1)
    return PacketKind(marker == 2 and not shows_existing and not is_inter, disposable=False)


def _h264_structure(avcc: bytes) -> Structure | None:
    if len(avcc) < 7 or avcc[0] != 1:
        return None  # start codes instead of lengths
    length_bytes = (avcc[4] & 3) + 1
    parameter_sets = {_read_h264_sps(sps) for sps in _read_sets(avcc, 6, avcc[5] & 31)}
    interlaced = any(not sps.is_progressive for sps in parameter_sets)
    (sps,) = parameter_sets if len(parameter_sets) == 1 else (None,)
    if sps is not None and sps.has_gaps:
        sps = None

    def kind_of(packet: memoryview) -> PacketKind:
        has_idr, is_referred_to = False, False
        number: int | None = UNCHECKED
        for unit in _units(packet, length_bytes):
            kind = unit[0] & 31
            has_idr |= kind == H264_IDR
            is_referred_to |= (kind in H264_SLICES and bool(unit[0] & 0x60)) or kind in H264_PARAMETER_SETS
            if kind in H264_FRAME_SLICES and sps is not None:
                its_number = _h264_frame_num(unit, sps)
                number = its_number if number in (UNCHECKED, its_number) else CONTRADICTORY
        return PacketKind(has_idr, not is_referred_to, number)

    # A field may be referred to while the other field of its frame is not.
    return Structure(
        kind_of,
        MAX_REORDER,
        selective=bool(parameter_sets) and not interlaced,
        num_numbers=0 if sps is None else 1 << sps.frame_num_bits,
    )


def _h264_frame_num(unit: memoryview, sps: "_H264Sps") -> int:
    bits = _Bits(bytes(unit[1:]).replace(b"\x00\x00\x03", b"\x00\x00"))
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
        sets = list(_read_sets(hvcc, position + 3, count))
        position += 3 + sum(2 + len(one) for one in sets)
        if kind == HEVC_SPS:
            sub_layers |= {one[2] >> 1 & 7 for one in sets}
    if not sub_layers:
        return None
    top_sub_layer = max(sub_layers)

    def kind_of(packet: memoryview) -> PacketKind:
        is_start, is_referred_to = False, False
        for unit in _units(packet, length_bytes):
            kind, layer, sub_layer = unit[0] >> 1 & 63, (unit[0] & 1) << 5 | unit[1] >> 3, (unit[1] & 7) - 1
            if kind in HEVC_SLICES and layer == 0:
                is_start |= kind in HEVC_RANDOM_ACCESS
                # "Non-reference" speaks of its own temporal sub-layer only: higher ones may refer to it.
                is_referred_to |= kind not in HEVC_SUBLAYER_NON_REFERENCE or sub_layer < top_sub_layer
            is_referred_to |= kind in HEVC_PARAMETER_SETS
        return PacketKind(is_start, not is_referred_to)

    return Structure(kind_of, MAX_REORDER, has_leading_pictures=True)


def _units(packet: memoryview, length_bytes: int) -> Iterator[memoryview]:
    """The NAL units of a packet, each after its length; stops at one that is not whole."""
    position = 0
    while position + length_bytes + 2 <= len(packet):
        length = int.from_bytes(packet[position : position + length_bytes], "big")
        position += length_bytes
        if length < 2:
            return
        yield packet[position : position + min(length, UNIT_HEAD_BYTES)]
        position += length


def _read_sets(data: bytes, position: int, count: int) -> Iterator[bytes]:
    for _ in range(count):
        length = int.from_bytes(data[position : position + 2], "big")
        yield data[position + 2 : position + 2 + length]
        position += 2 + length


class _H264Sps(NamedTuple):
    """What a sequence parameter set says: how many bits frame_num has, and whether it may leave numbers out; whether no
    picture is coded as fields (frame_mbs_only_flag); whether colours have slices of their own.
    """

    frame_num_bits: int
    has_gaps: bool
    is_progressive: bool
    has_separate_planes: bool


def _read_h264_sps(sps: bytes) -> _H264Sps:
    bits = _Bits(sps[1:].replace(b"\x00\x00\x03", b"\x00\x00"))
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


def _skip_scaling_list(bits: "_Bits", size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


class _Bits:
    """Reads bits, and the Exp-Golomb codes of H.264. Raises `IndexError` at the end."""

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
