"""Label embeddings: a vector per action, from the words of its name. The joint-embedding loss pulls clips towards them.

A table comes from a word-vector text file (word2vec, GloVe or fastText), or from the file that the package ships.
"""

import gzip
import re
import zlib
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
    """A word-vector file has no vector for some of the words, or is damaged."""


def words_of(name: str) -> list[str]:
    """Return the lower-case words of an action's name."""
    return re.findall(r"[a-z]+", name.lower())


def label_embeddings_from_word_vectors(path: str | Path, names: Sequence[str] = ACTIONS) -> Tensor:
    """Return the mean of the word vectors of each name's words: float32 [K, D], in the order of `names`.

    `path` is a text file of lines "word number number …", as GloVe writes them, with or without the first line
    "num_words D" of word2vec and fastText; gzipped if its name ends in .gz. Only the vectors of the words in `names` are kept,
    so the file may be larger than memory. The lower-case spelling of a word takes precedence over other capitalizations.
    Raises `LabelEmbeddingError` that names every word without a vector, or the first line that holds no vector.
    Source: the reference's table holds such means, of 300-dimensional word vectors.
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
        num_finite = int(np.isfinite(vector).sum())
        if not len(vector) == num_finite == dim or dim == 0:
            raise LabelEmbeddingError(
                f"{path}, line {line_number}: '{word}' has {num_finite} finite numbers of {len(vector)}, the lines before "
                f"have {dim}; the file is damaged, or is not a word-vector text file"
            )
        (exact if word in wanted else other_case).setdefault(word.lower(), vector)
    vectors = other_case | exact
    missing = sorted(wanted - vectors.keys())
    if missing:
        raise LabelEmbeddingError(
            f"{path} has no vector for {', '.join(repr(word) for word in missing)}: use a file with a larger vocabulary, "
            "or the default label embeddings"
        )
    return torch.from_numpy(np.stack([np.mean([vectors[word] for word in words_of(name)], axis=0) for name in names]))


def default_label_embeddings() -> Tensor:
    """Return the table that the package ships for the 52 actions: float32 [52, D]. `default_embeddings.py` made it."""
    data = resources.files(__package__).joinpath(DEFAULT_TABLE).read_bytes()
    table_KD: Tensor = safetensors.torch.load(data)[TABLE_KEY]
    return table_KD


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, word, rest) of each vector line, without the header of word2vec and fastText."""
    line_number = 0
    try:
        for line_number, word, numbers in _read_lines(path):
            yield line_number, word, numbers
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        where = f"{path}, after line {line_number}" if line_number else str(path)
        raise LabelEmbeddingError(f"{where}: it is not a gzip file, or is cut short or damaged") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise LabelEmbeddingError(f"the word vectors {path} cannot be read: {reason}") from error


def _read_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    file: IO[str]
    # Decoding errors are replaced, because published tables hold invalid bytes in words that no label contains.
    options = {"encoding": "utf-8-sig", "errors": "replace", "newline": "\n"}
    with gzip.open(path, "rt", **options) if path.suffix == ".gz" else open(path, **options) as file:  # type: ignore[call-overload]
        for line_number, line in enumerate(file, start=1):
            if line_number == 1 and re.fullmatch(r"\d+\s+\d+", line.strip()):
                continue
            word, *numbers = re.split(r"[ \t]+", line.strip(), maxsplit=1)
            yield line_number, word, numbers[0] if numbers else ""
