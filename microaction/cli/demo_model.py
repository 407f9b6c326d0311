"""Makes the network that the package ships as `--model demo`: `python -m microaction.cli.demo_model [FOLDER]` (make demo-model).

Draws clips of people whom no interview of the demo shows, trains a small MANet on them (about 25 minutes on 2 cores; the same
command again continues), and stores it in `microaction/models/demo/`, without its embedding branch and in float16. How it was
made is in its `config.json`: recipe, data, versions, and metrics on drawn people that it was not trained on.
"""

import sys
from importlib import resources
from pathlib import Path
from typing import Any

from microaction import storage
from microaction.cli.app import console, reported_errors, running_ray, shown_progress
from microaction.cli.demo_training import RECIPE, SMALL_MODEL, SMALL_PIXELS
from microaction.cli.train import train
from microaction.models import create_model, load_checkpoint
from microaction.models.checkpoint import CONFIG_FILE, DEMO_FOLDER, WEIGHTS_FILE, weights_bytes
from microaction.synthetic import make_dataset
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
    with reported_errors(), running_ray(), shown_progress("training") as show:
        trained = train(settings, show)
    size = export(trained.checkpoint, settings)
    console.print(f"stored as --model demo: {size / 1e6:.2f} MB, {trained.metrics}", highlight=False)


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
    weights = weights_bytes(network.half())
    if len(weights) > MAX_BYTES:
        raise ValueError(f"the demo network has {len(weights)} bytes, more than {MAX_BYTES}: make it smaller")
    folder = str(resources.files("microaction.models") / DEMO_FOLDER)
    storage.write_bytes(storage.join(folder, WEIGHTS_FILE), weights)
    storage.write_bytes(storage.join(folder, CONFIG_FILE), config.model_dump_json(indent=2).encode() + b"\n")
    return len(weights)


if __name__ == "__main__":
    main()
