"""The page that shows why a candidate was promoted or rejected. Needs no other file and no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from microaction import storage
from microaction.evaluation.metrics import measure, per_class_metrics
from microaction.pages import render
from microaction.retraining.attempt import Attempt
from microaction.retraining.gates import ChangedConfusion, Comparison, Verdict, changed_confusions
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS

CONFUSIONS_SHOWN = 15


@dataclass(frozen=True)
class ComparedAction:
    """An action, by its label: how many there are, and how well each model does."""

    label: int
    support: int
    candidate: float
    production: float

    @property
    def action(self) -> str:
        """The action's name."""
        return ACTIONS[self.label]

    @property
    def body_part(self) -> str:
        """The name of its body part."""
        return BODY_PARTS[BODY_PART_OF[self.label]]


@dataclass(frozen=True)
class ComparedModels:
    """Two models on the same clips or instances (`unit`): metrics of the candidate and of production, the `score` of every
    action, and the confusions that changed most, where there are any."""

    unit: str
    num_judged: int
    num_left_out: int
    metrics: Sequence[Mapping[str, float]]
    score: str
    actions: Sequence[ComparedAction]
    confusions: Sequence[ChangedConfusion] | None = None


def compared_classifiers(comparison: Comparison) -> ComparedModels:
    """Return what the page shows of models that classify clips."""
    candidate_NK, production_NK, target_N = comparison.candidate_NK, comparison.production_NK, comparison.target_N
    per_class = zip(per_class_metrics(candidate_NK, target_N), per_class_metrics(production_NK, target_N), strict=True)
    return ComparedModels(
        unit="clips",
        num_judged=len(target_N),
        num_left_out=comparison.num_left_out,
        metrics=[measure(candidate_NK, target_N), measure(production_NK, target_N)],
        score="F1",
        actions=[
            ComparedAction(label, int(mine["support"]), mine["f1"], other["f1"])
            for label, (mine, other) in enumerate(per_class)
        ],
        confusions=changed_confusions(comparison, ACTIONS, CONFUSIONS_SHOWN),
    )


def write_page(attempt: Attempt, compared: ComparedModels, verdicts: list[Verdict]) -> None:
    """Write the page into the attempt's folder."""
    ours, theirs = compared.metrics
    page = render(
        "microaction.retraining",
        "page.html.j2",
        production=attempt.production.name,
        delta=attempt.delta,
        compared=compared,
        verdicts=verdicts,
        failed=[verdict for verdict in verdicts if not verdict.is_passed],
        metrics=[(name, ours[name], theirs[name]) for name in ours],
        gates=attempt.settings.gates,
        start=attempt.settings.start,
    )
    storage.write_bytes(attempt.page_uri, page)
