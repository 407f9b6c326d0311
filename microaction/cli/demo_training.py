"""What the demo trains, and how: networks that two cores can train from scratch in a few minutes.

A network of two paths takes three runs, as its reference does: each path alone, then the whole, which begins with their weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.rule import Rule

from microaction.cli.app import console, shown_progress
from microaction.cli.evaluate import evaluate, metrics_table
from microaction.cli.train import train
from microaction.evaluation.settings import EvaluateSettings
from microaction.models.manet.config import ManetConfig
from microaction.models.pcan.family import FRAMES_RATIO, PCANConfig, PCANPoseConfig, PCANRGBConfig
from microaction.models.settings import ModelConfig
from microaction.preprocessing import Preprocessing
from microaction.training.settings import RecipeConfig, TrainSettings

if TYPE_CHECKING:
    from microaction.synthetic import SyntheticDataset
    from microaction.training.run import TrainingResult

NetworkName = Literal["manet", "pcan"]
NUM_TRAIN_SUBJECTS = 80
NUM_VAL_SUBJECTS = 12


@dataclass(frozen=True)
class DemoRun:
    """One training run. `initial`: the settings that name initial weights, and the runs that make these."""

    name: str
    title: str
    model: ModelConfig
    preprocessing: Preprocessing
    recipe: RecipeConfig
    initial: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DemoNetwork:
    """The training runs of a network, the last of which is that of the whole, and its folders within the demo's."""

    runs: tuple[DemoRun, ...]
    num_train_clips: int
    evaluation: str
    labels: str

    @property
    def sees_skeletons(self) -> bool:
        """Whether clips and interviews need tables of skeletons."""
        return self.runs[-1].model.num_pose_frames > 0


@dataclass(frozen=True)
class TrainedNetwork:
    """The results of a network's training runs, in their order, and the metrics of the last on clips of unseen people."""

    results: tuple["TrainingResult", ...]
    metrics: dict[str, float]

    @property
    def checkpoint(self) -> str:
        """The directory of the whole network's checkpoint."""
        return self.results[-1].checkpoint


SMALL_MODEL = ManetConfig(num_frames=4, width=24, depths=(1, 1, 1, 1), dropout=0.0)
SMALL_PIXELS = Preprocessing(short_side=64, crop=64)
# Crops of full size only: with so few epochs every clip counts.
RECIPE = RecipeConfig(
    epochs=7, batch_size=8, learning_rate=0.005, schedule="cosine", warmup_epochs=0.3, crop_scales=(1.0,)
)

SMALL_PCAN = PCANConfig(
    num_frames=4, rgb_width=16, pose_width=8, rgb_depths=(1, 1, 1, 1), pose_depths=(1, 1, 1), dropout=0.0
)
SMALL_RGB_PATH = PCANRGBConfig(
    num_frames=SMALL_PCAN.num_frames, width=SMALL_PCAN.rgb_width, depths=SMALL_PCAN.rgb_depths, dropout=0.0
)
SMALL_POSE_PATH = PCANPoseConfig(
    num_frames=FRAMES_RATIO * SMALL_PCAN.num_frames,
    width=SMALL_PCAN.pose_width,
    depths=SMALL_PCAN.pose_depths,
    dropout=0.0,
)
PEOPLE_PIXELS = Preprocessing(short_side=64, crop=64, fit="people", sampling="bins")
# The whole draws heatmaps at a quarter of the crop, its pose path alone at the size of the crop.
HEATMAP_SIDE = PEOPLE_PIXELS.crop // 4
HEATMAP_PIXELS = PEOPLE_PIXELS.model_copy(update={"short_side": HEATMAP_SIDE, "crop": HEATMAP_SIDE})

