"""Candidate and production on the same held-out clips. Shapes: N clips, K actions."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import torch

from microaction import storage
from microaction.clips.manifest import Clip
from microaction.distributed.resources import cluster_resources
from microaction.distributed.settings import CLUSTER_FIELDS
from microaction.distributed.waiting import get_or_cancel
from microaction.evaluation.run import run_evaluation
from microaction.evaluation.settings import EvaluateSettings
from microaction.models.checkpoint import read_config
from microaction.retraining.attempt import Attempt
from microaction.retraining.data import VIDEOS_FOLDER, list_file
from microaction.retraining.detection import detector_parity
from microaction.retraining.gates import Comparison, golden_parity
from microaction.retraining.settings import RetrainSettings


def compare(attempt: Attempt, judged: Sequence[Clip], on_evaluation: Callable[[tuple[int, int]], None]) -> Comparison:
    """Evaluate both models on the clips; what either cannot read is left out."""
    storage.write_bytes(attempt.held_out_uri, list_file(judged))
    production = f"{attempt.settings.registry}@{attempt.production.name}"
    ours, theirs = read_by_both(
        _predictions(attempt, attempt.candidate_uri, "candidate", on_evaluation),
        _predictions(attempt, production, "production", on_evaluation),
    )
    return Comparison(
        candidate_NK=np.stack(ours["probabilities"].to_numpy()),
        production_NK=np.stack(theirs["probabilities"].to_numpy()),
        target_N=ours["target"].to_numpy(),
        num_left_out=len(judged) - len(ours),
    )


def _predictions(attempt: Attempt, model: str, name: str, on_evaluation: Callable[[tuple[int, int]], None]) -> pa.Table:
    """Evaluate a model on the held-out clips, in the folder `name`; return its predictions."""
    settings, out = attempt.settings, storage.join(attempt.folder, name)
    run_evaluation(
        EvaluateSettings(
            model=model,
            clips_list=attempt.held_out_uri,
            videos=storage.join(settings.dataset, VIDEOS_FOLDER),
            out=out,
            max_unreadable_fraction=settings.max_unreadable_fraction,
            **settings.model_dump(include=set(CLUSTER_FIELDS)),
        ),
        on_progress=on_evaluation,
    )
    return pq.read_table(pa.BufferReader(storage.read_bytes(storage.join(out, "predictions.parquet"))))


def read_by_both(ours: pa.Table, theirs: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the predictions for the clips that are in both tables, in one order: each evaluation leaves out what it could not
    read."""
    ours_too = ours.filter(pc.is_in(ours["clip"], theirs["clip"].combine_chunks()))
    theirs_too = theirs.filter(pc.is_in(theirs["clip"], ours["clip"].combine_chunks()))
    return ours_too.sort_by("clip"), theirs_too.sort_by("clip")


def parity_for_labeling(candidate: str, settings: RetrainSettings) -> float:
    """Return `golden_parity`, or of a detector `detector_parity`, on what labeling would run on: a GPU if the cluster has any,
    otherwise the CPU here. Raises `NodesUnavailableError`."""
    if cluster_resources(settings).num_gpus == 0:
        return _parity(candidate, "cpu")
    parity = ray.remote(num_gpus=1)(_parity_on_gpu).remote(candidate)
    what = f"comparing the golden output of {candidate} on a GPU"
    return float(get_or_cancel(parity, settings.node_wait_s, what, setting="node_wait_s"))


def _parity_on_gpu(candidate: str) -> float:
    return _parity(candidate, "cuda" if torch.cuda.is_available() else "cpu")


def _parity(candidate: str, device: str) -> float:
    is_detector = read_config(candidate).task == "detection"
    return detector_parity(candidate, device) if is_detector else golden_parity(candidate, device)
