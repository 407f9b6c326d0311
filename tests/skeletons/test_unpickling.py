"""Published pickles are read without running anything that they name."""

import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microaction.skeletons import SkeletonError, load_pickle, published_skeletons
from tests.skeletons.annotations import annotation


class Runs:
    """An object whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_and_plain_types_are_read(protocol: int) -> None:
    content: dict[str, Any] = {
        "a": [1, 2.5, "text", None, True, (1, 2), b"bytes"],
        "float32": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "float16": np.arange(6, dtype=np.float16).reshape(2, 3).T,
        "int64": np.arange(5),
        "empty": np.zeros((0, 3)),
        "scalar": np.float32(3.5),
    }
    found = load_pickle(pickle.dumps(content, protocol=protocol))
    assert found["a"] == content["a"]
    for name in ("float32", "float16", "int64", "empty"):
        np.testing.assert_array_equal(found[name], content[name])
        assert found[name].dtype == content[name].dtype
    assert found["scalar"] == 3.5


@pytest.mark.parametrize("old", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_arrays_of_both_ages_of_numpy_are_read(old: bytes) -> None:
    data = pickle.dumps(np.arange(4), protocol=2)
    for module in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        data = data.replace(b"c" + module + b"\n", b"c" + old + b"\n")
    np.testing.assert_array_equal(load_pickle(data), np.arange(4))


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "call", [(os.system, "touch {}"), (eval, "open('{}', 'w')"), (exec, "open('{}', 'w')"), (os.mkdir, "{}")]
)
def test_a_pickle_that_would_run_code_runs_nothing(protocol: int, call: tuple[Any, str], tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    hostile = [annotation("a"), Runs(call[0], call[1].format(trace))]
    data = pickle.dumps(hostile, protocol=protocol)
    assert any(opcode.name == "REDUCE" for opcode, _, _ in pickletools.genops(data))
    with pytest.raises(SkeletonError, match=r"refused: the pickle names \w+\.\w+, which could run code"):
        load_pickle(data)
    assert not trace.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cnumpy\nload\n(S'/etc/passwd'\ntR.",
        b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'tofile'\ntR.",
        b"cnumpy.testing._private.utils\nrunstring\n(S'1'\nS'2'\ntR.",
        b"c_codecs\ndecode\n(S'a'\nS'rot13'\ntR.",
        b"Paddress\n.",
        b"\x82\x01.",
        pickle.dumps(np.load),
        pickle.dumps(Path("/")),
    ],
)
def test_other_names_are_refused(data: bytes) -> None:
    with pytest.raises(SkeletonError, match=r"refused|not a pickle"):
        load_pickle(data)


def test_arrays_of_subclasses_and_codecs_are_refused() -> None:
    with pytest.raises(SkeletonError, match="refused: an array of type"):
        load_pickle(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.")
    with pytest.raises(SkeletonError, match="refused: the codec 'zlib'"):
        load_pickle(b"c_codecs\nencode\n(S'a'\nS'zlib'\ntR.")


@pytest.mark.parametrize("data", [b"", b"text", pickle.dumps([1, 2])[:-3], b"\x80\x05"])
def test_other_files_are_one_line(data: bytes) -> None:
    with pytest.raises(SkeletonError, match=r"^not a pickle, or cut short: "):
        load_pickle(data)


def test_clips_have_names_and_skeletons() -> None:
    content = [annotation("0001_05_0001", num_people=2), annotation("train/0002_06_0001")]
    for given in (content, {"split": {}, "annotations": content}):
        found = list(published_skeletons(pickle.dumps(given)))
        assert [name for name, _ in found] == ["0001_05_0001.mp4", "0002_06_0001.mp4"]
        skeleton = found[0][1]
        assert skeleton.keypoints_MNK2.shape == (2, 5, 28, 2)
        assert (skeleton.width, skeleton.height, skeleton.num_frames) == (1296, 1080, 5)
        assert skeleton.keypoints_MNK2[0, 1, 3].tolist() == [0, 0], "NaN is not found"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, "holds a dict, not a list of clips"),
        ([1], "clip 1 is a int, not a dict"),
        ([{"frame_dir": "a"}], "clip 1 has no usable 'img_shape'"),
        ([annotation("a") | {"img_shape": (1,)}], "clip 1 has no usable"),
        ([annotation("a") | {"keypoint": np.zeros((1, 5, 17, 2))}], r"a: keypoints of shape \(1, 5, 17, 2\) must be"),
        ([annotation("a") | {"keypoint_score": np.zeros((1, 4, 28))}], r"a: scores of shape \(1, 4, 28\) must be"),
    ],
)
def test_what_is_wrong_with_a_clip_is_said(content: object, message: str) -> None:
    with pytest.raises(SkeletonError, match=message):
        list(published_skeletons(pickle.dumps(content)))
