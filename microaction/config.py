"""All settings, validated: what a model is, how pixels reach it, and one settings model for each job.

A job's settings model is at once its flags, its YAML file and the record that its output keeps.
"""

import hashlib
import json
import os
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic_settings import BaseSettings, CliPositionalArg, CliSubCommand, SettingsConfigDict

from microaction import storage

# ImageNet statistics of RGB on 0..255; the reference normalises with them.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

SUBMITTED_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray in the driver of a submitted job


def _location(value: str) -> str:
    location = storage.absolute(value)
    if location != value.removeprefix("file://").rstrip("/") and SUBMITTED_JOB_VARIABLE in os.environ:
        raise ValueError(
            f"{value!r} is a relative path, and a submitted job runs in a copy of the working directory that is thrown "
            "away; give an absolute path that every node sees, or a URI"
        )
    return location


Location = Annotated[str, AfterValidator(_location)]
"""A path or URI; made absolute, so that the driver and the workers mean the same."""


def _zip(location: str) -> str:
    if not location.endswith(".zip"):
        raise ValueError(f"{location!r} must be a file whose name ends in .zip")
    return location


class ModelConfig(BaseModel):
    """The shape of a MANet; the defaults are the paper's network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_classes: PositiveInt = 52
    num_segments: PositiveInt = Field(8, description="frames of a clip that the network sees")
    embedding_dim: PositiveInt | None = Field(300, description="follows the label embeddings; null: no such branch")
    width: PositiveInt = Field(64, description="channels of the stem; 64 is ResNet-50, smaller is a small variant")
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = Field(
        (3, 4, 6, 3), description="blocks of the four stages"
    )
    se: bool = Field(True, description="squeeze-and-excitation")
    shift: bool = Field(True, description="temporal shift")
    dropout: float = Field(0.5, ge=0, lt=1)


class Preprocessing(BaseModel):
    """From a decoded frame to the network's input; part of every checkpoint, never retyped by callers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    short_side: PositiveInt = Field(256, description="frames are resized to this short side, in pixels")
    crop: PositiveInt = Field(224, description="side of the square that the network sees, in pixels")
    fit: Literal["crop", "pad"] = Field(
        "crop",
        description="crop: the middle of the frame, as the reference; pad: the whole frame, filled up to a square",
    )
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @model_validator(mode="after")
    def _crop_fits(self) -> "Preprocessing":
        if self.crop > self.short_side:
            raise ValueError(f"crop ({self.crop}) must be at most short_side ({self.short_side})")
        return self


class JobSettings(BaseSettings):
    """What every job has."""

    model_config = SettingsConfigDict(
        extra="forbid", cli_kebab_case=True, cli_implicit_flags=True, env_prefix="MICROACTION_", cli_hide_none_type=True
    )

    config: str | None = Field(None, description="YAML file with any of these settings; flags go before it")


class ClusterSettings(JobSettings):
    """What a job may count on where machines come when they are asked for."""

    gpus: NonNegativeInt | None = Field(
        None, description="GPUs that an autoscaling cluster can have; default: as many as are there at the start"
    )
    cpus: PositiveInt | None = Field(
        None, description="CPUs that an autoscaling cluster can have; default: as many as are there at the start"
    )
    machines_wait_s: PositiveFloat = Field(
        1800.0, description="how long to wait for the first machines of a cluster that has none"
    )


class CatalogSettings(JobSettings):
    """Lists an archive and reads the head of every video: one Parquet row per video, readable or not."""

    archive: CliPositionalArg[Location] = Field(description="path or URI of the folder that holds the videos")
    out: CliPositionalArg[Location] = Field(description="path or URI of the Parquet file to write")


