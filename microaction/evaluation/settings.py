"""Settings of `microaction evaluate` and `microaction import`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt, model_validator
from pydantic_settings import CliPositionalArg

from microaction.clips.settings import PeopleRule
from microaction.distributed.settings import ClusterSettings
from microaction.settings import MODEL_HELP, Location, ModelLocation


def _zip(location: str) -> str:
    if not location.endswith(".zip"):
        raise ValueError(f"{location!r} must be a file whose name ends in .zip")
    return location


class EvaluateSettings(ClusterSettings):
    """Measure a checkpoint on labeled clips: top-1, top-5, F1 per body part and action, calibration, confusion matrix. With
    --task detection, measure detections in untrimmed videos: mean average precision, events, calibration."""

    task: Literal["recognition", "detection"] = Field(
        "recognition",
        description="`recognition`: which action each clip shows. `detection`: which actions each untrimmed video shows, and "
        "when, as on MMA-52.",
    )
    model: ModelLocation | None = Field(None, description=f"{MODEL_HELP} Required, unless `detections` are given.")
    detections: Location | None = Field(
        None,
        description="With task=detection: table of detections to measure instead of running a model, a Parquet file or a folder "
        "of them with video, start_s, end_s, action_id or action, and score; or `events/` of `microaction label`.",
    )
    clips_list: Location = Field(
        description="List file with a line 'name.mp4 label' per clip, a Parquet list, or a list of spans of videos, which "
        "task=detection needs: MMA-52's CSV file, or a Parquet table with video, start_s, end_s and action."
    )
    videos: Location = Field(description="Folder of the clips or videos.")
    skeletons: Location | None = Field(
        None, description="Table of the clips' skeletons, for networks that see them, such as pcan."
    )
    people: PeopleRule = Field(
        "off",
        description="`auto`: clips in which several people are seen are cut to one of them, as in `microaction train`. `off`: "
        "whole frames, or the regions of the list.",
    )
    out: Location = Field(
        description="Folder for metrics.json, per_class.csv, predictions.parquet (or detections.parquet) and plots."
    )
    batch_size: PositiveInt = Field(16, description="Clips per forward pass.")
    max_unreadable_fraction: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Clips that cannot be read are left out and listed; a larger fraction than this ends the command.",
    )
    submission: Annotated[Location, AfterValidator(_zip)] | None = Field(
        None, description="Also write the challenge's zip of predictions to this file, in the order of the list."
    )

    @model_validator(mode="after")
    def _fits(self) -> "EvaluateSettings":
        if self.task == "recognition":
            if self.detections is not None:
                raise ValueError("detections are measured with task=detection")
            if self.model is None:
                raise ValueError("model is required: the checkpoint to measure")
            return self
        if (self.model is None) == (self.detections is None):
            raise ValueError("task=detection measures either a model or a table of detections: give one of them")
        if self.people != "off" or self.skeletons is not None:
            raise ValueError("people and skeletons do not apply to task=detection")
        return self


class ImportSettings(ClusterSettings):
    """Make a checkpoint directory of a file of published weights, calibrated where labeled clips are given."""

    file: CliPositionalArg[Location] = Field(description="File of published weights (.pth); a path or URI.")
    out: CliPositionalArg[Location] = Field(description="Checkpoint directory to write; a path or URI.")
    calibrate_list: Location | None = Field(
        None,
        description="List file of clips to calibrate on. They must be clips that the weights were not trained on.",
    )
    calibrate_videos: Location | None = Field(None, description="Folder of the clips in calibrate_list.")
    calibrate_skeletons: Location | None = Field(
        None, description="Table of the skeletons of the clips in calibrate_list, for networks that see them."
    )
    batch_size: PositiveInt = Field(16, description="Clips per forward pass.")
    max_unreadable_fraction: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Clips that cannot be read are left out; a larger fraction than this ends the command.",
    )

    @model_validator(mode="after")
    def _fits(self) -> "ImportSettings":
        if (self.calibrate_list is None) != (self.calibrate_videos is None):
            raise ValueError("calibrate_list and calibrate_videos belong together: give both or none")
        return self
