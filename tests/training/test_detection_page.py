"""A detector's page, from a run's state alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from microaction.evaluation.detection import TimedAction
from microaction.evaluation.detection_calibration import apply_calibration, fit_score_calibration
from microaction.evaluation.detection_report import measure_detections
from microaction.evaluation.detection_table import detections_table
from microaction.models.checkpoint import read_config
from microaction.schema import INSTANCE_LIST
from microaction.taxonomy import ACTIONS
from microaction.training.detection_page import write_detection_page
from microaction.training.state import Epoch, RunState
from tests.evaluation.drawn_detections import draw_detections
from tests.models.detectors import save_detector
from tests.pages.reading import assert_harmless
from tests.training.runs import settings


def write_list(path: Path, truth: Sequence[TimedAction]) -> str:
    rows = [
        dict.fromkeys(INSTANCE_LIST.names)
        | {"video": event.video, "start_s": event.start_s, "end_s": event.end_s, "subject": event.video}
        | {"action": ACTIONS[event.action_id], "action_id": event.action_id}
        for event in truth
    ]
    pq.write_table(pa.Table.from_pylist(rows, INSTANCE_LIST), path)
    return str(path)


def test_a_detectors_page_is_self_contained_and_complete(tmp_path: Path) -> None:
    train, drawn = draw_detections(1, 60), draw_detections(2, 20)
    found, truth = ([each._replace(video=f"val-{each.video}") for each in events] for events in drawn[:2])
    of = settings(
        tmp_path,
        tmp_path,
        "run-1",
        task="detection",
        model={"family": "detector", "pyramid_width": 16, "num_frames": 64},
        train_list=write_list(tmp_path / "train.parquet", train.truth),
        val_list=write_list(tmp_path / "val.parquet", truth),
    )
    calibration = fit_score_calibration(*train[:2])
    best = Path(save_detector(tmp_path / "best"))
    config = read_config(str(best)).model_copy(update={"score_calibration": calibration})
    (best / "config.json").write_text(config.model_dump_json())
    measured = measure_detections(apply_calibration(found, calibration), truth, calibration.thresholds)
    timing = {"clips_per_s": 14.0, "data_wait_fraction": 0.1}
    epochs = [
        Epoch(number, 0.01, 1, {"loss": 3.0 / number, **measured.metrics}, timing, 100.0) for number in range(1, 4)
    ]
    unreadable = {"/videos/<script>": "torn\u202e"}
    state = RunState(30, torch.linspace(3, 1, 30), {}, epochs, 2, unreadable)
    folder = tmp_path / "run-1"
    uri = write_detection_page(of, str(folder), state, detections_table(found), str(best))

    page = assert_harmless(Path(uri).read_bytes())
    metrics = measured.metrics
    assert f"epoch 2: mAP {100 * metrics['map_challenge']:.1f} over temporal overlaps" in page.words
    assert f"num_true {len(truth)} num_detections {len(found)}" in page.words
    for split, instances in (("training", train.truth), ("validation", truth)):
        num_videos = len({event.video for event in instances})
        assert f"{split} {num_videos} {num_videos} {len(instances)}" in page.words, (
            "each video has a subject of its own"
        )
    assert "No subject is on both sides." in page.words
    assert "/videos/<script> : torn\ufffd" in page.words
    common = int(np.argmax([events.num_true for events in measured.events_K]))
    events = measured.events_K[common]
    row = f"{calibration.thresholds[common]:.2f} {events.num_true} {events.num_found} {events.num_matched}"
    assert row in page.words.partition(f" {ACTIONS[common]} ")[2]
    assert len(page.all("img")) == 5
    assert "the mean loss goes from 3.00 to 1.00" in (page.all("img")[0]["alt"] or "")
    names = ("curves", "map", "precision_recall", "calibration", "per_class")
    assert {path.name for path in folder.iterdir()} == {"report.html", *(f"{name}.svg" for name in names)}
