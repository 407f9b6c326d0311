"""MANet, its loss, its label embeddings and its checkpoints. Needs torch, never Ray."""

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
