"""Networks: families, their inputs and outputs, checkpoints, the joint-embedding loss, label embeddings. Needs torch, never Ray.

Names are imported when they are first used, so that the networks themselves (`microaction.models.manet.network`, `.interface`,
`.losses`, `.normalize`, `.inference`) can be used where torch is all that is installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microaction.models.checkpoint import (
        Calibration,
        Checkpoint,
        CheckpointConfig,
        ModelRef,
        load_checkpoint,
        save_checkpoint,
    )
    from microaction.models.errors import CheckpointError
    from microaction.models.families import (
        FAMILIES,
        PRESETS,
        build_model,
        create_model,
        load_published,
        register_family,
    )
    from microaction.models.family import Family, Importer
    from microaction.models.inference import PlainInferenceModel
    from microaction.models.interface import Inputs, Network, Outputs
    from microaction.models.label_embeddings import (
        LabelEmbeddingError,
        default_label_embeddings,
        label_embeddings_from_word_vectors,
    )
    from microaction.models.losses import JointEmbeddingLoss
    from microaction.models.manet.config import ManetConfig
    from microaction.models.manet.network import MANet
    from microaction.models.settings import ModelConfig

_MODULE_OF = {
    "FAMILIES": "families",
    "PRESETS": "families",
    "Calibration": "checkpoint",
    "Checkpoint": "checkpoint",
    "CheckpointConfig": "checkpoint",
    "CheckpointError": "errors",
    "Family": "family",
    "Importer": "family",
    "Inputs": "interface",
    "JointEmbeddingLoss": "losses",
    "LabelEmbeddingError": "label_embeddings",
    "MANet": "manet.network",
    "ManetConfig": "manet.config",
    "ModelConfig": "settings",
    "ModelRef": "checkpoint",
    "Network": "interface",
    "Outputs": "interface",
    "PlainInferenceModel": "inference",
    "build_model": "families",
    "create_model": "families",
    "default_label_embeddings": "label_embeddings",
    "label_embeddings_from_word_vectors": "label_embeddings",
    "load_checkpoint": "checkpoint",
    "load_published": "families",
    "register_family": "families",
    "save_checkpoint": "checkpoint",
}

__all__ = [
    "FAMILIES",
    "PRESETS",
    "Calibration",
    "Checkpoint",
    "CheckpointConfig",
    "CheckpointError",
    "Family",
    "Importer",
    "Inputs",
    "JointEmbeddingLoss",
    "LabelEmbeddingError",
    "MANet",
    "ManetConfig",
    "ModelConfig",
    "ModelRef",
    "Network",
    "Outputs",
    "PlainInferenceModel",
    "build_model",
    "create_model",
    "default_label_embeddings",
    "label_embeddings_from_word_vectors",
    "load_checkpoint",
    "load_published",
    "register_family",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