NETWORKS: Mapping[NetworkName, DemoNetwork] = {
    "manet": DemoNetwork(
        (DemoRun("model", "a small MANet", SMALL_MODEL, SMALL_PIXELS, RECIPE),),
        num_train_clips=2600,
        evaluation="evaluation",
        labels="labels-trained",
    ),
    "pcan": DemoNetwork(
        (
            DemoRun(
                "pcan-rgb",
                "PCAN's RGB path",
                SMALL_RGB_PATH,
                PEOPLE_PIXELS,
                RECIPE.model_copy(update={"epochs": 3}),
            ),
            DemoRun(
                "pcan-pose",
                "PCAN's pose path",
                SMALL_POSE_PATH,
                HEATMAP_PIXELS,
                RECIPE.model_copy(update={"epochs": 2, "learning_rate": 0.02}),
            ),
            DemoRun(
                "pcan",
                "PCAN, which begins with both paths",
                SMALL_PCAN,
                PEOPLE_PIXELS,
                RECIPE.model_copy(update={"epochs": 2, "learning_rate": 0.01}),
                initial={"init": "pcan-rgb", "init_pose": "pcan-pose"},
            ),
        ),
        num_train_clips=1040,  # keypoints say more than pixels: fewer clips suffice
        evaluation="evaluation-pcan",
        labels="labels-pcan",
    ),
}
DEFAULT_CLIPS = "; ".join(f"{network.num_train_clips} ({name})" for name, network in NETWORKS.items())
DEFAULT_EPOCHS = "; ".join(
    f"{', '.join(str(run.recipe.epochs) for run in network.runs)} ({name})" for name, network in NETWORKS.items()
)


def train_network(
    network: DemoNetwork, dataset: "SyntheticDataset", out: str, *, epochs: int | None, seed: int
) -> TrainedNetwork:
    """Train a network into the folder `out` and evaluate it; `epochs`, if given, are those of each of its runs.

    Run again, it resumes. Needs a running Ray.
    """
    results: dict[str, TrainingResult] = {}
    for run in network.runs:
        console.print(Rule(f"Training {run.title} on this machine's CPU"))
        initial = {setting: results[name].checkpoint for setting, name in run.initial.items()}
        settings = train_settings(run, dataset, out, epochs=epochs, seed=seed, initial=initial)
        with shown_progress("training") as show:
            results[run.name] = train(settings, show)
    *_, whole = results.values()
    return TrainedNetwork(tuple(results.values()), _evaluate(network, dataset, whole.checkpoint, out))


def train_settings(
    run: DemoRun, dataset: "SyntheticDataset", out: str, *, epochs: int | None, seed: int, initial: Mapping[str, str]
) -> TrainSettings:
    """Return the settings of a training run."""
    sees_skeletons = run.model.num_pose_frames > 0 or run.preprocessing.fit == "people"
    data: dict[str, Any] = {
        "train_list": str(dataset.train_list),
        "train_videos": str(dataset.train_dir),
        "val_list": str(dataset.val_list),
        "val_videos": str(dataset.val_dir),
        "train_skeletons": str(dataset.train_skeletons) if sees_skeletons else None,
        "val_skeletons": str(dataset.val_skeletons) if sees_skeletons else None,
    }
    return TrainSettings(
        **data,
        **initial,
        storage_path=out,
        name=run.name,
        model=run.model,
        preprocessing=run.preprocessing,
        recipe=run.recipe.model_copy(update={} if epochs is None else {"epochs": epochs}),
        seed=seed,
    )


def _evaluate(network: DemoNetwork, dataset: "SyntheticDataset", checkpoint: str, out: str) -> dict[str, float]:
    console.print(Rule(f"Evaluating it on {NUM_VAL_SUBJECTS} people it has never seen"))
    settings = EvaluateSettings(
        model=checkpoint,
        clips_list=str(dataset.val_list),
        videos=str(dataset.val_dir),
        skeletons=str(dataset.val_skeletons) if network.sees_skeletons else None,
        out=str(Path(out, network.evaluation)),
    )
    with shown_progress("evaluating") as show:
        metrics = evaluate(settings, show).metrics
    console.print(metrics_table(metrics, settings.out))
    return metrics
