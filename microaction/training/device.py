"""Batches on their way to the device."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from microaction.clips.ingest import ClipBatch


def on_device(batches: Iterable[ClipBatch], device: torch.device) -> Iterator[tuple[ClipBatch, Tensor]]:
    """Yield batches with their frames [B, T, H, W, 3] (uint8) on the device; on a GPU the next batch is copied meanwhile."""
    if device.type != "cuda":
        for batch in batches:
            yield batch, torch.from_numpy(batch.frames_BTHWC)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    before: tuple[ClipBatch, Tensor] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            frames_BTHWC = torch.from_numpy(batch.frames_BTHWC).pin_memory().to(device, non_blocking=True)
        if before is not None:
            yield before
        torch.cuda.current_stream(device).wait_stream(stream)
        frames_BTHWC.record_stream(torch.cuda.current_stream(device))
        before = batch, frames_BTHWC
    if before is not None:
        yield before
