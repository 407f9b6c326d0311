"""Bytes to pixels: containers, sampling, windows, decoding and transforms."""

from microaction.video.container import DecodeError, VideoInfo, probe
from microaction.video.decode import ChunkFrames, decode_chunk, decode_frames
from microaction.video.sampling import segment_indices

__all__ = ["ChunkFrames", "DecodeError", "VideoInfo", "decode_chunk", "decode_frames", "probe", "segment_indices"]
