"""Settings of `microaction train`: the run, and the recipe."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from microaction.distributed.settings import ClusterSettings
from microaction.models.settings import AnyModelConfig, default_model_config
from microaction.preprocessing import Preprocessing
from microaction.settings import Location
from microaction.taxonomy import ACTIONS


class RecipeConfig(BaseModel):
    """How a network is trained; the defaults are the reference's recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: PositiveInt = Field(80, description="Passes over the training clips.")
    batch_size: PositiveInt = Field(10, description="Clips per step over all workers.")
    learning_rate: PositiveFloat = Field(
        0.00125, description="Learning rate for batches of 10 clips; scaled linearly with batch_size."
    )
    schedule: Literal["step", "cosine"] = Field(
        "step",
        description="`step`: ×0.1 after 3/8 and 6/8 of the epochs (30 and 60 of 80); `cosine`: down to zero.",
    )
    warmup_epochs: float = Field(0.0, ge=0, description="Epochs of linear increase from zero.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay of convolutions and linear layers.")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="`bf16`: convolutions and matrix products in bfloat16, weights and loss in float32."
    )
    compile: bool = Field(
        False, description="Compile the network at the first step: a minute or more, then shorter steps."
    )
    micro_batch_size: PositiveInt | None = Field(
        None,
        description="Clips per forward pass of a worker; gradients accumulate over a step. Default: all at once.",
    )
    batch_norm: Literal["local", "sync", "frozen"] = Field(
        "sync",
        description="Batch-norm statistics of each worker's own clips (`local`), of all workers' clips (`sync`), or those of "
        "the initial weights (`frozen`).",
    )
    clip_gradient_norm: PositiveFloat = Field(20.0, description="Maximum L2 norm of all gradients together.")
    embedding_loss_weight: float = Field(50.0, ge=0, description="Weight of the joint-embedding loss.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Probability that the target spreads evenly over all classes."
    )
    class_balance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="0: every clip once per epoch; 1: every class equally often; values between interpolate.",
    )
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Evaluate and save an exponential moving average of the weights with this decay per step.",
    )
    crop_scales: tuple[PositiveFloat, ...] = Field(
        (1.0, 0.875, 0.75, 0.66), min_length=1, description="Sides of the random crops, as fractions of the short side."
    )


class WorkerSettings(ClusterSettings):
    """Settings of a training run that change neither its data nor its result."""

    num_workers: PositiveInt = Field(1, description="Training workers, with one GPU each if the cluster has GPUs.")
    min_workers: PositiveInt | None = Field(
        None, description="Minimum workers to continue with after node loss. Default: wait for all."
    )
    max_failures: NonNegativeInt = Field(3, description="How many times a failed worker group is restarted.")
    checkpoint_interval_s: PositiveFloat = Field(
        300.0, description="Seconds between saved states; a killed run repeats at most about this much."
    )
    max_unreadable_fraction: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Clips that cannot be read are left out and listed; a larger fraction than this ends the run.",
    )


class TrainSettings(WorkerSettings):
    """Train a network on labeled clips (MA-52's list format) and write a checkpoint directory."""

    train_list: Location = Field(description="List file with a line 'name.mp4 label' per clip, or a Parquet list.")
    train_videos: Location = Field(description="Folder of the clips in train_list.")
    val_list: Location | None = Field(None, description="List file of the clips to validate on after each epoch.")
    val_videos: Location | None = Field(None, description="Folder of the clips in val_list.")
    split_by: Literal["list", "subject"] = Field(
        "list",
        description="`list`: as the two lists say; `subject`: split the clips of both lists again, so that no subject is on "
        "both sides.",
    )
    val_fraction: float = Field(
        0.2, gt=0, lt=1, description="With split_by=subject: fraction of all clips to validate on."
    )
    storage_path: Location = Field(description="Folder for runs: shared by all nodes, or a URI.")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the run. The same name again resumes it."
    )
    model: AnyModelConfig = Field(default_factory=default_model_config, description="The network.")
    preprocessing: Preprocessing = Field(Preprocessing(), description="From a frame to the network's input.")
    recipe: RecipeConfig = Field(RecipeConfig(), description="How the network is trained.")
    label_embeddings: Location | None = Field(
        None,
        description="Word-vector text file (word2vec, GloVe or fastText; .gz too). Default: the table that the package ships.",
    )
    init: Literal["imagenet"] | Location | None = Field(
        None,
        description="Initial weights: a checkpoint directory, a file of published weights (.pth), or `imagenet`, which "
        "downloads torchvision's ResNet-50. Default: random.",
    )
    seed: int = Field(0, description="Seed of everything random.")

    @model_validator(mode="after")
    def _fits(self) -> "TrainSettings":
        if (self.val_list is None) != (self.val_videos is None):
            raise ValueError("val_list and val_videos belong together: give both or none")
        if self.val_list is None and self.split_by == "list":
            raise ValueError("give val_list and val_videos, or split_by=subject to hold out subjects of train_list")
        if self.model.num_classes != len(ACTIONS):
            raise ValueError(
                f"model.num_classes ({self.model.num_classes}) must be {len(ACTIONS)}, the number of labels; leave it out"
            )
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(f"min_workers ({self.min_workers}) must be at most num_workers ({self.num_workers})")
        if self.gpus and self.gpus < self.num_workers:
            raise ValueError(
                f"gpus ({self.gpus}) must be at least num_workers ({self.num_workers}): each worker has its own"
            )
        if self.recipe.batch_size < self.num_workers:
            raise ValueError(
                f"recipe.batch_size ({self.recipe.batch_size}) must be at least num_workers ({self.num_workers}), so that "
                "every worker has a clip of every batch"
            )
        return self
