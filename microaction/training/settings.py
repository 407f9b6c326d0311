"""Settings of `microaction train`: the run, and the recipe."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from microaction.clips.settings import PeopleRule
from microaction.distributed.settings import ClusterSettings
from microaction.models.conventions import statistics_of
from microaction.models.families import family_of
from microaction.models.family import Task
from microaction.models.settings import DETECTOR, AnyModelConfig, default_model_config, parse_model_config
from microaction.preprocessing import Preprocessing
from microaction.settings import Location
from microaction.skeletons.skeleton import NUM_KEYPOINTS
from microaction.taxonomy import ACTIONS
from microaction.training.recipes import RecipeName, recipe_of


class RecipeConfig(BaseModel):
    """How a network is trained; the defaults are MANet's recipe. `name` chooses what the other settings begin from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: RecipeName = Field(
        "default",
        description="Recipe that the other settings change: the network's `default`; the `published` one of its paper or "
        "reference, or ours where there is none; for vision transformers, that of the challenge's `winner`.",
    )
    epochs: PositiveInt = Field(80, description="Passes over the training clips.")
    batch_size: PositiveInt = Field(10, description="Clips per step over all workers.")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="SGD with momentum, or AdamW.")
    learning_rate: PositiveFloat = Field(
        0.00125, description="Learning rate for batches of base_batch_size clips; scaled linearly with batch_size."
    )
    base_batch_size: PositiveInt = Field(10, description="Batch size that learning_rate belongs to.")
    backbone_lr_factor: float = Field(
        1.0, gt=0, le=1, description="With AdamW: factor on the learning rate of all but the heads."
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="With AdamW: factor on the learning rate from each block to the one before it."
    )
    schedule: Literal["step", "cosine"] = Field(
        "step",
        description="`step`: ×0.1 at each of the milestones; `cosine`: down to zero.",
    )
    milestones: tuple[float, ...] = Field(
        (30 / 80, 60 / 80), description="With schedule=step: after which fractions of the epochs the rate falls."
    )
    warmup_epochs: float = Field(0.0, ge=0, description="Epochs of linear increase from zero.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    nesterov: bool = Field(False, description="Nesterov's momentum.")
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
    gradient_checkpointing: bool = Field(
        False,
        description="Keep blocks' inputs alone and compute the rest again in the backward pass: less memory, a third more time. "
        "For transformers.",
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
    part_shift: float = Field(
        0.0,
        ge=0,
        le=0.25,
        description="Largest random shift of the part of the frames that counts (a person's crop, a region, or the whole "
        "frame), as a fraction of its sides, before a random crop of it is taken.",
    )
    part_scale: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Largest random change of that part's size, as a fraction: 0.15 is 1/1.15 to 1.15 times. Beyond the frame "
        "the edge is repeated.",
    )
    freeze_backbone: bool = Field(
        False,
        description="Of detectors: the backbone keeps its initial weights, and its features of the videos are computed once, "
        "from unchanged frames.",
    )
    freeze_first_layer: bool = Field(
        False,
        description="Of detectors that begin from another one (init): the first layer after the backbone keeps its weights too, "
        "so that archives which the other one labeled can be labeled anew without reading a video.",
    )
    dense_loss_weight: float = Field(
        10.0, ge=0, description="Of detectors: weight of the mean cross-entropy of the dense probabilities."
    )
    crop: Literal["multi_scale", "resized"] = Field(
        "multi_scale",
        description="Random crops: `multi_scale` has a few sizes and places, as MANet's; `resized` has any area and shape.",
    )
    crop_area: tuple[float, float] = Field(
        (0.08, 1.0), description="With crop=resized: smallest and largest area, as fractions of the frame."
    )
    crop_aspect: tuple[float, float] = Field(
        (3 / 4, 4 / 3), description="With crop=resized: smallest and largest width, as multiples of the height."
    )
    color_jitter: float = Field(
        0.0, ge=0, lt=1, description="Largest change of brightness, contrast and saturation, as a fraction."
    )
    erasing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Largest area that is erased in a quarter of the clips, as a fraction of the frame.",
    )
    crop_scales: tuple[PositiveFloat, ...] = Field(
        (1.0, 0.875, 0.75, 0.66),
        min_length=1,
        description="With crop=multi_scale: sides of the crops, as fractions of the short side.",
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


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

    task: Task = Field(
        "recognition",
        description="`recognition`: classify clips; `detection`: find actions in untrimmed video, with a detector on the network "
        "that `model` names; its lists are lists of spans.",
    )
    train_list: Location = Field(
        description="List file with a line 'name.mp4 label' per clip, a Parquet list, or a list of spans of videos (Parquet, or "
        "MMA-52's CSV)."
    )
    train_videos: Location = Field(description="Folder of the clips in train_list.")
    val_list: Location | None = Field(None, description="List file of the clips to validate on after each epoch.")
    val_videos: Location | None = Field(None, description="Folder of the clips in val_list.")
    train_skeletons: Location | None = Field(
        None, description="Table of the skeletons of the clips in train_list, for networks that see them, such as pcan."
    )
    val_skeletons: Location | None = Field(None, description="Table of the skeletons of the clips in val_list.")
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
    people: PeopleRule = Field(
        "off",
        description="`auto`: clips in which several people are seen are cut to one of them, as `microaction pack` does, which "
        "looks once and not in every epoch. `off`: whole frames, or the regions of the lists.",
    )
    recipe: RecipeConfig = Field(RecipeConfig(), description="How the network is trained.")
    label_embeddings: Location | None = Field(
        None,
        description="Word-vector text file (word2vec, GloVe or fastText; .gz too). Default: the table that the package ships.",
    )
    init_pose: Location | None = Field(
        None,
        description="For pcan: a checkpoint of its pose path, trained alone (pcan-pose); init is then one of its RGB path "
        "(pcan-rgb).",
    )
    init: Literal["imagenet"] | Location | None = Field(
        None,
        description="Initial weights: a checkpoint directory, a file of published weights (.pth), or `imagenet`, which "
        "downloads torchvision's ResNet-50. Default: random.",
    )
    features: Location | None = Field(
        None,
        description="Of detectors whose backbone is frozen: folder for its features of the videos, which several runs may share. "
        "Default: in the run's folder.",
    )
    seed: int = Field(0, description="Seed of everything random.")

    @model_validator(mode="before")
    @classmethod
    def _from_recipe(cls, values: Any) -> Any:
        """Fill in what the network's recipe says and the user does not."""
        if not isinstance(values, dict):
            return values
        try:
            model = parse_model_config(values.get("model", {}))
            if values.get("task") == "detection" and model.family != DETECTOR:
                model = parse_model_config({"family": DETECTOR, "backbone": model})
        except ValueError:
            return values  # the field's own validation reports it
        given = values.get("recipe", {})
        given = {"name": given} if isinstance(given, str) else given
        changes: dict[str, Any] = {}
        if model.family == DETECTOR:
            changes = {"model": model.model_dump(mode="json"), "task": "detection"}
        if isinstance(given, dict):
            recipe = recipe_of(model, given.get("name", "default"))
            changes["recipe"] = {**recipe.recipe, **given}
            preprocessing = values.get("preprocessing", {})
            if isinstance(preprocessing, dict):
                usual = statistics_of(model)
                if {"short_side", "crop"} & preprocessing.keys():
                    usual.pop("test_side", None)  # it belongs to the usual sizes
                changes["preprocessing"] = {**usual, **recipe.preprocessing, **preprocessing}
        return values | changes

    @model_validator(mode="after")
    def _fits(self) -> "TrainSettings":
        self._check_task()
        self._check_skeletons()
        side = getattr(self.model, "side", self.preprocessing.crop)
        if side != self.preprocessing.crop:
            raise ValueError(
                f"preprocessing.crop ({self.preprocessing.crop}) must be model.side ({side}), which the network is bound to"
            )
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

    @property
    def needs_skeletons(self) -> bool:
        """Whether the network needs the clips' skeletons."""
        return self.model.num_pose_frames > 0 or self.preprocessing.fit == "people"

    def _check_task(self) -> None:
        if self.task != family_of(self.model).task:
            raise ValueError(f"task ({self.task}) is not what {self.model.family} is for: leave it out")
        if self.task == "recognition":
            if self.recipe.freeze_backbone or self.recipe.freeze_first_layer or self.features is not None:
                raise ValueError(
                    "recipe.freeze_backbone, recipe.freeze_first_layer and features are for task=detection: leave them out"
                )
            return
        if self.people == "auto":
            raise ValueError("people: detectors are trained on videos of one person: pack them with people=auto before")
        if self.preprocessing.views != 1 or self.preprocessing.fit == "people":
            raise ValueError(
                "preprocessing: detectors see each frame once, and no skeletons: leave out views and fit=people"
            )
        if self.features is not None and not self.recipe.freeze_backbone:
            raise ValueError("features: a backbone that learns has none to share; leave it out")
        if self.recipe.batch_norm != "frozen":
            raise ValueError(
                "recipe.batch_norm must be frozen for detectors, whose clips differ in length: leave it out"
            )

    def _check_skeletons(self) -> None:
        given = {"train": (self.train_list, self.train_skeletons), "val": (self.val_list, self.val_skeletons)}
        for name, (clips_list, skeletons) in given.items():
            if self.needs_skeletons and clips_list is not None and skeletons is None:
                raise ValueError(
                    f"the network sees the skeletons of people: give {name}_skeletons, a table that `microaction skeletons "
                    "import` makes"
                )
            if skeletons is not None and not self.needs_skeletons:
                raise ValueError(
                    f"{name}_skeletons is given, but {self.model.family} does not see skeletons: leave it out"
                )
        if self.people == "auto" and self.needs_skeletons:
            raise ValueError(
                f"people: {self.model.family} sees the square around the people of its skeletons: leave it out"
            )
        if self.needs_skeletons and (self.recipe.part_shift or self.recipe.part_scale):
            raise ValueError(
                f"recipe.part_shift and recipe.part_scale: {self.model.family} sees the square around the people of its "
                "skeletons: leave them out"
            )
        num_keypoints = getattr(self.model, "num_keypoints", NUM_KEYPOINTS)
        if num_keypoints != NUM_KEYPOINTS:
            raise ValueError(f"model.num_keypoints ({num_keypoints}) must be {NUM_KEYPOINTS}, those of a skeleton")
        if family_of(self.model).batch_loss is not None:
            if self.recipe.micro_batch_size is not None:
                raise ValueError(
                    f"recipe.micro_batch_size: the loss of {self.model.family} depends on the whole batch: leave it out, or "
                    "make recipe.batch_size smaller"
                )
            if self.recipe.label_smoothing:
                raise ValueError(f"recipe.label_smoothing: the loss of {self.model.family} has none: leave it out")
        if self.init_pose is not None and (self.model.family != "pcan" or self.init is None):
            raise ValueError("init_pose belongs to pcan, and to init with its RGB path: give both or none")
