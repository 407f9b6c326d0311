"""Versions of the software that produced a result; recorded in checkpoints and runs."""

import platform
from importlib.metadata import version

from microaction import __version__

_PACKAGES = ("av", "numpy", "opencv-python-headless", "pyarrow", "ray", "torch")


def versions() -> dict[str, str]:
    """Return name → version of this project, of Python, and of the libraries that can change a result."""
    return {"microaction": __version__, "python": platform.python_version()} | {
        package: version(package) for package in _PACKAGES
    }
