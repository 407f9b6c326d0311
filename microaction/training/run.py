"""One training run: settings in, a checkpoint directory out; the same name again continues where it stopped."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import ray
import ray.train
import torch
from pydantic import ValidationError
from ray.train import ControllerError, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer

from microaction import storage
from microaction.clips.ingest import DECODE_CPUS
from microaction.clips.manifest import Clip, refuse_named_people
from microaction.clips.skeletons import ClipSkeletons
from microaction.distributed.progress import ProgressChannel
from microaction.distributed.resources import await_nodes
from microaction.distributed.settings import ClusterSettings
from microaction.errors import MicroactionError
from microaction.models import (
    build_model,
    default_label_embeddings,
    label_embeddings_from_word_vectors,
    load_checkpoint,
)
from microaction.models.checkpoint import CONFIG_FILE, read_config
from microaction.models.detector.config import DetectorConfig
from microaction.models.families import family_of
from microaction.models.settings import default_model_config
from microaction.training.checkpoints import export_best
from microaction.training.detection_data import (
    FACTS_FILE,
    clip_places,
    record_facts,
    training_videos,
)
from microaction.training.errors import TrainingError
from microaction.training.learner import load_initial
from microaction.training.order import steps_per_epoch
from microaction.training.person_scale import with_person_scale
from microaction.training.progress import TrainingProgress
from microaction.training.report import REPORT_FILE
from microaction.training.settings import TrainSettings
from microaction.training.split import read_instance_splits, read_skeletons_of_lists, read_splits, read_video_splits
from microaction.training.state import load_state, saved_step
from microaction.training.worker import train_process
from microaction.video import DecodeError

SETTINGS_FILE = "settings.json"
RAY_FOLDER = "ray"
WAIT_FOR_OTHERS_S = 24 * 3600  # workers may have unequal work before they meet, such as features of hour-long videos
MUTABLE_ON_RESUME = {
    "config",
    "num_workers",
    "min_workers",
    "checkpoint_interval_s",
    "max_failures",
    "max_unreadable_fraction",
    *ClusterSettings.model_fields,
}  # settings that a resumed run may change


@dataclass(frozen=True)
class TrainingResult:
    """The best checkpoint's directory, its metrics on the validation clips, and the report page of the run."""

    checkpoint: str
    metrics: dict[str, float]
    report: str


def run_training(
    settings: TrainSettings, *, on_progress: Callable[[TrainingProgress], None] = lambda progress: None
) -> TrainingResult:
    """Train, or continue to train, the run `settings.name`; its best checkpoint ends up in `<storage_path>/<name>/best`.

    A finished run is not trained again, and needs no nodes. Needs a running Ray. Raises `ManifestError` for unusable lists,
    `SkeletonError` for unusable skeletons, `CheckpointError` for unusable initial weights, `StateError` for a saved state that
    cannot be read and `TrainingError` for settings that cannot work here.
    """
    if settings.task == "detection":
        settings = with_initial_backbone(settings)
    embeddings_KD = load_label_embeddings(settings)
    settings = with_embedding_dim(settings, embeddings_KD)
    run_uri = storage.join(settings.storage_path, settings.name)
    train_clips, val_clips = read_clips_of(settings)
    if settings.task == "detection" and any(clip.person is not None and clip.region is None for clip in train_clips):
        raise TrainingError(
            f"{settings.train_list} names people, whom a detector's training does not look for: cut the videos to them with "
            "`microaction pack` and people=auto, or leave the column person out"
        )
    if settings.people == "off" and not settings.needs_skeletons:
        refuse_named_people([*train_clips, *val_clips])
    if settings.task == "recognition":
        _refuse_large_batches(settings, len(train_clips))
    if settings.init is not None:
        load_initial(build_model(settings.model), settings)  # fails now if anything is wrong with them
    skeletons = read_skeletons_of_lists(settings) if settings.needs_skeletons else None
    _refuse_other_settings(settings, run_uri)

    num_drawn = len(train_clips)
    if settings.task == "detection":
        num_drawn = _num_drawn_of_videos(settings, run_uri)
        _refuse_large_batches(settings, num_drawn)
    num_steps = steps_per_epoch(num_drawn, settings.recipe.batch_size)
    if saved_step(run_uri) < settings.recipe.epochs * num_steps:
        await_nodes(settings, settings.min_workers or settings.num_workers)
        measured = with_person_scale(settings, train_clips, run_uri)
        _train(measured, embeddings_KD, skeletons, run_uri, on_progress)
    storage.delete_tree(storage.join(run_uri, RAY_FOLDER))
    state = load_state(run_uri)
    if state is None or state.best_epoch is None:
        raise TrainingError(f"training ended without a checkpoint in {run_uri}")
    best = export_best(settings, run_uri, state, state.best_epoch, {"train": train_clips, "validation": val_clips})
    return TrainingResult(best, load_checkpoint(best).config.metrics, storage.join(run_uri, REPORT_FILE))


