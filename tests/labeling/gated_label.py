"""`microaction label` that decodes the first videos only, as many as the archive's `gate` says, and waits with the others."""

import signal

from microaction.cli.label import main
from microaction.labeling import pipeline, plan
from tests.labeling.decoders import GatedDecoder

CHUNKS_PER_BLOCK = 2

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without it
    pipeline.Decoder = GatedDecoder  # type: ignore[attr-defined]
    plan.BLOCK_MAX_CHUNKS = CHUNKS_PER_BLOCK
    main()
