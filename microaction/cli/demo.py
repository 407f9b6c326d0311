"""`python -m jobs.demo`: the whole story on one machine, with drawn people in place of a licensed dataset.

clips → train → evaluate on unseen subjects → interviews (some of them bad files) → label → compare with the truth
"""

import csv
import shutil
import time
from pathlib import Path

import pyarrow.dataset as pads
from rich.rule import Rule
from rich.table import Table

from microaction.cli.app import console, parse_settings, reported_errors, running_ray, shown_progress
from microaction.cli.demo import DemoSettings
from microaction.cli.evaluate import metrics_table
from microaction.cli.label import ProgressFormatter, summary_table
from microaction.cli.train import report
from microaction.evaluation.detection import Agreement, TimedAction, match_events
from microaction.evaluation.run import run_evaluation
from microaction.evaluation.settings import EvaluateSettings
from microaction.labeling.run import RunSummary, run_labeling
from microaction.labeling.settings import LabelSettings
from microaction.models.manet.config import ManetConfig
from microaction.preprocessing import Preprocessing
from microaction.synthetic import InterviewSpec, SyntheticDataset, make_dataset, make_interviews
from microaction.synthetic.faults import write_audio_only, write_truncated
from microaction.training.run import TrainingResult, run_training
from microaction.training.settings import RecipeConfig, TrainSettings

NUM_TRAIN_SUBJECTS = 80
NUM_VAL_SUBJECTS = 12
FIRST_INTERVIEW_SUBJECT = 9000  # no subject of the clips
# What two cores can train from nothing in a few minutes. Crops of full size only: with so few epochs every clip counts.
SMALL_MODEL = ManetConfig(num_segments=4, width=24, depths=(1, 1, 1, 1), dropout=0.0)
SMALL_PIXELS = Preprocessing(short_side=64, crop=64)
RECIPE = RecipeConfig(batch_size=8, learning_rate=0.005, schedule="cosine", warmup_epochs=0.3, crop_scales=(1.0,))
START_THRESHOLD = 0.3  # a model that was trained so briefly is not sure of much
MIN_IOU = 0.5  # an event is found where it overlaps the truth by at least this, as detection benchmarks count


def main() -> None:
    settings = parse_settings(DemoSettings)
    started = time.monotonic()
    with reported_errors():
        dataset = draw_clips(settings)
        archive = draw_interviews(settings)
        with running_ray():
            trained = train(settings, dataset)
            metrics = evaluate(settings, dataset, trained)
            labels = label(settings, archive, trained)
    agreement = compare(settings)
    console.print(Rule("The whole story"))
    console.print(story(settings, metrics, labels, agreement, time.monotonic() - started), highlight=False)


def draw_clips(settings: DemoSettings) -> SyntheticDataset:
    console.print(Rule("1/5  Drawing labelled clips: 52 actions, many people"))
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
    """Interviews with people that no clip shows, and three files such as every archive has."""
    console.print(Rule("2/5  Drawing interviews, and a few bad files among them"))
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


def train(settings: DemoSettings, dataset: SyntheticDataset) -> TrainingResult:
    console.print(Rule("3/5  Training a small MANet on this machine's CPU"))
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
        return run_training(train_settings, on_progress=lambda progress: report(progress, show))


def evaluate(settings: DemoSettings, dataset: SyntheticDataset, trained: TrainingResult) -> dict[str, float]:
    console.print(Rule(f"4/5  Measuring it on {NUM_VAL_SUBJECTS} people it has never seen"))
    out = str(Path(settings.out, "evaluation"))
    evaluate_settings = EvaluateSettings(
        model=trained.checkpoint, clips_list=str(dataset.val_list), videos=str(dataset.val_dir), out=out
    )
    with shown_progress("measuring") as show:
        metrics = run_evaluation(
            evaluate_settings, on_progress=lambda progress: show(*progress, f"{progress[0]} of {progress[1]} clips")
        )
    console.print(metrics_table(metrics, out))
    return metrics


def label(settings: DemoSettings, archive: Path, trained: TrainingResult) -> RunSummary:
    console.print(Rule("5/5  Labelling the interviews"))
    label_settings = LabelSettings(
        archive=str(archive),
        out=str(Path(settings.out, "labels")),
        model=trained.checkpoint,
        start_threshold=START_THRESHOLD,
    )
    with shown_progress("labelling") as show:
        shown = ProgressFormatter()
        summary = run_labeling(label_settings, on_progress=lambda progress: show(*shown(progress)))
    console.print(summary_table(summary, label_settings.out))
    return summary


def compare(settings: DemoSettings) -> Agreement:
    """The found events of the interviews against what was drawn."""
    with open(Path(settings.out, "interviews", "truth.csv"), encoding="utf-8") as file:
        truth = [
            TimedAction(row["video"], int(row["action_id"]), float(row["start_s"]), float(row["end_s"]))
            for row in csv.DictReader(file)
        ]
    with_truth = {event.video for event in truth}
    found = [
        TimedAction(name, row["action_id"], row["start_s"], row["end_s"], row["probability"])
        for row in pads.dataset(Path(settings.out, "labels", "events")).to_table().to_pylist()
        if (name := Path(row["video"]).name) in with_truth
    ]
    return match_events(found, truth, MIN_IOU)


def story(
    settings: DemoSettings, metrics: dict[str, float], labels: RunSummary, agreement: Agreement, seconds: float
) -> Table:
    """What happened, in words for somebody who sees this for the first time."""
    failures = pads.dataset(Path(settings.out, "labels", "failures")).to_table(columns=["video", "reason"]).to_pylist()
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_row(
        "trained",
        f"on {settings.num_train_clips} clips of {NUM_TRAIN_SUBJECTS} drawn people; on {settings.num_val_clips} clips of "
        f"people it never saw it names the right one of 52 actions {metrics['action_top1']:.0%} of the time and the right "
        f"body part {metrics['body_top1']:.0%} (guessing: 2% and 14%)",
    )
    table.add_row(
        "labelled",
        f"{labels.publication.num_videos} files, {labels.publication.covered_s / 60:.1f} minutes of video, as "
        f"{labels.publication.num_windows} windows and {labels.publication.num_events} events",
    )
    table.add_row(
        "compared",
        f"{agreement.num_matched} of {agreement.num_true} actions in the interviews were found where they happen "
        f"(overlap ≥ {MIN_IOU:.0%}); {agreement.precision:.0%} of the {agreement.num_found} events found are such ones",
    )
    for failure in failures:
        table.add_row("not readable", f"{Path(failure['video']).name}: {failure['reason']}")
    table.add_row("took", f"{seconds / 60:.1f} minutes")
    table.add_row("", "")
    table.add_row("look at it", f"{settings.out}/evaluation/confusion.png, and in Python:")
    table.add_row("", "import pandas as pd")
    for name in ("events", "windows", "videos", "failures"):
        table.add_row("", f'pd.read_parquet("{settings.out}/labels/{name}")')
    return table


if __name__ == "__main__":
    main()