class LabelSettings(ClusterSettings):
    """Labels every video of an archive and publishes windows/, events/, videos/ and failures/ as Parquet."""

    archive: CliPositionalArg[Location] = Field(description="path or URI of the folder that holds the videos")
    out: CliPositionalArg[Location] = Field(description="path or URI of the folder for the results")
    model: Location = Field(
        description="path or URI of a checkpoint directory, or ROOT@VERSION or ROOT@production of a registry"
    )
    catalog: Location | None = Field(
        None, description="the archive's catalog, as `jobs.catalog` writes it; default: made at the start"
    )
    window_s: PositiveFloat = Field(2.0, description="length of a window, in seconds")
    stride_s: PositiveFloat = Field(1.0, description="windows start at multiples of this, in seconds")
    chunk_s: PositiveFloat = Field(120.0, description="video per unit of work, in seconds")
    min_probability: float = Field(
        0.5, ge=0, le=1, description="an event begins in a window whose action has at least this probability"
    )
    keep_probability: float | None = Field(
        None, ge=0, le=1, description="and lasts as long as windows have at least this; default: 0.7 × min_probability"
    )
    max_gap_s: float = Field(
        0.0, ge=0, description="two events of an action that are at most so far apart are one, in seconds"
    )
    min_event_s: float = Field(0.0, ge=0, description="shorter events are left out, in seconds")
    abstain_below: float = Field(
        0.5, ge=0, le=1, description="windows whose likeliest action has less than this are marked as abstained"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 where the hardware has it; a run that is gone on with keeps what it began with"
    )
    compile: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="auto: compiles the network, a minute or more per labeler, where there is enough to do for it",
    )
    batch_windows: PositiveInt | None = Field(
        None, description="windows per forward pass; default: 64 on a GPU, 8 on a CPU"
    )
    min_labelers: PositiveInt = Field(1, description="processes that hold the model, at least")
    max_labelers: PositiveInt | None = Field(
        None, description="and at most; default: one for each GPU, or on CPUs one for every 8 of them"
    )
    relabel: Literal["all", "uncertain"] = Field(
        "all", description="uncertain: keep what the run in `earlier` is sure of, and label only the rest"
    )
    earlier: Location | None = Field(
        None, description="the output of the run to keep windows of; the same window_s, stride_s and chunk_s"
    )
    relabel_below: float = Field(
        0.0, ge=0, le=1, description="uncertain are windows on which it abstained, and those below this probability"
    )
    retry_failed: bool = Field(False, description="take chunks again that an earlier run recorded as failed")
    decode_timeout_s: PositiveFloat = Field(
        600.0, description="a whole chunk that takes longer to decode is a failure; shorter ones have less"
    )
    decode_memory_gib: PositiveFloat = Field(4.0, description="a chunk that takes more memory to decode is a failure")
    max_failed: NonNegativeInt | None = Field(
        None,
        description="more spans in failures/ than this make the job end with exit code 3; default: any number will do",
    )
    plan: bool = Field(False, description="say what is to do and what it takes, and do none of it")

    @property
    def kept_probability(self) -> float:
        """`keep_probability`, or its default."""
        return 0.7 * self.min_probability if self.keep_probability is None else self.keep_probability

    @model_validator(mode="after")
    def _thresholds_fit(self) -> "LabelSettings":
        if self.kept_probability > self.min_probability:
            raise ValueError(
                f"keep_probability ({self.keep_probability}) must be at most min_probability ({self.min_probability})"
            )
        if self.max_labelers is not None and self.max_labelers < self.min_labelers:
            raise ValueError(f"max_labelers ({self.max_labelers}) must be at least min_labelers ({self.min_labelers})")
        return self

    @model_validator(mode="after")
    def _earlier_fits(self) -> "LabelSettings":
        if (self.relabel == "uncertain") != (self.earlier is not None):
            raise ValueError("relabel='uncertain' and earlier, the output of the run to keep windows of, go together")
        if self.earlier == self.out:
            raise ValueError(f"earlier and out are both {self.out}; a run with another model needs a folder of its own")
        return self

    @model_validator(mode="after")
    def _spans_fit(self) -> "LabelSettings":
        if self.stride_s > self.window_s:
            raise ValueError(
                f"stride_s ({self.stride_s}) must be at most window_s ({self.window_s}), or video between windows would "
                f"stay unlabelled; for windows that do not overlap pass stride_s={self.window_s}"
            )
        if self.chunk_s < self.stride_s:
            raise ValueError(f"chunk_s ({self.chunk_s}) must be at least stride_s ({self.stride_s})")
        return self


