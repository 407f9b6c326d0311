"""`microaction label` with small parts to look at and logs of what is looked at and decoded, for the tests that kill it."""

from microaction.cli.label import main
from microaction.labeling import finding, ledger, pipeline, plan
from microaction.video.windows import MICROSECONDS
from tests.labeling.decoders import ChaosDecoder
from tests.labeling.lookers import LoggingLooker

LOOKS_US = 12 * MICROSECONDS

if __name__ == "__main__":
    finding.LOOKS_US = LOOKS_US  # type: ignore[attr-defined]
    finding.Looker = LoggingLooker  # type: ignore[attr-defined]
    pipeline.Decoder = ChaosDecoder  # type: ignore[attr-defined]
    plan.BLOCK_MAX_CHUNKS = 1
    ledger.COMMITS_PER_COMPACTION = 4
    main()
