"""A registry of models: versions that never change, and which one is in production."""

from microaction.registry.errors import RegistryError
from microaction.registry.promotion import (
    Change,
    find_version,
    history,
    pin,
    production,
    promote,
    resolve,
    rollback,
    rolled_back,
)
from microaction.registry.versions import (
    PRODUCTION,
    VERSION_FILE,
    Split,
    Version,
    list_versions,
    read_clips_of,
    read_version,
    register,
)

__all__ = [
    "PRODUCTION",
    "VERSION_FILE",
    "Change",
    "RegistryError",
    "Split",
    "Version",
    "find_version",
    "history",
    "list_versions",
    "pin",
    "production",
    "promote",
    "read_clips_of",
    "read_version",
    "register",
    "resolve",
    "rollback",
    "rolled_back",
]
