"""`microaction label` with the decoder of the chaos tests, in blocks of few chunks, and compacting after few commits."""

from microaction.cli.label import main
from microaction.labeling import ledger, pipeline, plan, run
from tests.labeling.decoders import ChaosDecoder

CHUNKS_PER_BLOCK = 4
BLOCKS_PER_WAVE = 100

if __name__ == "__main__":
    pipeline.Decoder = ChaosDecoder  # type: ignore[attr-defined]
    plan.BLOCK_MAX_CHUNKS = CHUNKS_PER_BLOCK
    run.BLOCKS_PER_WAVE = BLOCKS_PER_WAVE
    ledger.COMMITS_PER_COMPACTION = 8
    main()
