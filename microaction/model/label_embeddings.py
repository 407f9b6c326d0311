"""One vector per action, from the words of its name: what the joint-embedding loss pulls clips towards.

A table comes from a word-vector text file (word2vec, GloVe or fastText) or from the file that the project ships.
"""

import gzip
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import IO

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from microaction.errors import UsageError
from microaction.taxonomy import ACTIONS

DEFAULT_TABLE = "default_label_embeddings.safetensors"
TABLE_KEY = "label_embeddings"


class LabelEmbeddingError(UsageError, ValueError):
    """A word-vector file cannot give every action a vector."""


def words_of(name: str) -> list[str]:
    """The lower-case words of an action's name."""
    return re.findall(r"[a-z]+", name.lower())


def label_embeddings_from_word_vectors(path: str | Path, names: Sequence[str] = ACTIONS) -> Tensor:
    """The mean of the word vectors of each name's words: float32 [K, D], in the order of `names`.

    `path` is a text file of lines "word number number …", as GloVe writes them, with or without the first line
    "num_words D" of word2vec and fastText; gzipped if it ends in .gz. Only the vectors of needed words are kept, so a file
    larger than memory is fine. The lower-case spelling of a word is preferred; another capitalisation serves where it is
    missing. Raises `LabelEmbeddingError` naming every word that the file lacks, or the first line that is not a vector.
    Source: the reference's table is such means, of 300-dimensional word vectors.
    """
    wanted = {word for name in names for word in words_of(name)}
    exact: dict[str, np.ndarray] = {}
    other_case: dict[str, np.ndarray] = {}
    dim: int | None = None
    for line_number, word, numbers in _lines(Path(path)):
        if word.lower() not in wanted:
            continue
        try:
            vector = np.array(numbers.split(), dtype=np.float32)
        except ValueError:
            raise LabelEmbeddingError(f"{path}, line {line_number}: '{word}' is not followed by numbers") from None
        if dim is None:
            dim = len(vector)
        if len(vector) != dim or dim == 0 or not np.isfinite(vector).all():
            raise LabelEmbeddingError(
                f"{path}, line {line_number}: '{word}' has {len(vector)} finite numbers, the lines before had {dim}; "
                "the file is damaged or not a word-vector text file"
            )
        (exact if word in wanted else other_case).setdefault(word.lower(), vector)
    vectors = other_case | exact
    missing = sorted(wanted - vectors.keys())
    if missing:
        raise LabelEmbeddingError(
            f"{path} has no vector for {', '.join(repr(word) for word in missing)}; use a file with a larger vocabulary, "
            "or leave label embeddings at their default"
        )
    return torch.from_numpy(np.stack([np.mean([vectors[word] for word in words_of(name)], axis=0) for name in names]))


def default_label_embeddings() -> Tensor:
    """The table that the project ships for the 52 actions: float32 [52, D]; see `default_embeddings.py` for its making."""
    data = resources.files(__package__).joinpath(DEFAULT_TABLE).read_bytes()
    table_KD: Tensor = safetensors.torch.load(data)[TABLE_KEY]
    return table_KD


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, word, rest) of each vector line; the header of word2vec and fastText is left out."""
    file: IO[str]
    # Errors are replaced, not raised: published tables hold broken bytes in words that no label needs.
    options = {"encoding": "utf-8", "errors": "replace", "newline": "\n"}
    with gzip.open(path, "rt", **options) if path.suffix == ".gz" else open(path, **options) as file:  # type: ignore[call-overload]
        for line_number, line in enumerate(file, start=1):
            word, _, numbers = line.rstrip().partition(" ")
            if line_number == 1 and re.fullmatch(r"\d+ \d+", line.strip()):
                continue
            yield line_number, word, numbers
