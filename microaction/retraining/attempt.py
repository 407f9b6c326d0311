"""What the steps of one retraining have in common."""

from dataclasses import dataclass

from microaction import storage
from microaction.registry import Version
from microaction.retraining.data import HELD_OUT, DataDelta
from microaction.retraining.settings import RetrainSettings
from microaction.training.checkpoints import BEST_FOLDER

DECISION_FILE = "decision.json"
PAGE_FILE = "decision.html"
RUN_NAME = "training"


@dataclass(frozen=True)
class Attempt:
    """One retraining: its settings, the version in production that it starts from, what is new since, and its own folder."""

    settings: RetrainSettings
    production: Version
    delta: DataDelta
    folder: str

    @property
    def candidate_uri(self) -> str:
        """The checkpoint directory of the candidate."""
        return storage.join(self.folder, RUN_NAME, BEST_FOLDER)

    @property
    def page_uri(self) -> str:
        """The page that shows the decision."""
        return storage.join(self.folder, PAGE_FILE)

    @property
    def decision_uri(self) -> str:
        """The decision, which is written last."""
        return storage.join(self.folder, DECISION_FILE)

    @property
    def held_out_uri(self) -> str:
        """The list of the clips that both models are judged on."""
        return storage.join(self.folder, f"{HELD_OUT}.parquet")
