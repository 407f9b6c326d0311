"""A checkpoint directory from a file of published weights, calibrated on labeled clips where they are given."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from microaction import storage
from microaction.clips.manifest import read_list
from microaction.errors import UsageError
from microaction.evaluation.calibration import fit_temperature, probabilities_of
from microaction.evaluation.metrics import measure
from microaction.evaluation.settings import ImportSettings
from microaction.models import Calibration, Checkpoint, load_checkpoint, save_checkpoint
from microaction.models.checkpoint import CONFIG_FILE

MIN_PROBABILITY = 1e-30  # keeps logarithms finite


@dataclass(frozen=True)
class ImportResult:
    """The checkpoint that was written, and its metrics on the calibration clips (empty without any)."""

    checkpoint: Checkpoint
    metrics: dict[str, float]


def import_checkpoint(
    settings: ImportSettings, *, on_progress: Callable[[tuple[int, int]], None] = lambda progress: None
) -> ImportResult:
    """Write `settings.out`. Needs a running Ray only to calibrate.

    The temperature is fitted on the clips of `settings.calibrate_list`. Raises `CheckpointError`, `ManifestError`, `DecodeError`,
    and `UsageError` if the file is no file of published weights or the output exists.
    """
    checkpoint = load_checkpoint(settings.file)
    if not checkpoint.config.origin:
        raise UsageError(f"{settings.file} is a checkpoint already: use it as it is")
    if storage.exists(storage.join(settings.out, CONFIG_FILE)):
        raise UsageError(f"{settings.out} holds a checkpoint already: choose another folder")
    config, metrics = checkpoint.config, dict[str, float]()
    if settings.calibrate_list is not None and settings.calibrate_videos is not None:
        calibration, metrics = _calibrate(checkpoint, settings, on_progress)
        config = config.model_copy(update={"calibration": calibration, "metrics": metrics})
    save_checkpoint(checkpoint.model, config, settings.out)
    return ImportResult(load_checkpoint(settings.out), metrics)


def _calibrate(
    checkpoint: Checkpoint, settings: ImportSettings, on_progress: Callable[[tuple[int, int]], None]
) -> tuple[Calibration, dict[str, float]]:
    from microaction.evaluation.run import score_on_cluster, skeletons_for

    assert settings.calibrate_list is not None
    assert settings.calibrate_videos is not None
    clips = read_list(settings.calibrate_list, settings.calibrate_videos, len(checkpoint.config.labels))
    max_unreadable = int(settings.max_unreadable_fraction * len(clips))
    skeletons = skeletons_for(checkpoint, clips, settings.calibrate_skeletons)
    scores = score_on_cluster(
        checkpoint.ref, clips, settings, settings.batch_size, max_unreadable, on_progress, skeletons=skeletons
    )
    target_N = np.array([clip.label for clip in clips if clip.location not in scores.unreadable])
    logits_NK = np.log(np.maximum(scores.probabilities_NK, MIN_PROBABILITY))  # up to a constant per clip, which cancels
    temperature = fit_temperature(logits_NK, target_N)
    metrics = {
        **measure(probabilities_of(logits_NK, temperature), target_N, scores.body_NP),
        "temperature": temperature,
    }
    return Calibration(temperature=temperature), metrics
