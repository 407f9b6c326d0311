"""What decides whether a retrained detector replaces the one in production."""

from pathlib import Path

import numpy as np
import pytest

from microaction import registry
from microaction.clips.instances import read_instances
from microaction.clips.manifest import Clip, ManifestError, read_list
from microaction.evaluation.detection import TimedAction
from microaction.evaluation.detection_report import DetectionMeasurement, measure_detections
from microaction.retraining.detection import (
    DetectorComparison,
    compared_actions,
    detector_parity,
    instance_file,
    judge_detectors,
)
from microaction.retraining.run import run_retraining
from microaction.retraining.settings import GatesConfig, RetrainSettings
from microaction.synthetic.untrimmed_dataset import make_untrimmed_dataset
from microaction.taxonomy import ACTIONS
from microaction.training.run import run_training
from microaction.training.settings import TrainSettings
from tests.archives import write_model
from tests.models.detectors import save_detector

NUM_VIDEOS = 60
TRUTH = [TimedAction(f"v{number}", action, 2.0, 4.0) for number in range(NUM_VIDEOS) for action in (3, 7)]
GATES = GatesConfig(min_support=20)


def comparison_of(ours: float, theirs: float, **of_class_7: float) -> DetectorComparison:
    """Return two detectors that find such fractions of the instances, with as many false ones."""

    def measured(found: float, name: str) -> DetectionMeasurement:
        rng = np.random.default_rng(0)
        detections = [
            each._replace(score=0.5 + 0.4 * rng.random())
            for each in TRUTH
            if rng.random() < (of_class_7.get(name, found) if each.action_id == 7 else found)
        ]
        false = [TimedAction(f"v{number}", 3, 8.0, 9.0, 0.3 * rng.random()) for number in range(NUM_VIDEOS)]
        return measure_detections(detections + false, TRUTH, [0.4] * len(ACTIONS))

    return DetectorComparison(measured(ours, "candidate"), measured(theirs, "production"))


def failed(comparison: DetectorComparison, gates: GatesConfig = GATES, golden: float = 0.0) -> list[str]:
    return [verdict.gate for verdict in judge_detectors(comparison, golden, gates) if not verdict.is_passed]


def test_a_better_detector_passes_and_a_worse_one_does_not() -> None:
    assert failed(comparison_of(0.9, 0.8)) == []
    assert failed(comparison_of(0.8, 0.8)) == []
    assert "mAP" in failed(comparison_of(0.7, 0.9))
    assert "mAP" in failed(comparison_of(0.8, 0.8), GATES.model_copy(update={"map_margin": 0.01}))


def test_an_action_must_not_get_much_worse() -> None:
    worse = comparison_of(1.0, 0.6, candidate=0.4, production=0.9)
    gates = GATES.model_copy(update={"map_margin": -1.0, "calibration_margin": 1.0})
    assert failed(worse, gates) == [f"average precision of {ACTIONS[7]}"]
    assert failed(worse, gates.model_copy(update={"class_ap_margin": 0.6})) == []
    assert failed(worse, gates.model_copy(update={"min_support": 100})) == [], "too few instances to say so"


def test_few_instances_and_other_outputs_fail() -> None:
    assert failed(comparison_of(1, 1), GATES.model_copy(update={"min_held_out": 200})) == ["held-out instances"]
    assert failed(comparison_of(1, 1), golden=0.2) == ["golden output, as labeling runs the network"]


def test_compared_actions_have_their_support() -> None:
    rows = compared_actions(comparison_of(1, 1))
    assert [row.support for row in rows if row.support] == [NUM_VIDEOS, NUM_VIDEOS]
    assert rows[7].action == ACTIONS[7]
    assert rows[7].candidate == pytest.approx(1)


def test_detector_parity_is_that_of_what_is_stored(tmp_path: Path) -> None:
    assert 0 < detector_parity(save_detector(tmp_path / "model"), "cpu") < 0.05


def test_lists_of_spans_are_lists_of_instances(tmp_path: Path) -> None:
    dataset = make_untrimmed_dataset(
        tmp_path / "d",
        num_train_subjects=2,
        num_val_subjects=1,
        num_train_videos=2,
        num_val_videos=1,
        size=(48, 56),
        fps=8,
    )
    clips = read_list(str(dataset.train_list), str(dataset.train_dir), 52)
    written = tmp_path / "train.parquet"
    written.write_bytes(instance_file(clips))
    found, expected = (read_instances(str(path), str(dataset.train_dir)) for path in (written, dataset.train_list))
    assert found == expected
    with pytest.raises(ManifestError, match="is no span"):
        instance_file([Clip("a.mp4", "/a.mp4", 0)])


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(900)
def test_a_detector_is_retrained_and_promoted(tmp_path: Path) -> None:
    dataset = make_untrimmed_dataset(
        tmp_path / "drawn",
        num_train_subjects=6,
        num_val_subjects=5,
        num_train_videos=12,
        num_val_videos=10,
        size=(48, 56),
        fps=8,
    )
    root = tmp_path / "dataset"
    (root / "videos").mkdir(parents=True)
    lists = {}
    for name, videos, instances in (
        ("first", dataset.train_dir, dataset.train_list),
        ("second", dataset.val_dir, dataset.val_list),
    ):
        for path in videos.iterdir():
            path.rename(root / "videos" / path.name)
        lists[name] = read_list(str(instances), str(root / "videos"), 52)
    others = [  # the second set's people are others
        Clip(clip.name, clip.uri, clip.label, subject=f"other {clip.subject}", span=clip.span)
        for clip in lists["second"]
    ]
    recipe = {"epochs": 1, "batch_size": 2, "base_batch_size": 2, "warmup_epochs": 0.0}
    (tmp_path / "first.parquet").write_bytes(instance_file(lists["first"]))
    first = run_training(
        TrainSettings.model_validate(
            {
                "task": "detection",
                "train_list": str(tmp_path / "first.parquet"),
                "train_videos": str(root / "videos"),
                "split_by": "subject",
                "storage_path": str(tmp_path / "runs"),
                "name": "first",
                "init": write_model(tmp_path / "classifier"),
                "model": {"family": "detector", "pyramid_width": 16, "num_frames": 64},
                "recipe": recipe,
            }
        )
    )
    models = str(tmp_path / "models")
    registry.promote(models, registry.register(models, first.checkpoint, name="first").name, reason="the first")
    (root / "instances.parquet").write_bytes(instance_file([*lists["first"], *others]))
    result = run_retraining(
        RetrainSettings(
            registry=models,
            dataset=str(root),
            work=str(tmp_path / "work"),
            min_new=5,
            held_out_fraction=0.4,
            val_fraction=0.2,
            recipe=recipe,
            gates={"map_margin": -1, "class_ap_margin": 1, "calibration_margin": 1, "min_held_out": 1},
        )
    )
    assert result.ended == "promoted", result.failed_gates
    assert result.delta.num_new == len(others)
    page = Path(result.page).read_text()
    assert "Average precision of every action" in page
    assert "instances of people whom neither was trained on" in page
