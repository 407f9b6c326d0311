"""`microaction demo`: the whole story on one machine, with drawn people in place of a licensed dataset.

interviews (some of them bad files) → label → compare with the truth; with --train before it:
clips → train → evaluate on unseen subjects
"""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, PositiveFloat, PositiveInt
from rich.rule import Rule
from rich.table import Table

from microaction.cli.app import console, parse_settings, reported_errors, running_ray, shown_progress
from microaction.cli.evaluate import evaluate, metrics_table
from microaction.cli.label import label, summary_table
from microaction.cli.train import train
from microaction.evaluation.settings import EvaluateSettings
from microaction.labeling.settings import LabelSettings
from microaction.models.manet.config import ManetConfig
from microaction.preprocessing import Preprocessing
from microaction.settings import DEMO_MODEL, CommandSettings, Location
from microaction.training.settings import RecipeConfig, TrainSettings

if TYPE_CHECKING:
    from microaction.evaluation.detection import Agreement, TimedAction
    from microaction.labeling.run import RunSummary
    from microaction.synthetic import SyntheticDataset
    from microaction.training.run import TrainingResult

NUM_TRAIN_SUBJECTS = 80
NUM_VAL_SUBJECTS = 12
FIRST_INTERVIEW_SUBJECT = 9000  # no subject of the clips
# What two cores can train from scratch in a few minutes. Crops of full size only: with so few epochs every clip counts.
SMALL_MODEL = ManetConfig(num_frames=4, width=24, depths=(1, 1, 1, 1), dropout=0.0)
SMALL_PIXELS = Preprocessing(short_side=64, crop=64)
RECIPE = RecipeConfig(batch_size=8, learning_rate=0.005, schedule="cosine", warmup_epochs=0.3, crop_scales=(1.0,))
TRAINED_START_THRESHOLD = 0.3  # a network that was trained so briefly is not sure of much
MIN_IOU = 0.5  # an event is found where it overlaps the truth by at least this, as detection benchmarks count


class DemoSettings(CommandSettings):
    """Draw interviews, label them with the network that the package ships, and compare with the truth."""

    out: Location = Field(
        DEMO_MODEL, description="Folder for interviews/ and labels/, and with train for clips/, model/ and evaluation/."
    )
    train: bool = Field(
        False, description="First draw labeled clips, train a network on them and evaluate it, then label with that."
    )
    num_train_clips: PositiveInt = Field(2600, description="Clips to train on; multiples of 52 are balanced.")
    num_val_clips: PositiveInt = Field(312, description="Clips to validate on, of other subjects.")
    epochs: PositiveInt = Field(7, description="Epochs of the training.")
    num_interviews: PositiveInt = Field(4, description="Interviews to draw.")
    interview_s: PositiveFloat = Field(90.0, description="Length of each interview in seconds.")
    seed: int = Field(0, description="Seed of everything random.")


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    settings = parse_settings(DemoSettings, argv)
    started_s = time.monotonic()
    metrics = None
    with reported_errors():
        dataset = draw_clips(settings) if settings.train else None
        archive = draw_interviews(settings)
        with running_ray():
            model = DEMO_MODEL
            if dataset is not None:
                trained = _train(settings, dataset)
                metrics, model = _evaluate(settings, dataset, trained), trained.checkpoint
            summary = _label(settings, archive, model)
    agreement = compare(settings)
    console.print(Rule("The result"))
    console.print(_story(settings, metrics, summary, agreement, time.monotonic() - started_s), highlight=False)


def draw_clips(settings: DemoSettings) -> "SyntheticDataset":
    """Draw the labeled clips that do not exist yet."""
    from microaction.synthetic import make_dataset

    console.print(Rule("Drawing labeled clips: 52 actions, many people"))
    with shown_progress("drawing clips") as show:
        return make_dataset(
            Path(settings.out, "clips"),
            num_train_subjects=NUM_TRAIN_SUBJECTS,
            num_val_subjects=NUM_VAL_SUBJECTS,
            num_train_clips=settings.num_train_clips,
            num_val_clips=settings.num_val_clips,
            seed=settings.seed,
            on_progress=lambda done, total: show(done, total, f"{done} of {total} clips"),
        )


def draw_interviews(settings: DemoSettings) -> Path:
    """Draw interviews with people whom no clip shows, and three files such as every archive has."""
    from microaction.synthetic import InterviewSpec, make_interviews
    from microaction.synthetic.faults import write_audio_only, write_truncated

    console.print(Rule("Drawing interviews, and a few bad files"))
    specs = [
        InterviewSpec(f"interview_{i + 1}.mp4", FIRST_INTERVIEW_SUBJECT + i, settings.seed + i, settings.interview_s)
        for i in range(settings.num_interviews)
    ]
    root = Path(settings.out, "interviews")
    with shown_progress("drawing interviews") as show:
        make_interviews(root, specs, on_progress=lambda done, total: show(done, total, f"{done} of {total}"))
    first = root / specs[0].name
    if not (root / "audio_only.mp4").exists():
        write_truncated(root / "cut_short.mp4", first)
        shutil.copyfile(first, root / "really_an_mp4.avi")
        write_audio_only(root / "audio_only.mp4")
    return root


