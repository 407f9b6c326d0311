"""Makes the networks that the package ships: `python -m microaction.cli.demo_model [FOLDER]` (make demo-model).

Draws clips of people whom no interview of the demo shows, trains a small MANet on them (about 25 minutes on 2 cores), and stores
it as `--model demo`, without its embedding branch. Then draws untrimmed videos in which several actions overlap, trains a
detector on that MANet's features of them (about 35 minutes), and stores it as `--model demo-detector`. The same command again
continues. Weights are stored in float16. How a network was made is in its `config.json`: recipe, data, versions, and metrics on
drawn people that it was not trained on.
"""

import sys
from pathlib import Path
from typing import Any

from microaction import storage
from microaction.cli.app import console, reported_errors, running_ray, shown_progress
from microaction.cli.demo_training import RECIPE, SMALL_MODEL, SMALL_PIXELS
from microaction.cli.train import train
from microaction.models import CheckpointConfig, Network, create_model, load_checkpoint
from microaction.models.checkpoint import CONFIG_FILE, WEIGHTS_FILE, packaged_folder, weights_bytes
from microaction.settings import DEMO_DETECTOR, DEMO_MODEL
from microaction.synthetic import make_dataset
from microaction.synthetic.untrimmed_dataset import UntrimmedDataset, make_untrimmed_dataset
from microaction.training.settings import TrainSettings
from microaction.versions import versions

DATA: dict[str, Any] = {
    "num_train_subjects": 200,
    "num_val_subjects": 24,
    "num_train_clips": 5200,
    "num_val_clips": 624,
    "seed": 7,
}
EPOCHS = 14
UNTRIMMED: dict[str, Any] = {
    "num_train_subjects": 150,
    "num_val_subjects": 30,
    "num_train_videos": 2560,
    "num_val_videos": 160,
    "size": (96, 112),
    "fps": 16,
    "balanced": 1.0,
}
DETECTOR: dict[str, Any] = {"family": "detector", "pyramid_width": 128}
DETECTOR_RECIPE: dict[str, Any] = {"epochs": 25, "batch_size": 16, "warmup_epochs": 2.0}
MAX_BYTES = 4_000_000


def main() -> None:
    """Draw, train and store."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-model").absolute()
    with shown_progress("drawing clips") as show:
        dataset = make_dataset(
            root / "clips", **DATA, on_progress=lambda done, total: show(done, total, f"{done} of {total} clips")
        )
    settings = TrainSettings(
        train_list=str(dataset.train_list),
        train_videos=str(dataset.train_dir),
        val_list=str(dataset.val_list),
        val_videos=str(dataset.val_dir),
        storage_path=str(root),
        name="model",
        model=SMALL_MODEL,
        preprocessing=SMALL_PIXELS,
        recipe=RECIPE.model_copy(update={"epochs": EPOCHS}),
    )
    with shown_progress("drawing untrimmed videos") as show:
        untrimmed = make_untrimmed_dataset(
            root / "untrimmed",
            **UNTRIMMED,
            on_progress=lambda done, total: show(done, total, f"{done} of {total} videos"),
        )
    with reported_errors(), running_ray():
        with shown_progress("training") as show:
            classifier = train(settings, show)
        export(classifier.checkpoint, settings)
        of_detector = detector_settings(untrimmed, str(root))
        with shown_progress("training") as show:
            detector = train(of_detector, show)
        export_detector(detector.checkpoint, of_detector)


def detector_settings(untrimmed: UntrimmedDataset, root: str) -> TrainSettings:
    """Return the settings of the detector's training, which begins with the package's classifier."""
    return TrainSettings.model_validate(
        {
            "task": "detection",
            "train_list": str(untrimmed.train_list),
            "train_videos": str(untrimmed.train_dir),
            "val_list": str(untrimmed.val_list),
            "val_videos": str(untrimmed.val_dir),
            "storage_path": root,
            "name": "detector",
            "init": packaged_folder(DEMO_MODEL),
            "model": DETECTOR,
            "recipe": DETECTOR_RECIPE,
        }
    )


def export(checkpoint_uri: str, settings: TrainSettings) -> int:
    """Store a trained checkpoint as the package's demo network; return the size of its weights in bytes."""
    checkpoint = load_checkpoint(checkpoint_uri)
    model = checkpoint.config.model.model_copy(update={"joint_embedding": False})  # labeling does not use it
    network = create_model("manet", **model.model_dump(exclude={"family"}))
    kept = {name: value for name, value in checkpoint.model.state_dict().items() if name in network.state_dict()}
    network.load_state_dict(kept, strict=True)
    recipe: dict[str, Any] = {
        "made_by": "python -m microaction.cli.demo_model",
        "data": {"kind": "drawn people (microaction.synthetic)", **DATA},
        "recipe": settings.recipe.model_dump(mode="json"),
        "seed": settings.seed,
        "epoch": checkpoint.config.recipe["epoch"],
        "stored": "float16, without the embedding branch",
    }
    config = checkpoint.config.model_copy(update={"model": model, "recipe": recipe, "versions": versions()})
    return _store(DEMO_MODEL, network, config)


def export_detector(checkpoint_uri: str, settings: TrainSettings) -> int:
    """Store a trained detector as the package's; return the size of its weights in bytes."""
    checkpoint = load_checkpoint(checkpoint_uri)
    recipe: dict[str, Any] = {
        "made_by": "python -m microaction.cli.demo_model",
        "data": {"kind": "drawn people in untrimmed video (microaction.synthetic)", **UNTRIMMED},
        "recipe": settings.recipe.model_dump(mode="json"),
        "init": DEMO_MODEL,
        "seed": settings.seed,
        "epoch": checkpoint.config.recipe["epoch"],
        "stored": "float16",
    }
    config = checkpoint.config.model_copy(update={"recipe": recipe, "versions": versions()})
    return _store(DEMO_DETECTOR, checkpoint.model, config)


def _store(name: str, network: Network, config: CheckpointConfig) -> int:
    weights = weights_bytes(network.half())
    if len(weights) > MAX_BYTES:
        raise ValueError(f"the network has {len(weights)} bytes, more than {MAX_BYTES}: make it smaller")
    folder = packaged_folder(name)
    storage.write_bytes(storage.join(folder, WEIGHTS_FILE), weights)
    storage.write_bytes(storage.join(folder, CONFIG_FILE), config.model_dump_json(indent=2).encode() + b"\n")
    console.print(f"stored as --model {name}: {len(weights) / 1e6:.2f} MB, {config.metrics}", highlight=False)
    return len(weights)


if __name__ == "__main__":
    main()
