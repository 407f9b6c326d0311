"""Settings of `microaction label` and `microaction catalog`."""

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
from pydantic_settings import CliPositionalArg

from microaction.distributed.settings import ClusterSettings
from microaction.settings import MODEL_HELP, CommandSettings, Location, ModelLocation, absolute_location

DEFAULT_CONTINUE_FACTOR = 0.7


def _people_choice(value: str) -> str:
    return value if value in ("auto", "off") else absolute_location(value)


PeopleChoice = Annotated[str, AfterValidator(_people_choice)]
"""`auto`, `off`, or the path or URI of a list of people. (A file of such a name is `./auto`.)"""


class CatalogSettings(CommandSettings):
    """List an archive and read the header of every video: one Parquet row per video, readable or not."""

    archive: CliPositionalArg[Location] = Field(description="Folder of the videos; a path or URI.")
    out: CliPositionalArg[Location] = Field(description="Parquet file to write; a path or URI.")


class PeopleSettings(ClusterSettings):
    """Find the people in an archive's videos: people.parquet, which `label --people` takes, and a contact sheet to check it."""

    archive: CliPositionalArg[Location] = Field(description="Folder of the videos; a path or URI.")
    out: CliPositionalArg[Location] = Field(description="Folder for the results; a path or URI.")
    model: ModelLocation = Field(
        description=f"The model that will label: people are cropped as it needs it. {MODEL_HELP}"
    )
    catalog: Location | None = Field(
        None, description="Catalog of the archive, as `microaction catalog` writes it. Default: made at the start."
    )
    people: Location | None = Field(
        None,
        description="Show this list of people in the contact sheet, such as an edited people.parquet. OUT/people.parquet stays "
        "as it is.",
    )
    overwrite: bool = Field(False, description="Replace OUT/people.parquet even if it was edited since it was written.")
    retry_failed: bool = Field(
        False, description="Retry videos, and parts of them, that an earlier run recorded as failed."
    )
    decode_timeout_s: PositiveFloat = Field(
        600.0, description="Time limit in seconds for decoding what is looked at in 10 minutes of video."
    )
    decode_memory_gib: PositiveFloat = Field(4.0, description="Memory limit in GiB for decoding it.")


class VideoLabelSettings(BaseModel):
    """How one video is labeled: the part of the settings that `microaction.label_video` has too."""

    model_config = ConfigDict(extra="forbid")

    window_s: PositiveFloat = Field(2.0, description="Length of a window in seconds.")
    stride_s: PositiveFloat = Field(1.0, description="Windows start at multiples of this, in seconds.")
    chunk_s: PositiveFloat = Field(120.0, description="Seconds of video per unit of work.")
    start_threshold: float = Field(
        0.5, ge=0, le=1, description="An event starts in a window whose action has at least this probability."
    )
    continue_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="It continues while windows have at least this probability. Default: 0.7 × start_threshold.",
    )
    max_gap_s: float = Field(
        0.0, ge=0, description="Two events of an action at most this many seconds apart are merged."
    )
    min_event_s: float = Field(0.0, ge=0, description="Shorter events, in seconds, are left out.")
    min_score: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Of detectors: a detection of at least this calibrated score is an event. Default: each action's working "
        "threshold, which the checkpoint has.",
    )
    abstain_below: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Windows whose most likely action is less probable than this are marked `abstained`.",
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="`auto`: bf16 where the hardware has it. A resumed run keeps its precision."
    )
    batch_windows: PositiveInt | None = Field(
        None, description="Windows per forward pass. Default: 64 on a GPU, 8 on a CPU."
    )
    people: PeopleChoice = Field(
        "auto",
        description="`auto`: find the people in each video, follow them and label each; `off`: label the whole frame; or a list "
        "of people, as `microaction people` writes it. Networks that see skeletons and videos with a region have no need of it.",
    )
    skeletons: Location | None = Field(
        None,
        description="Table of the skeletons of the archive's videos, for networks that see them, such as pcan; it names videos "
        "relative to the archive.",
    )
    decode_timeout_s: PositiveFloat = Field(
        600.0, description="Time limit in seconds for decoding a whole chunk; shorter chunks have less."
    )
    decode_memory_gib: PositiveFloat = Field(4.0, description="Memory limit in GiB for decoding a chunk.")

    @property
    def effective_continue_threshold(self) -> float:
        """`continue_threshold`, or its default."""
        if self.continue_threshold is None:
            return DEFAULT_CONTINUE_FACTOR * self.start_threshold
        return self.continue_threshold

    @model_validator(mode="after")
    def _thresholds_fit(self) -> "VideoLabelSettings":
        if self.effective_continue_threshold > self.start_threshold:
            raise ValueError(
                f"continue_threshold ({self.continue_threshold}) must be at most start_threshold ({self.start_threshold})"
            )
        return self

    @model_validator(mode="after")
    def _spans_fit(self) -> "VideoLabelSettings":
        if self.stride_s > self.window_s:
            raise ValueError(
                f"stride_s ({self.stride_s}) must be at most window_s ({self.window_s}), or video between windows would "
                f"stay unlabeled; for windows that do not overlap pass stride_s={self.window_s}"
            )
        if self.chunk_s < self.stride_s:
            raise ValueError(f"chunk_s ({self.chunk_s}) must be at least stride_s ({self.stride_s})")
        return self