def _train(settings: DemoSettings, dataset: "SyntheticDataset") -> "TrainingResult":
    console.print(Rule("Training a small MANet on this machine's CPU"))
    train_settings = TrainSettings(
        train_list=str(dataset.train_list),
        train_videos=str(dataset.train_dir),
        val_list=str(dataset.val_list),
        val_videos=str(dataset.val_dir),
        storage_path=settings.out,
        name="model",
        model=SMALL_MODEL,
        preprocessing=SMALL_PIXELS,
        recipe=RECIPE.model_copy(update={"epochs": settings.epochs}),
        seed=settings.seed,
    )
    with shown_progress("training") as show:
        return train(train_settings, show)


def _evaluate(settings: DemoSettings, dataset: "SyntheticDataset", trained: "TrainingResult") -> dict[str, float]:
    console.print(Rule(f"Evaluating it on {NUM_VAL_SUBJECTS} people it has never seen"))
    out = str(Path(settings.out, "evaluation"))
    evaluate_settings = EvaluateSettings(
        model=trained.checkpoint, clips_list=str(dataset.val_list), videos=str(dataset.val_dir), out=out
    )
    with shown_progress("evaluating") as show:
        metrics = evaluate(evaluate_settings, show).metrics
    console.print(metrics_table(metrics, out))
    return metrics


def _label(settings: DemoSettings, archive: Path, model: str) -> "RunSummary":
    console.print(Rule("Labeling the interviews"))
    thresholds = {"start_threshold": TRAINED_START_THRESHOLD} if settings.train else {}
    label_settings = LabelSettings.model_validate(
        {"archive": str(archive), "out": str(labels_folder(settings)), "model": model, **thresholds}
    )
    with shown_progress("labeling") as show:
        summary = label(label_settings, show)
    console.print(summary_table(summary, label_settings.out))
    return summary


def labels_folder(settings: DemoSettings) -> Path:
    """Return the folder of the labels: each model has its own."""
    return Path(settings.out, "labels-trained" if settings.train else "labels")


def compare(settings: DemoSettings) -> "Agreement":
    """Compare the found events of the interviews with what was drawn."""
    from microaction.evaluation.detection import match_events

    truth = read_truth(Path(settings.out, "interviews", "truth.csv"))
    found = read_events(labels_folder(settings) / "events", {event.video for event in truth})
    return match_events(found, truth, MIN_IOU)


def read_truth(path: Path) -> "list[TimedAction]":
    """Return what was drawn, from `truth.csv`."""
    import csv

    from microaction.evaluation.detection import TimedAction

    with open(path, encoding="utf-8") as file:
        return [
            TimedAction(row["video"], int(row["action_id"]), float(row["start_s"]), float(row["end_s"]))
            for row in csv.DictReader(file)
        ]


def read_events(folder: Path, videos: set[str]) -> "list[TimedAction]":
    """Return the events that were found in some videos, by file name."""
    import pyarrow.dataset as pads

    from microaction.evaluation.detection import TimedAction

    return [
        TimedAction(name, row["action_id"], row["start_s"], row["end_s"], row["probability"])
        for row in pads.dataset(folder).to_table().to_pylist()
        if (name := Path(row["video"]).name) in videos
    ]


def _story(
    settings: DemoSettings,
    metrics: dict[str, float] | None,
    summary: "RunSummary",
    agreement: "Agreement",
    seconds: float,
) -> Table:
    """Say what happened to somebody who sees this for the first time."""
    import pyarrow.dataset as pads

    labels, publication = labels_folder(settings), summary.publication
    failures = pads.dataset(labels / "failures").to_table(columns=["video", "reason"]).to_pylist()
    table = Table(show_header=False, box=None, padding=(0, 1))
    if metrics is not None:
        table.add_row(
            "trained",
            f"on {settings.num_train_clips} clips of {NUM_TRAIN_SUBJECTS} drawn people; of {settings.num_val_clips} clips of "
            f"people it never saw it names the right one of 52 actions in {metrics['action_top1']:.0%} and the right body "
            f"part in {metrics['body_top1']:.0%} (guessing: 2% and 14%)",
        )
    table.add_row(
        "labeled",
        f"{publication.num_videos} files, {publication.covered_s / 60:.1f} minutes of video: {publication.num_windows} "
        f"windows and {publication.num_events} events",
    )
    table.add_row(
        "compared",
        f"{agreement.num_matched} of {agreement.num_true} actions in the interviews were found where they happen (overlap ≥ "
        f"{MIN_IOU:.0%}); {agreement.precision:.0%} of the {agreement.num_found} events found are right",
    )
    for failure in failures:
        table.add_row("unreadable", f"{Path(failure['video']).name}: {failure['reason']}")
    table.add_row("took", f"{seconds / 60:.1f} minutes")
    table.add_row("", "")
    if metrics is not None:
        table.add_row("open", f"{settings.out}/model/report.html")
    table.add_row("open in Python", "import pandas as pd")
    for name in ("events", "windows", "videos", "failures"):
        table.add_row("", f'pd.read_parquet("{labels}/{name}")')
    return table