class RecipeConfig(BaseModel):
    """How a model is trained; the defaults are the reference's recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: PositiveInt = 80
    batch_size: PositiveInt = Field(10, description="clips per step over all workers")
    learning_rate: PositiveFloat = Field(0.00125, description="for batches of 10; scaled linearly with batch_size")
    schedule: Literal["step", "cosine"] = Field(
        "step", description="step: ×0.1 after 3/8 and 6/8 of the epochs (30 and 60 of 80); cosine: down to zero"
    )
    warmup_epochs: float = Field(0.0, ge=0, description="epochs of linear increase from zero")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: convolutions and products in bfloat16, weights and loss in float32"
    )
    compile: bool = Field(
        False, description="compiles the network at the first step, a minute or more, which makes every step shorter"
    )
    micro_batch_size: PositiveInt | None = Field(
        None,
        description="clips per forward pass of a process; gradients of a step's passes add up; default: all at once",
    )
    batch_norm: Literal["local", "sync", "frozen"] = Field(
        "sync",
        description="statistics of each process's own clips; of all processes'; or those that the model begins with",
    )
    clip_gradient_norm: PositiveFloat = Field(20.0, description="L2 norm of all gradients together")
    embedding_loss_weight: float = Field(50.0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="probability shared out over all classes in the target")
    class_balance: float = Field(
        0.0, ge=0, le=1, description="0: every clip once an epoch; 1: every class as often; between: between"
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="measures and saves an average of the weights, which forgets so much a step"
    )
    crop_scales: tuple[PositiveFloat, ...] = Field(
        (1.0, 0.875, 0.75, 0.66), min_length=1, description="sides of the random crops, as parts of the short side"
    )


class TrainSettings(ClusterSettings):
    """Trains a model on labelled clips (MA-52's list format) and writes a checkpoint directory."""

    train_list: Location = Field(description="list file, a line 'name.mp4 label' per clip")
    train_videos: Location = Field(description="folder that holds the clips of train_list")
    val_list: Location | None = Field(None, description="list file of the clips to measure on after each epoch")
    val_videos: Location | None = Field(None, description="folder that holds the clips of val_list")
    split_by: Literal["list", "subject"] = Field(
        "list",
        description="list: as the two lists say; subject: the clips of both lists together are split anew, so that nobody "
        "is on both sides",
    )
    val_share: float = Field(0.2, gt=0, lt=1, description="with split_by subject: clips to measure on, of all")
    storage_path: Location = Field(description="folder for runs; shared by all nodes, or a URI")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="the run's name; the same name again resumes it"
    )
    model: ModelConfig = ModelConfig()
    preprocessing: Preprocessing = Preprocessing()
    recipe: RecipeConfig = RecipeConfig()
    label_embeddings: Location | None = Field(
        None, description="word-vector text file (word2vec, GloVe, fastText; .gz too); default: the shipped table"
    )
    init: Literal["imagenet"] | Location | None = Field(
        None,
        description="weights to begin with: a checkpoint directory, the authors' published .pth, a torchvision ResNet-50 "
        ".pth, or imagenet, which downloads the last; default: random",
    )
    num_workers: PositiveInt = Field(1, description="training processes, one GPU each where there are GPUs")
    min_workers: PositiveInt | None = Field(
        None, description="go on with as few of them when machines go; default: wait for all"
    )
    max_failures: int = Field(3, ge=0, description="how often a failed worker group is started again")
    checkpoint_interval_s: PositiveFloat = Field(
        300.0, description="training goes on from its last saved step, which is at most about so long ago"
    )
    max_unreadable_share: float = Field(
        0.01, ge=0, le=1, description="clips that cannot be read are left out and listed; more than this ends the run"
    )
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> "TrainSettings":
        if (self.val_list is None) != (self.val_videos is None):
            raise ValueError("val_list and val_videos belong together: give both or none")
        if self.val_list is None and self.split_by == "list":
            raise ValueError("give val_list and val_videos, or split_by=subject to hold people of train_list back")
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(f"min_workers ({self.min_workers}) must be at most num_workers ({self.num_workers})")
        if self.gpus and self.gpus < self.num_workers:
            raise ValueError(f"gpus ({self.gpus}) must be at least num_workers ({self.num_workers}): each has its own")
        if self.recipe.batch_size < self.num_workers:
            raise ValueError(
                f"recipe.batch_size ({self.recipe.batch_size}) must be at least num_workers ({self.num_workers}), so that "
                "every worker has a clip of every batch"
            )
        return self


class PackSettings(JobSettings):
    """Encodes labelled clips once more, small and every frame by itself: training then decodes only the frames it needs."""

    clips_list: Location = Field(description="list file, a line 'name.mp4 label' per clip")
    videos: Location = Field(description="folder that holds the clips")
    out: Location = Field(
        description="folder for videos/, list.txt, list.parquet (with subjects) and manifest.parquet; the same again goes on"
    )
    short_side: PositiveInt = Field(
        256, description="of the proxies, in pixels; at least that of the training's frames"
    )


class EvaluateSettings(ClusterSettings):
    """Measures a checkpoint on labelled clips: top-1, top-5, F1 per body part and action, confusion matrix."""

    model: Location = Field(
        description="path or URI of a checkpoint directory, or ROOT@VERSION or ROOT@production of a registry"
    )
    clips_list: Location = Field(description="list file, a line 'name.mp4 label' per clip")
    videos: Location = Field(description="folder that holds the clips")
    out: Location = Field(description="folder for metrics.json, per_class.csv, predictions.parquet and pictures")
    batch_size: PositiveInt = Field(16, description="clips per forward pass")
    max_unreadable_share: float = Field(
        0.0, ge=0, le=1, description="clips that cannot be read are left out and listed; more than this ends the job"
    )
    submission: Annotated[Location, AfterValidator(_zip)] | None = Field(
        None, description="also writes the challenge's zip of predictions there, in the list's order"
    )


