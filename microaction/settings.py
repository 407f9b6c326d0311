"""What the settings of all commands share. Each room declares its own settings in its `settings.py`.

A settings class is at once the flags of its command, its YAML file, its environment variables and the record that its output
keeps. The classes are plain pydantic models; `microaction.cli.app` adds the sources.
"""

import hashlib
import json
import os
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from microaction.storage import locations

SUBMITTED_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray in the driver of a submitted job
DEMO_MODEL = "demo"
DEMO_DETECTOR = "demo-detector"
PACKAGED_MODELS = (DEMO_MODEL, DEMO_DETECTOR)


def absolute_location(value: str) -> str:
    """Return a path or URI in the form that means the same on every node. Raises `ValueError` for a relative path in a
    submitted job."""
    location = locations.absolute(value)
    if location != value.removeprefix("file://").rstrip("/") and SUBMITTED_JOB_VARIABLE in os.environ:
        raise ValueError(
            f"{value!r} is a relative path, but a submitted job runs in a temporary copy of the working directory; give an "
            "absolute path that every node can see, or a URI"
        )
    return location


def model_location(value: str) -> str:
    """Return the location of a model, absolute unless the package ships it."""
    return value if value in PACKAGED_MODELS else absolute_location(value)


Location = Annotated[str, AfterValidator(absolute_location)]
"""A path or URI, made absolute, so that the driver and the workers mean the same."""

ModelLocation = Annotated[str, AfterValidator(model_location)]
"""A checkpoint directory, a file of published weights, `ROOT@VERSION` or `ROOT@production` of a registry, or `demo` or
`demo-detector`: the small networks that the package ships. (A folder of that name is `./demo`.)"""

MODEL_HELP = (
    "Checkpoint directory, file of published weights (.pth), `ROOT@VERSION` or `ROOT@production` of a registry, or `demo` or "
    "`demo-detector`, the small networks that the package ships; a path or URI."
)


class CommandSettings(BaseModel):
    """Settings that every command has."""

    model_config = ConfigDict(extra="forbid")

    config: str | None = Field(
        None, description="YAML file with any of these settings. Flags and environment variables override it."
    )


def digest_of(settings: BaseModel, include: set[str], **more: object) -> str:
    """Return the hexadecimal SHA-256 of the named settings and of further JSON values: equal exactly if all of them are."""
    content = settings.model_dump(mode="json", include=include) | more
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
