"""The checkpoint of a run's best epoch: where it is while training continues, and where it is at the end."""

from collections.abc import Container

import pyarrow as pa

from microaction import storage
from microaction.clips.manifest import Clip
from microaction.models.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from microaction.schema import CLIPS_FILE, TRAINING_CLIPS, parquet_bytes
from microaction.training.detection_page import write_detection_page
from microaction.training.report import write_report
from microaction.training.settings import TrainSettings
from microaction.training.state import RunState

CHECKPOINTS_FOLDER = "checkpoints"
BEST_FOLDER = "best"
PREDICTIONS_FILE = "validation.parquet"


def checkpoint_uri(run_uri: str, epoch: int) -> str:
    """Return where the checkpoint of an epoch (from 1) is while it is the best."""
    return storage.join(run_uri, CHECKPOINTS_FOLDER, f"epoch-{epoch:04d}")


def export_best(
    settings: TrainSettings, run_uri: str, state: RunState, best_epoch: int, splits: dict[str, list[Clip]]
) -> str:
    """Move the best checkpoint, with the clips that it was made from, to a stable location, which is returned; write the report.

    `splits` are the clips of each side of the data by its name. Calling it again completes what was interrupted.
    """
    source, best = checkpoint_uri(run_uri, best_epoch), storage.join(run_uri, BEST_FOLDER)
    if storage.exists(storage.join(source, CONFIG_FILE)):  # else an earlier start of the run has moved it already
        storage.write_bytes(storage.join(best, CLIPS_FILE), _clips_file(splits, state.unreadable))
        for name in (WEIGHTS_FILE, PREDICTIONS_FILE, CONFIG_FILE):
            storage.write_bytes(storage.join(best, name), storage.read_bytes(storage.join(source, name)))
        predictions = storage.read_bytes(storage.join(source, PREDICTIONS_FILE))
        if settings.task == "detection":
            write_detection_page(settings, run_uri, state, predictions, source)
        else:
            write_report(settings, run_uri, state, predictions)
        storage.delete_file(storage.join(source, CONFIG_FILE))  # first: while it exists, the rest must
        storage.delete_tree(storage.join(run_uri, CHECKPOINTS_FOLDER))
    return best


def _clips_file(splits: dict[str, list[Clip]], unreadable: Container[str]) -> bytes:
    """Return a Parquet file of `schema.TRAINING_CLIPS`."""
    rows = [
        {
            "name": clip.name,
            "label": clip.label,
            "subject": clip.subject,
            "split": split,
            "is_readable": clip.location not in unreadable and clip.uri not in unreadable,
        }
        for split, clips in splits.items()
        for clip in clips
    ]
    return parquet_bytes(pa.Table.from_pylist(rows, schema=TRAINING_CLIPS))
