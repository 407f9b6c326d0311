"""Settings of `microaction export` and `microaction page`."""

from typing import Literal

from pydantic import Field, PositiveFloat, model_validator
from pydantic_settings import CliPositionalArg

from microaction.settings import CommandSettings, Location


class ExportSettings(CommandSettings):
    """Write labels for ELAN, BORIS, Excel and other programs. Files of the same names in DEST are replaced."""

    out: CliPositionalArg[Location] = Field(
        description="Folder of the labels, as `microaction label` writes it; a path or URI."
    )
    dest: CliPositionalArg[Location] = Field(description="Folder for the exported files; a path or URI.")
    format: Literal["elan", "boris", "csv", "xlsx", "webvtt", "fiftyone", "mma52"] = Field(
        description="`elan`: an annotation file for each video; `boris`: a project, and tables of events; `csv` and `xlsx`: "
        "tables of events, of what each person does, and of what has no labels; `webvtt`: captions for each video; "
        "`fiftyone`: a dataset of temporal detections; `mma52`: annotations as MMA-52 has them, and a submission of its "
        "challenge."
    )
    video: tuple[str, ...] = Field(
        (),
        description="Export this video alone: its path in the archive, its location, or a pattern such as `*_L.mp4`. May be "
        "repeated.",
    )
    person: tuple[str, ...] = Field(
        (), description="Export this person alone: a number or a name, in every video. May be repeated."
    )
    min_score: float = Field(0.0, ge=0, le=1, description="Leave out events whose probability is lower.")
    decimal: Literal["point", "comma"] = Field(
        "point",
        description="Of `csv`: `comma` writes numbers with a decimal comma, and semicolons between cells, for Excel with German, "
        "French and most other European settings, and for R's `read.csv2`.",
    )

    @model_validator(mode="after")
    def _decimal_fits(self) -> "ExportSettings":
        if self.decimal == "comma" and self.format != "csv":
            raise ValueError(f"decimal=comma is for format=csv; {self.format} files have a form of their own")
        return self


class PageSettings(CommandSettings):
    """Write pages into OUT/report that show an archive and its videos with their labels. They open from disk or a bucket."""

    out: CliPositionalArg[Location] = Field(
        description="Folder of the labels, as `microaction label` writes it; a path or URI."
    )
    copy_videos: bool = Field(
        False, description="Copy the videos beside the pages. Default: pages play them where they are."
    )
    link_hours: PositiveFloat = Field(
        24.0,
        le=168,
        description="Hours for which pages can play videos in S3. Until then anybody who has a page can use its links.",
    )
