"""Settings of `microaction skeletons`."""

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import CliPositionalArg, CliSubCommand

from microaction.settings import CommandSettings, Location


class ImportSkeletons(BaseModel):
    """Make a table of skeletons of a published pickle, which is read without running code."""

    model_config = ConfigDict(extra="forbid")

    file: CliPositionalArg[Location] = Field(description="Published pickle, such as MA52_train.pkl; a path or URI.")
    out: CliPositionalArg[Location] = Field(description="Parquet table to write; a path or URI.")


class SkeletonsSettings(CommandSettings):
    """Skeletons of the people in clips, which PCAN sees beside the frames."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    import_: CliSubCommand[ImportSkeletons] = Field(
        alias="import", description="Make a table of skeletons of a published pickle."
    )
