"""PCAN: a network that sees frames and skeletons, and its loss around prototypes of the classes.

Names are imported when they are first used, so that the configuration needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microaction.models.pcan.loss import PCANLoss
    from microaction.models.pcan.network import PCAN, PCANOutputs, PoseNetwork, RGBNetwork

_MODULE_OF = {
    "PCAN": "network",
    "PCANLoss": "loss",
    "PCANOutputs": "network",
    "PoseNetwork": "network",
    "RGBNetwork": "network",
}

__all__ = ["PCAN", "PCANLoss", "PCANOutputs", "PoseNetwork", "RGBNetwork"]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
