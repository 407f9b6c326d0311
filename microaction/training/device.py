"""Batches on their way to the device."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from microaction.clips.ingest import ClipBatch


def on_device(batches: Iterable[ClipBatch], device: torch.device) -> Iterator[tuple[ClipBatch, Tensor, Tensor]]:
    """Yield batches with their frames [B, T, H, W, 3] (uint8) and keypoints [B, M, T, K, 3] (float32) on the device; on a GPU the
    next batch is copied meanwhile."""
    if device.type != "cuda":
        for batch in batches:
            yield batch, torch.from_numpy(batch.frames_BTHWC), torch.from_numpy(batch.keypoints_BMTK3)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    before: tuple[ClipBatch, Tensor, Tensor] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            frames_BTHWC, keypoints_BMTK3 = (
                torch.from_numpy(array).pin_memory().to(device, non_blocking=True)
                for array in (batch.frames_BTHWC, batch.keypoints_BMTK3)
            )
        if before is not None:
            yield before
        torch.cuda.current_stream(device).wait_stream(stream)
        for tensor in (frames_BTHWC, keypoints_BMTK3):
            tensor.record_stream(torch.cuda.current_stream(device))
        before = batch, frames_BTHWC, keypoints_BMTK3
    if before is not None:
        yield before
