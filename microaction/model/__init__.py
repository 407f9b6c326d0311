"""MANet, its loss, its label embeddings and its checkpoints. Needs torch, never Ray.

Names are loaded when they are first used, so that the network itself (`microaction.model.manet`, `.losses`, `.normalize`,
`.inference`) can be used where torch is all there is.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microaction.model.checkpoint import (
        Checkpoint,
        CheckpointConfig,
        CheckpointError,
        build_model,
        load_checkpoint,
        save_checkpoint,
    )
    from microaction.model.label_embeddings import (
        LabelEmbeddingError,
        default_label_embeddings,
        label_embeddings_from_word_vectors,
    )
    from microaction.model.losses import JointEmbeddingLoss
    from microaction.model.manet import MANet
    from microaction.model.reference import UNUSED_REFERENCE_KEYS, load_reference_state

__all__ = [
    "UNUSED_REFERENCE_KEYS",
    "Checkpoint",
    "CheckpointConfig",
    "CheckpointError",
    "JointEmbeddingLoss",
    "LabelEmbeddingError",
    "MANet",
    "build_model",
    "default_label_embeddings",
    "label_embeddings_from_word_vectors",
    "load_checkpoint",
    "load_reference_state",
    "save_checkpoint",
]

_MODULES = ("manet", "losses", "label_embeddings", "checkpoint", "reference")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = import_module(f"{__name__}.{module}")
            if name in vars(found):
                return vars(found)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
