"""Settings of `microaction registry`."""

from typing import Annotated

from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg, CliSubCommand

from microaction.settings import CommandSettings, Location

Registry = Annotated[Location, Field(description="Path or URI of the registry.")]


class ListVersions(BaseModel):
    """Show all versions and the history of production."""

    root: CliPositionalArg[Registry]


class ShowVersion(BaseModel):
    """Print the description of a version as JSON."""

    root: CliPositionalArg[Registry]
    version: CliPositionalArg[str] = Field(description="Name of the version, or `production`.")


class AddVersion(BaseModel):
    """Add a checkpoint as a version; adding the same one again changes nothing."""

    root: CliPositionalArg[Registry]
    checkpoint: CliPositionalArg[Location] = Field(
        description="Folder best/ of a training run, another checkpoint directory, or a file of published weights."
    )
    name: str | None = Field(None, description="Name of the new version. Default: the beginning of its digest.")


class PromoteVersion(BaseModel):
    """Put a version into production."""

    root: CliPositionalArg[Registry]
    version: CliPositionalArg[str] = Field(description="Name of the version.")
    reason: str = Field("by hand", description="Reason for the history.")


class RollBack(BaseModel):
    """Put the version before the present one back into production."""

    root: CliPositionalArg[Registry]
    reason: str = Field("by hand", description="Reason for the history.")


class RegistrySettings(CommandSettings):
    """Keep checkpoints as versions that never change, and say which one is in production: --model ROOT@production."""

    list: CliSubCommand[ListVersions] = Field(description="Show all versions and the history of production.")
    show: CliSubCommand[ShowVersion] = Field(description="Print the description of a version as JSON.")
    add: CliSubCommand[AddVersion] = Field(description="Add a checkpoint as a version.")
    promote: CliSubCommand[PromoteVersion] = Field(description="Put a version into production.")
    rollback: CliSubCommand[RollBack] = Field(
        description="Put the version before the present one back into production."
    )
