"""Settings of `microaction retrain`: the run, and the gates."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from pydantic_settings import CliPositionalArg

from microaction.settings import Location
from microaction.training.settings import RecipeConfig, WorkerSettings


class GatesConfig(BaseModel):
    """What a candidate must keep to replace the model in production, both measured on the same held-out clips."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    f1_mean_margin: float = Field(
        0.0,
        description="The candidate's F1 mean over the actions in the clips must be at least production's plus this.",
    )
    class_f1_margin: float = Field(
        0.1, ge=0, description="No action with enough clips may lose more F1 than this against production."
    )
    map_margin: float = Field(
        0.0,
        description="Of detectors: the candidate's mAP over the actions in the videos must be at least production's plus this.",
    )
    class_ap_margin: float = Field(
        0.1,
        ge=0,
        description="Of detectors: no action with enough instances may lose more average precision than this against production.",
    )
    min_support: PositiveInt = Field(
        20, description="Held-out clips or instances of an action that are enough for that."
    )
    min_held_out: PositiveInt = Field(
        50, description="Minimum held-out clips or instances; with fewer nothing is promoted."
    )
    calibration_margin: float = Field(
        0.02,
        ge=0,
        description="The calibration error (of detectors: of events) may exceed production's by at most this.",
    )
    golden_margin: float = Field(
        0.05,
        ge=0,
        description="Probabilities for the golden input, as labeling runs the network, may differ by at most this.",
    )


class RetrainSettings(WorkerSettings):
    """Train on new labels, compare the result with the model in production, and promote it if it passes the gates."""

    registry: CliPositionalArg[Location] = Field(description="Path or URI of the registry.")
    dataset: Location = Field(
        description="Folder with list.parquet, list.txt or instances.parquet, and videos/, as `microaction pack` writes it."
    )
    labels: Location | None = Field(
        None,
        description="Folder with lists of newer labels, and their clips in videos/. A clip that is already listed is "
        "corrected; of several lists the later by name wins.",
    )
    work: Location = Field(description="Folder for training runs and decisions: shared by all nodes, or a URI.")
    min_new: PositiveInt = Field(
        100, description="Minimum new and corrected clips since production; fewer end the command at once."
    )
    start: Literal["production", "scratch"] = Field("production", description="Initial weights.")
    held_out_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Fraction of the subjects unknown to production that are held out for the comparison, permanently.",
    )
    val_fraction: float = Field(0.1, gt=0, lt=1, description="Fraction of the other clips that selects the best epoch.")
    gates: GatesConfig = Field(GatesConfig(), description="What the candidate must keep.")
    recipe: RecipeConfig = Field(RecipeConfig(), description="How the candidate is trained.")
    label_embeddings: Location | None = Field(
        None, description="As production was trained with. Default: the table that the package ships."
    )
    seed: int = Field(0, description="Seed of everything random.")
