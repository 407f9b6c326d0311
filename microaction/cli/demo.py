"""`microaction demo`: the whole story on one machine, with drawn people in place of a licensed dataset.

interviews (some of them bad files) → find actions in them → compare with the truth; with --train before it:
clips → train → evaluate on unseen subjects
In the interviews several actions overlap, which the shipped detector finds. A network that is trained on clips names one action
at a time: with --train, interviews show one at a time. A network that sees skeletons gets tables of them.
"""

import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from rich.rule import Rule
from rich.table import Table

from microaction.cli.app import console, parse_settings, reported_errors, running_ray, shown_progress
from microaction.cli.demo_training import (
    DEFAULT_CLIPS,
    DEFAULT_EPOCHS,
    NETWORKS,
    NUM_TRAIN_SUBJECTS,
    NUM_VAL_SUBJECTS,
    DemoNetwork,
    NetworkName,
    TrainedNetwork,
    train_network,
)
from microaction.cli.label import label, summary_table
from microaction.cli.page import show_pages
from microaction.export.settings import PageSettings
from microaction.labeling.settings import LabelSettings
from microaction.settings import DEMO_DETECTOR, CommandSettings, Location

if TYPE_CHECKING:
    from microaction.evaluation.detection import Agreement, TimedAction
    from microaction.labeling.run import RunSummary
    from microaction.synthetic import SyntheticDataset

FIRST_INTERVIEW_SUBJECT = 9000  # no subject of the clips
FIRST_INTERVIEW = "interview_1.mp4"
COPY_NAME = "really_an_mp4.avi"  # of the first interview
TWO_PEOPLE, TWO_PEOPLE_TRUTH, TWO_PEOPLE_S = "two_people.mp4", "two_people.csv", 45.0
TRAINED_START_THRESHOLD = 0.3  # a network that was trained so briefly is not sure of much
MIN_IOU = 0.5  # an event is found where it overlaps the truth by at least this, as detection benchmarks count


class DemoSettings(CommandSettings):
    """Draw interviews, find the actions in them with the detector that the package ships, and compare with the truth."""

    out: Location = Field(
        "demo", description="Folder for interviews/ and labels/, and with train for clips/, runs and evaluation."
    )
    train: bool = Field(
        False, description="First draw labeled clips, train a network on them and evaluate it, then label with that."
    )
    network: NetworkName = Field(
        "manet",
        description="Network to train: `manet`; or `pcan`, which also sees the skeletons of people, and whose two paths are "
        "trained alone before.",
    )
    num_train_clips: PositiveInt | None = Field(
        None, description=f"Clips to train on; multiples of 52 are balanced. Default: {DEFAULT_CLIPS}."
    )
    num_val_clips: PositiveInt = Field(312, description="Clips to validate on, of other subjects.")
    epochs: PositiveInt | None = Field(None, description=f"Epochs of each training run. Default: {DEFAULT_EPOCHS}.")
    num_interviews: PositiveInt = Field(4, description="Interviews to draw.")
    interview_s: PositiveFloat = Field(90.0, description="Length of each interview in seconds.")
    seed: int = Field(0, description="Seed of everything random.")

    @model_validator(mode="after")
    def _network_is_trained(self) -> "DemoSettings":
        if self.network != "manet" and not self.train:
            raise ValueError(
                f"network={self.network} belongs to train: without it the demo labels with the shipped detector"
            )
        return self

    @property
    def trained_network(self) -> DemoNetwork:
        """The network to train."""
        return NETWORKS[self.network]

    @property
    def train_clips(self) -> int:
        """The number of clips to train on."""
        return self.num_train_clips or self.trained_network.num_train_clips

    @property
    def labels_folder(self) -> Path:
        """The folder of the labels: each model has its own."""
        return Path(self.out, self.trained_network.labels if self.train else "labels")

    @property
    def interviews_folder(self) -> Path:
        """The folder of the interviews: with several actions at once, or for trained networks one at a time."""
        return Path(self.out, "interviews-one-at-a-time" if self.train else "interviews")

    @property
    def interview_skeletons(self) -> Path | None:
        """The table of the interviews' skeletons, if the network sees them."""
        return Path(self.out, "interview_skeletons.parquet") if self.trained_network.sees_skeletons else None


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    settings = parse_settings(DemoSettings, argv)
    started_s = time.monotonic()
    with reported_errors():
        dataset = draw_clips(settings) if settings.train else None
        archive = draw_interviews(settings)
        with running_ray():
            trained = None
            if dataset is not None:
                trained = train_network(
                    settings.trained_network, dataset, settings.out, epochs=settings.epochs, seed=settings.seed
                )
            summary = _label(settings, archive, DEMO_DETECTOR if trained is None else trained.checkpoint)
    index = show_pages(PageSettings(out=str(settings.labels_folder)))
    comparison = compare(settings)
    console.print(Rule("The result"))
    console.print(_story(settings, trained, summary, comparison, index, time.monotonic() - started_s), highlight=False)


