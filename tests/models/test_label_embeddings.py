import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from microaction.models import LabelEmbeddingError, default_label_embeddings, label_embeddings_from_word_vectors
from microaction.models.label_embeddings import words_of
from microaction.taxonomy import ACTIONS

VECTORS = {"nodding": [1.0, 2.0], "shaking": [0.0, 4.0], "head": [3.0, 0.0]}
NAMES = ("nodding", "shaking head")


def lines(vectors: dict[str, list[float]] = VECTORS) -> list[str]:
    return [f"{word} {' '.join(str(x) for x in vector)}" for word, vector in vectors.items()]


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("ending", ["\n", " \n"])
def test_the_vector_of_a_name_is_the_mean_of_its_words(tmp_path: Path, header: bool, zipped: bool, ending: str) -> None:
    path = tmp_path / ("vectors.txt.gz" if zipped else "vectors.txt")
    text = ending.join((["3 2"] if header else []) + ["unneeded 9 9", *lines()]) + ending
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    table_KD = label_embeddings_from_word_vectors(path, NAMES)
    assert table_KD.dtype == torch.float32
    assert table_KD.tolist() == [[1.0, 2.0], [1.5, 2.0]]


def test_the_error_names_all_missing_words(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("\n".join(lines({"head": [1.0]})))
    with pytest.raises(LabelEmbeddingError, match=r"no vector for 'nodding', 'shaking': use a file with a larger"):
        label_embeddings_from_word_vectors(path, NAMES)


def test_other_capitalizations_replace_a_missing_word(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("Nodding 5 5\nHEAD 9 9\nhead 1 1\nshaking 3 3\n")
    assert label_embeddings_from_word_vectors(path, NAMES).tolist() == [[5.0, 5.0], [2.0, 2.0]]


@pytest.mark.parametrize(
    ("bad", "message"),
    [("head 1.0", "has 1 finite"), ("head nan 1.0", "has 1 finite"), ("head x y", "not followed by numbers")],
)
def test_the_error_names_a_damaged_line(tmp_path: Path, bad: str, message: str) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("\n".join([*lines({"nodding": [1.0, 2.0], "shaking": [1.0, 1.0]}), bad]))
    with pytest.raises(LabelEmbeddingError, match=f"line 3.*{message}"):
        label_embeddings_from_word_vectors(path, NAMES)


@pytest.mark.parametrize("start", ["", "\ufeff", "\ufeff3 2\n", "3\t2\n"])
def test_byte_order_marks_and_tabs_are_read(tmp_path: Path, start: str) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text(start + "\n".join(lines()).replace(" ", "\t"), encoding="utf-8")
    assert label_embeddings_from_word_vectors(path, NAMES).tolist() == [[1.0, 2.0], [1.5, 2.0]]


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.gz").write_text("\n".join(lines()))
    whole = gzip.compress("\n".join(f"word{i} 1 2" for i in range(10_000)).encode())
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "folder").mkdir()
    for name, message in {
        "text.gz": "text.gz: it is not a gzip file, or is cut short or damaged",
        "cut.gz": r"cut.gz, after line \d+: it is not a gzip file, or is cut short or damaged",
        "folder": "the word vectors .*folder cannot be read: is a directory",
        "absent": "the word vectors .*absent cannot be read: no such file or directory",
    }.items():
        with pytest.raises(LabelEmbeddingError, match=message):
            label_embeddings_from_word_vectors(tmp_path / name, NAMES)


def test_words_are_lower_case_letters_only() -> None:
    assert words_of("Body-Hand 2") == ["body", "hand"]
    assert all(words_of(name) for name in ACTIONS)


def test_shipped_vectors_are_distinct_and_as_large_as_published(shared: Path) -> None:
    table_KD = default_label_embeddings()
    assert table_KD.shape == (52, 384)
    reference_KD = np.load(shared / "data/ma52/label_word_vectors.npy")
    assert table_KD.square().mean().item() == pytest.approx(float(np.square(reference_KD).mean()), rel=0.02)
    unit_KD = torch.nn.functional.normalize(table_KD)
    similarity_KK = unit_KD @ unit_KD.T - torch.eye(52)
    assert similarity_KK.max() < 0.98
    # The vectors carry meaning: the name nearest to nodding is another action of the head.
    nearest = ACTIONS[int(similarity_KK[ACTIONS.index("nodding")].argmax())]
    assert "head" in nearest