class GatesConfig(BaseModel):
    """What a candidate must keep to replace the model in production, both measured on the same held-out clips."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    f1_mean_margin: float = Field(
        0.0, description="its F1 mean, over the actions that the clips show, must be at least production's plus this"
    )
    class_f1_margin: float = Field(
        0.1, ge=0, description="no action with enough clips may have an F1 that is lower than production's by more"
    )
    min_support: PositiveInt = Field(20, description="held-out clips of an action that are enough for that")
    min_held_out: PositiveInt = Field(50, description="held-out clips; with fewer nothing is promoted")
    calibration_margin: float = Field(
        0.02, ge=0, description="its calibration error may be higher than production's by at most this"
    )
    golden_margin: float = Field(
        0.05,
        ge=0,
        description="probabilities of the golden input, as labelling runs the network, may differ by at most this",
    )


class RetrainSettings(ClusterSettings):
    """Trains on new labels, holds the result against the model in production, and promotes it if it is no worse."""

    registry: CliPositionalArg[Location] = Field(description="path or URI of the registry")
    dataset: Location = Field(description="folder with list.parquet or list.txt, and videos/, as `jobs.pack` writes it")
    labels: Location | None = Field(
        None,
        description="folder with lists of newer labels, and their clips in videos/; a clip that is listed already is "
        "corrected, the later list by name counts",
    )
    work: Location = Field(description="folder for training runs and decisions; shared by all nodes, or a URI")
    min_new: PositiveInt = Field(100, description="new and corrected clips since production; fewer end the job at once")
    start: Literal["production", "scratch"] = Field("production", description="weights to begin with")
    held_out_share: float = Field(
        0.2, gt=0, lt=1, description="of people whom production does not know, held out to judge on, for ever"
    )
    val_share: float = Field(0.1, gt=0, lt=1, description="of the other clips, to choose the best epoch by")
    gates: GatesConfig = GatesConfig()
    recipe: RecipeConfig = RecipeConfig()
    label_embeddings: Location | None = Field(
        None, description="as production was trained with; default: the shipped table"
    )
    num_workers: PositiveInt = Field(1, description="training processes, one GPU each where there are GPUs")
    min_workers: PositiveInt | None = Field(
        None, description="go on with as few of them when machines go; default: wait for all"
    )
    max_failures: int = Field(3, ge=0, description="how often a failed worker group is started again")
    checkpoint_interval_s: PositiveFloat = Field(
        300.0, description="training goes on from its last saved step, which is at most about so long ago"
    )
    max_unreadable_share: float = Field(
        0.01, ge=0, le=1, description="clips that cannot be read are left out; more than this ends the job"
    )
    seed: int = 0


Registry = Annotated[Location, Field(description="path or URI of the registry")]


class ListVersions(BaseModel):
    """All versions, and the history of production."""

    root: CliPositionalArg[Registry]


class ShowVersion(BaseModel):
    """Prints what a version is, as JSON."""

    root: CliPositionalArg[Registry]
    version: CliPositionalArg[str] = Field(description="its name, or production")


class AddVersion(BaseModel):
    """Adds a checkpoint; the same one again changes nothing."""

    root: CliPositionalArg[Registry]
    checkpoint: CliPositionalArg[Location] = Field(description="the folder best/ of a training run")
    name: str | None = Field(None, description="of the new version; default: the beginning of its digest")


class PromoteVersion(BaseModel):
    """Puts a version into production."""

    root: CliPositionalArg[Registry]
    version: CliPositionalArg[str]
    reason: str = Field("by hand", description="kept in the history")


class RollBack(BaseModel):
    """Puts the version back into production that was there before."""

    root: CliPositionalArg[Registry]
    reason: str = Field("by hand", description="kept in the history")


class RegistrySettings(JobSettings):
    """Keeps models as versions that never change, and says which one is in production: --model ROOT@production."""

    list: CliSubCommand[ListVersions] = Field(description="all versions, and the history of production")
    show: CliSubCommand[ShowVersion] = Field(description="what a version is, as JSON")
    add: CliSubCommand[AddVersion] = Field(description="adds a checkpoint as a version")
    promote: CliSubCommand[PromoteVersion] = Field(description="puts a version into production")
    rollback: CliSubCommand[RollBack] = Field(description="puts the version before back into production")


class DemoSettings(JobSettings):
    """The whole story on one machine: draws clips, trains, evaluates, labels interviews, compares with the truth."""

    out: Location = Field("demo", description="folder for clips/, model/, evaluation/, interviews/ and labels/")
    num_train_clips: PositiveInt = Field(2600, description="a multiple of 52 gives every action as many")
    num_val_clips: PositiveInt = 312
    epochs: PositiveInt = 7
    num_interviews: PositiveInt = 4
    interview_s: PositiveFloat = Field(90.0, description="length of each interview, in seconds")
    seed: int = 0


def digest_of(settings: BaseModel, include: set[str], **more: object) -> str:
    """Hexadecimal SHA-256 of the named settings, and of whatever else can be JSON: equal exactly when all of them are."""
    content = settings.model_dump(mode="json", include=include) | more
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