def draw_clips(settings: DemoSettings) -> "SyntheticDataset":
    """Draw the labeled clips that do not exist yet."""
    from microaction.synthetic import make_dataset

    console.print(Rule("Drawing labeled clips: 52 actions, many people"))
    with shown_progress("drawing clips") as show:
        return make_dataset(
            Path(settings.out, "clips"),
            num_train_subjects=NUM_TRAIN_SUBJECTS,
            num_val_subjects=NUM_VAL_SUBJECTS,
            num_train_clips=settings.train_clips,
            num_val_clips=settings.num_val_clips,
            seed=settings.seed,
            with_skeletons=settings.trained_network.sees_skeletons,
            on_progress=lambda done, total: show(done, total, f"{done} of {total} clips"),
        )


def draw_interviews(settings: DemoSettings) -> Path:
    """Draw interviews with people whom no clip shows, and three files such as every archive has.

    Their skeletons go into `settings.interview_skeletons`, if the network sees them.
    """
    from microaction.synthetic import InterviewSpec, make_interviews, write_interview_skeletons
    from microaction.synthetic.faults import write_audio_only, write_truncated

    console.print(Rule("Drawing interviews, and a few bad files"))
    specs = [
        InterviewSpec(
            FIRST_INTERVIEW if i == 0 else f"interview_{i + 1}.mp4",
            FIRST_INTERVIEW_SUBJECT + i,
            settings.seed + i,
            settings.interview_s,
            overlapping=not settings.train,
        )
        for i in range(settings.num_interviews)
    ]
    root = settings.interviews_folder
    with shown_progress("drawing interviews") as show:
        make_interviews(root, specs, on_progress=lambda done, total: show(done, total, f"{done} of {total}"))
    first = root / specs[0].name
    if not (root / "audio_only.mp4").exists():
        write_truncated(root / "cut_short.mp4", first)
        shutil.copyfile(first, root / COPY_NAME)
        write_audio_only(root / "audio_only.mp4")
    if settings.interview_skeletons is None:
        draw_two_people(settings, root)
    else:
        write_interview_skeletons(settings.interview_skeletons, [*specs, replace(specs[0], name=COPY_NAME)])
    return root


def draw_two_people(settings: DemoSettings, root: Path) -> None:
    """Draw an interview of two people, who sit next to each other, and write who does what."""
    from microaction.synthetic.scene import Shot, make_scene, side_by_side, write_scene_truth

    with shown_progress("drawing two people") as show:
        show(0, 1, "0 of 1")
        truth = make_scene(
            root / TWO_PEOPLE,
            subject_seeds=[FIRST_INTERVIEW_SUBJECT + 100, FIRST_INTERVIEW_SUBJECT + 101],
            shots=[Shot(TWO_PEOPLE_S, side_by_side(0, 1))],
            seed=settings.seed,
            size=(640, 360),
            overlapping=not settings.train,
        )
        show(1, 1, "1 of 1")
    write_scene_truth(root / TWO_PEOPLE_TRUTH, {TWO_PEOPLE: truth})


def _label(settings: DemoSettings, archive: Path, model: str) -> "RunSummary":
    console.print(Rule("Labeling the interviews"))
    changes: dict[str, Any] = {"start_threshold": TRAINED_START_THRESHOLD} if settings.train else {}
    if settings.interview_skeletons is not None:
        changes["skeletons"] = str(settings.interview_skeletons)
    label_settings = LabelSettings(archive=str(archive), out=str(settings.labels_folder), model=model, **changes)
    with shown_progress("labeling") as show:
        summary = label(label_settings, show)
    console.print(summary_table(summary, label_settings.out))
    return summary


@dataclass(frozen=True)
class Comparison:
    """How the events agree with what was drawn, and how much those that do overlap it, on average."""

    agreement: "Agreement"
    mean_overlap: float


