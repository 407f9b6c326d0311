"""A drawn substitute for the licensed dataset: jointed figures that perform all 52 micro-actions, in clips and interviews."""

from microaction.synthetic.dataset import SyntheticDataset, make_dataset
from microaction.synthetic.interview import (
    InterviewSpec,
    SyntheticArchive,
    make_interview,
    make_interviews,
    plan_interview,
    write_interview_skeletons,
)
from microaction.synthetic.render import DEFAULT_FPS, DEFAULT_SIZE, VideoSize, render_clip
from microaction.synthetic.subject import Subject
from microaction.synthetic.truth import TruthEvent
from microaction.synthetic.untrimmed import plan_untrimmed
from microaction.synthetic.untrimmed_dataset import UntrimmedDataset, make_untrimmed_dataset

__all__ = [
    "DEFAULT_FPS",
    "DEFAULT_SIZE",
    "InterviewSpec",
    "Subject",
    "SyntheticArchive",
    "SyntheticDataset",
    "TruthEvent",
    "UntrimmedDataset",
    "VideoSize",
    "make_dataset",
    "make_interview",
    "make_interviews",
    "make_untrimmed_dataset",
    "plan_interview",
    "plan_untrimmed",
    "render_clip",
    "write_interview_skeletons",
]
