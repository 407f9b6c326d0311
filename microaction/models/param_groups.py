"""Groups of parameters for the optimizer, for families without groups of their own. Importable without torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microaction.models.video_classifier import VideoClassifier


def one_group(model: "VideoClassifier", weight_decay: float) -> list[dict[str, Any]]:
    """Return all parameters in one group, with decay, as mmaction2's recipes with SGD have them."""
    return [{"name": "all", "params": list(model.parameters()), "lr_factor": 1.0, "weight_decay": weight_decay}]