def compare(settings: DemoSettings) -> Comparison:
    """Compare the found events of the interviews with what was drawn."""
    from microaction.evaluation.detection import match_events, matched_pairs, temporal_iou

    archive = settings.interviews_folder
    truth = read_truth(archive / "truth.csv")
    if settings.interview_skeletons is None:
        truth += read_truth(archive / TWO_PEOPLE_TRUTH)
    found = read_events(settings.labels_folder, {event.video for event in truth})
    overlaps = [temporal_iou(*pair) for pair in matched_pairs(found, truth, MIN_IOU)]
    return Comparison(match_events(found, truth, MIN_IOU), sum(overlaps) / len(overlaps) if overlaps else 0.0)


def read_truth(path: Path) -> "list[TimedAction]":
    """Return what was drawn, from a table of the truth. Each person of a video counts as a video."""
    import csv

    from microaction.evaluation.detection import TimedAction

    with open(path, encoding="utf-8") as file:
        return [
            TimedAction(
                person_key(row["video"], int(row.get("person", 0))),
                int(row["action_id"]),
                float(row["start_s"]),
                float(row["end_s"]),
            )
            for row in csv.DictReader(file)
        ]


def read_events(labels: Path, videos: set[str]) -> "list[TimedAction]":
    """Return the events that were found in some videos, by the keys of people; they count from left to right."""
    import pyarrow.dataset as pads

    from microaction.evaluation.detection import TimedAction

    lefts: dict[str, list[tuple[int, int]]] = {}
    for row in pads.dataset(labels / "people").to_table(columns=["video", "person", "spans"]).to_pylist():
        left = row["spans"][0]["left"] if row["spans"] else 0
        lefts.setdefault(row["video"], []).append((left, row["person"]))
    place_of = {
        (video, person): place for video, people in lefts.items() for place, (_, person) in enumerate(sorted(people))
    }
    return [
        TimedAction(key, row["action_id"], row["start_s"], row["end_s"], row["probability"])
        for row in pads.dataset(labels / "events").to_table().to_pylist()
        if (key := person_key(Path(row["video"]).name, place_of[row["video"], row["person"]])) in videos
    ]


def person_key(video: str, place: int) -> str:
    """Return what stands for a person of a video where actions are compared."""
    return f"{video}/{place}"


def _story(
    settings: DemoSettings,
    trained: TrainedNetwork | None,
    summary: "RunSummary",
    comparison: Comparison,
    index: str,
    seconds: float,
) -> Table:
    """Say what happened to somebody who sees this for the first time."""
    import pyarrow.dataset as pads

    labels, publication, agreement = settings.labels_folder, summary.publication, comparison.agreement
    failures = pads.dataset(labels / "failures").to_table(columns=["video", "reason"]).to_pylist()
    table = Table(show_header=False, box=None, padding=(0, 1))
    if trained is not None:
        metrics = trained.metrics
        table.add_row(
            "trained",
            f"on {settings.train_clips} clips of {NUM_TRAIN_SUBJECTS} drawn people; of {settings.num_val_clips} clips of "
            f"people it never saw it names the right one of 52 actions in {metrics['action_top1']:.0%} and the right body "
            f"part in {metrics['body_top1']:.0%} (guessing: 2% and 14%)",
        )
        for run, result in zip(settings.trained_network.runs[:-1], trained.results, strict=False):
            table.add_row("", f"{run.title} alone: {result.metrics['action_top1']:.0%} of the actions")
    table.add_row(
        "labeled",
        f"{publication.num_videos} files, {publication.covered_s / 60:.1f} minutes of video: {publication.num_events} events"
        + (f" of {publication.num_people} people" if publication.num_people else ""),
    )
    table.add_row(
        "compared",
        f"{agreement.num_matched} of {agreement.num_true} actions in the interviews were found where they happen (overlap ≥ "
        f"{MIN_IOU:.0%}, {comparison.mean_overlap:.0%} on average); {agreement.precision:.0%} of the {agreement.num_found} "
        "events found are right",
    )
    for line in dict.fromkeys(f"{Path(failure['video']).name}: {failure['reason']}" for failure in failures):
        table.add_row("not labeled", line)
    table.add_row("took", f"{seconds / 60:.1f} minutes")
    table.add_row("", "")
    table.add_row("open", os.path.relpath(index))
    if trained is not None:
        table.add_row("and", trained.results[-1].report)
    table.add_row("or in Python", "import microaction")
    table.add_row("", f'labels = microaction.read_labels("{labels}")')
    table.add_row("", f'labels.events, labels.plot_timeline("{FIRST_INTERVIEW}")')
    return table
