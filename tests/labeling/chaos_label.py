"""`python -m jobs.label` with the decoder of the chaos tests, in blocks of few chunks and segments of few commits."""

from jobs.label import main
from microaction.labeling import ledger, pipeline, plan
from tests.labeling.decoders import ChaosDecoder

CHUNKS_PER_BLOCK = 4

if __name__ == "__main__":
    pipeline.Decoder = ChaosDecoder  # type: ignore[attr-defined]
    plan.BLOCK_MAX_CHUNKS = CHUNKS_PER_BLOCK
    ledger.COMMITS_PER_SEGMENT = 8
    main()