def _train(
    settings: TrainSettings,
    embeddings_KD: torch.Tensor,
    skeletons: ClipSkeletons | None,
    run_uri: str,
    on_progress: Callable[[TrainingProgress], None],
) -> None:
    """Run the workers until the run is done."""
    use_gpu, cpus_per_worker, num_threads = _worker_resources(settings)
    min_workers, max_workers = settings.min_workers or settings.num_workers, settings.num_workers
    channel = ProgressChannel()
    # In the object store, where the workers of a node share one copy; in a list, so that Ray passes it on as a reference.
    shared_skeletons = None if skeletons is None else [ray.put(skeletons)]

    def fit() -> None:
        TorchTrainer(
            train_process,
            train_loop_config={
                "settings": settings.model_dump_json(),
                "family": family_of(settings.model),
                "label_embeddings": embeddings_KD,
                "channel": channel,
                "num_threads": num_threads,
                "skeletons": shared_skeletons,
            },
            torch_config=TorchConfig(timeout_s=WAIT_FOR_OTHERS_S),
            scaling_config=ray.train.ScalingConfig(
                num_workers=max_workers if min_workers == max_workers else (min_workers, max_workers),
                use_gpu=use_gpu,
                # GPU workers are best on one node; CPU workers do best on cores that no other worker wants.
                placement_strategy="PACK" if use_gpu else "SPREAD",
                resources_per_worker={"CPU": cpus_per_worker} | ({"GPU": 1} if use_gpu else {}),
            ),
            run_config=ray.train.RunConfig(
                # Ray's own record of a run is not what it resumes from, and would not survive its writer's death midway.
                name=uuid.uuid4().hex,
                storage_path=storage.join(run_uri, RAY_FOLDER),
                failure_config=ray.train.FailureConfig(max_failures=settings.max_failures),
            ),
        ).fit()

    try:
        channel.follow(lambda: _fit_with_restarts(fit, settings.max_failures), on_progress)
    except WorkerGroupError as error:
        cause = _cause(error)
        if isinstance(cause, DecodeError):
            raise TrainingError(f"{cause}; fix the clip, or remove it from the list") from error
        if cause is not None:
            raise cause from error
        raise


def read_clips_of(settings: TrainSettings) -> tuple[list[Clip], list[Clip]]:
    """Return what the run is trained and validated on as clips: of detectors each instance is one."""
    return read_splits(settings) if settings.task == "recognition" else read_instance_splits(settings)


def with_initial_backbone(settings: TrainSettings) -> TrainSettings:
    """Return the settings of a detector with the backbone and the preprocessing of the classifier or detector that it begins
    from. Raises `TrainingError` if the settings ask for another backbone."""
    init, config = settings.init, cast(DetectorConfig, settings.model)
    if init in (None, "imagenet") or not storage.exists(storage.join(str(init), CONFIG_FILE)):
        return settings
    initial = read_config(str(init))
    given = initial.model.backbone if isinstance(initial.model, DetectorConfig) else initial.model
    asked = config.backbone
    if asked not in (default_model_config(), given):
        raise TrainingError(
            f"init ({init}) is a network of another configuration ({given.family}) than model.backbone ({asked.family}): "
            "leave out model"
        )
    changes = {"model": config.model_copy(update={"backbone": given})}
    seen_once = initial.preprocessing.model_copy(update={"views": 1})
    return TrainSettings.model_validate(settings.model_copy(update=changes | {"preprocessing": seen_once}).model_dump())


def _num_drawn_of_videos(settings: TrainSettings, run_uri: str) -> int:
    """Return how many clips an epoch draws from, from the videos' lengths, which the run's folder has or gets now."""
    train, validation = read_video_splits(settings)
    if not storage.exists(storage.join(run_uri, FACTS_FILE)):
        await_nodes(settings, settings.min_workers or settings.num_workers)
    facts = record_facts(run_uri, [*train, *validation], settings.node_wait_s)
    return len(clip_places(training_videos(train, facts), settings.model.num_frames))


def _refuse_large_batches(settings: TrainSettings, num_clips: int) -> None:
    if steps_per_epoch(num_clips, settings.recipe.batch_size) == 0:
        raise TrainingError(
            f"recipe.batch_size ({settings.recipe.batch_size}) exceeds the {num_clips} training clips: make it smaller"
        )


