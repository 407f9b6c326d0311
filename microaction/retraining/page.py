"""The page that shows why a candidate was promoted or refused. Needs no other file and no network."""

from dataclasses import dataclass

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from microaction import storage
from microaction.evaluation.metrics import measure, per_class_metrics
from microaction.retraining.data import DataDelta
from microaction.retraining.gates import Verdict, changed_confusions
from microaction.retraining.settings import RetrainSettings
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS

CONFUSIONS_SHOWN = 15


@dataclass(frozen=True)
class Comparison:
    """Candidate and production on the same held-out clips: the name of the version in production, what is new since, the
    probabilities of both, the true actions, and how many held-out clips could not be read."""

    production: str
    delta: DataDelta
    candidate_NK: np.ndarray
    production_NK: np.ndarray
    target_N: np.ndarray
    num_left_out: int


def write_page(uri: str, comparison: Comparison, verdicts: list[Verdict], settings: RetrainSettings) -> None:
    """Write the page."""
    candidate_NK, production_NK, target_N = comparison.candidate_NK, comparison.production_NK, comparison.target_N
    environment = Environment(
        loader=PackageLoader("microaction.retraining", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    ours, theirs = measure(candidate_NK, target_N), measure(production_NK, target_N)
    per_class = zip(
        ACTIONS, per_class_metrics(candidate_NK, target_N), per_class_metrics(production_NK, target_N), strict=True
    )
    page = environment.get_template("page.html.j2").render(
        production=comparison.production,
        delta=comparison.delta,
        num_clips=len(target_N),
        num_left_out=comparison.num_left_out,
        verdicts=verdicts,
        failed=[verdict for verdict in verdicts if not verdict.is_passed],
        metrics=[(name, ours[name], theirs[name]) for name in ours],
        per_class=[
            {
                "action": action,
                "body_part": BODY_PARTS[BODY_PART_OF[label]],
                "support": int(mine["support"]),
                "candidate": mine["f1"],
                "production": other["f1"],
                "is_gate": mine["support"] >= settings.gates.min_support,
            }
            for label, (action, mine, other) in enumerate(per_class)
        ],
        confusions=changed_confusions(candidate_NK, production_NK, target_N, ACTIONS, CONFUSIONS_SHOWN),
        gates=settings.gates,
        start=settings.start,
    )
    storage.write_bytes(uri, page.encode())
