"""From bytes to pixels: probing, sampling, windows, decoding and transforms.

`microaction.video.sandbox` runs them in a process of their own, as is right for files from elsewhere.
"""

from microaction.errors import DecodeError
from microaction.video.decode import ChunkFrames, decode_chunk, decode_frames
from microaction.video.decoding.timeline import SeekPoint
from microaction.video.framing import Framing, Region
from microaction.video.probing import VideoInfo, probe
from microaction.video.sampling import FrameSampling, segment_indices

__all__ = [
    "ChunkFrames",
    "DecodeError",
    "FrameSampling",
    "Framing",
    "Region",
    "SeekPoint",
    "VideoInfo",
    "decode_chunk",
    "decode_frames",
    "probe",
    "segment_indices",
]