class LabelSettings(ClusterSettings, VideoLabelSettings):
    """Label every video of an archive and publish windows/, events/, people/, videos/ and failures/ as Parquet."""

    archive: CliPositionalArg[Location] = Field(description="Folder of the videos; a path or URI.")
    out: CliPositionalArg[Location] = Field(description="Folder for the results; a path or URI.")
    model: ModelLocation = Field(description=MODEL_HELP)
    catalog: Location | None = Field(
        None, description="Catalog of the archive, as `microaction catalog` writes it. Default: made at the start."
    )
    compile: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="Compile the network, a minute or more per labeler. `auto`: where there is enough to label.",
    )
    min_labelers: PositiveInt = Field(1, description="Minimum processes that hold the network.")
    max_labelers: PositiveInt | None = Field(
        None, description="Maximum of them. Default: one per GPU, or without GPUs one per 8 CPUs."
    )
    relabel: Literal["all", "uncertain", "events"] = Field(
        "all",
        description="`uncertain`: reuse the windows that base_run is sure of, and label only the others. `events`: make the "
        "tables anew from what OUT holds, with other thresholds, or another detector of the same features; reads no video.",
    )
    base_run: Location | None = Field(
        None, description="Output of the run to reuse windows of; it must have the same window_s, stride_s and chunk_s."
    )
    relabel_below: float = Field(
        0.0,
        ge=0,
        le=1,
        description="With relabel=uncertain: also label windows again whose probability is below this.",
    )
    retry_failed: bool = Field(False, description="Retry chunks and videos that an earlier run recorded as failed.")
    max_failed: NonNegativeInt | None = Field(
        None, description="More rows in failures/ than this end the command with exit code 3. Default: no limit."
    )
    page: bool = Field(
        False, description="At the end, write pages that show the labels, as `microaction page OUT` does."
    )
    plan: bool = Field(False, description="Report what there is to do and about what it takes, and do none of it.")

    @model_validator(mode="after")
    def _labelers_fit(self) -> "LabelSettings":
        if self.max_labelers is not None and self.max_labelers < self.min_labelers:
            raise ValueError(f"max_labelers ({self.max_labelers}) must be at least min_labelers ({self.min_labelers})")
        return self

    @model_validator(mode="after")
    def _base_run_fits(self) -> "LabelSettings":
        if self.page and self.plan:
            raise ValueError("plan labels nothing that a page could show: leave out page")
        if self.relabel == "events" and (self.retry_failed or self.plan or self.catalog is not None):
            raise ValueError("relabel=events uses what OUT holds: leave out retry_failed, plan and catalog")
        if (self.relabel == "uncertain") != (self.base_run is not None):
            raise ValueError(
                "relabel=uncertain and base_run, the output of the run to reuse windows of, belong together"
            )
        if self.base_run == self.out:
            raise ValueError(f"base_run and out are both {self.out}; a run with another model needs its own folder")
        return self