def load_label_embeddings(settings: TrainSettings) -> torch.Tensor:
    """Return the table [K, D] that the settings name, or the one that the package ships."""
    if settings.label_embeddings is None:
        return default_label_embeddings()
    return label_embeddings_from_word_vectors(settings.label_embeddings)


def with_embedding_dim(settings: TrainSettings, embeddings_KD: torch.Tensor) -> TrainSettings:
    """Return the settings with the network's embedding as long as the table's vectors, if it has an embedding branch.

    Raises `TrainingError` if the settings ask for another length.
    """
    model, dim = settings.model, embeddings_KD.shape[1]
    if getattr(model, "embedding_dim", dim) == dim:
        return settings
    if "embedding_dim" in model.model_fields_set:
        raise TrainingError(
            f"model.embedding_dim ({getattr(model, 'embedding_dim', None)}) must be {dim}, the length of the label vectors: "
            "leave it out, or give other label_embeddings"
        )
    return settings.model_copy(update={"model": model.model_copy(update={"embedding_dim": dim})})


def _refuse_other_settings(settings: TrainSettings, run_uri: str) -> None:
    uri = storage.join(run_uri, SETTINGS_FILE)
    now = settings.model_dump(mode="json", exclude=MUTABLE_ON_RESUME)
    if storage.exists(uri):
        before = _read_settings(uri, run_uri).model_dump(mode="json", exclude=MUTABLE_ON_RESUME)
        different = [name for name in now if now[name] != before[name]]
        if different:
            changes = "; ".join(f"{name}: recorded {before[name]!r}, now {now[name]!r}" for name in different)
            raise TrainingError(f"{run_uri} holds a run with other settings ({changes}): choose another name")
    storage.write_bytes(uri, settings.model_dump_json(indent=2).encode() + b"\n")


def _read_settings(uri: str, run_uri: str) -> TrainSettings:
    try:
        return TrainSettings.model_validate_json(storage.read_bytes(uri))
    except ValidationError:
        raise TrainingError(
            f"{run_uri} holds a run of another version of microaction ({SETTINGS_FILE} does not fit): choose another name, or "
            "use the version that wrote it"
        ) from None


def _worker_resources(settings: TrainSettings) -> tuple[bool, float, int]:
    """Return (use GPUs, CPUs per worker, torch threads per worker): a GPU each if there are enough, else divided CPUs.

    However many workers a node has to take when others are lost, some of its CPUs stay free for decoding.
    """
    num_workers = settings.num_workers
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    # Where GPUs are yet to be added, as many as training can start with are enough.
    enough = (settings.min_workers or num_workers) if settings.gpus else num_workers
    if sum(node.get("GPU", 0) for node in nodes) >= enough:
        cpus_per_gpu = min(node["CPU"] / node["GPU"] for node in nodes if node.get("GPU", 0) > 0)
        return True, min(1.0, cpus_per_gpu / 2), 1
    num_cpus = min((node["CPU"] for node in nodes), default=0.0)
    workers_per_node = -(-num_workers // max(1, len(nodes)))
    # About half of a node; a little more, so that twice as many do not fit in and leave the decoders nothing.
    cpus_per_worker = 1.002 * num_cpus / 2 / workers_per_node
    max_per_node = min(num_workers, 2 * workers_per_node - 1)
    if num_cpus - max_per_node * cpus_per_worker < DECODE_CPUS:
        raise TrainingError(
            f"num_workers ({num_workers}) is too large for {len(nodes)} nodes, the smallest of which has {num_cpus:g} CPUs"
        )
    # torch may use all of them, because decoders wait when training is slower.
    return False, cpus_per_worker, max(1, int(num_cpus / workers_per_node))


def _fit_with_restarts(fit: Callable[[], None], max_failures: int) -> None:
    """Ray Train restarts workers that die while they train, but not those that die while it starts them."""
    failures = 0
    while True:
        try:
            fit()
        except ControllerError as error:
            failures += 1
            if failures > max_failures or not isinstance(error.controller_failure, ray.exceptions.RayActorError):
                raise
        else:
            return


def _cause(error: WorkerGroupError) -> MicroactionError | None:
    """Return what ended training, out of the wrappers in which Ray delivers errors of workers; None for faults of the code."""
    for failure in error.worker_failures.values():
        inner: BaseException | None = getattr(failure, "_base_exc", failure)
        if isinstance(inner, ray.exceptions.RayTaskError):
            inner = inner.cause
        if isinstance(inner, MicroactionError):
            return inner
        if isinstance(inner, OSError) and inner.filename is not None:
            local = storage.local_error(inner, str(inner.filename))
            if local is not None:
                return local
    return None
