"""The page that shows why a candidate was promoted or rejected. Needs no other file and no network."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from microaction import storage
from microaction.evaluation.metrics import measure, per_class_metrics
from microaction.retraining.attempt import Attempt
from microaction.retraining.gates import Comparison, Verdict, changed_confusions
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS

CONFUSIONS_SHOWN = 15


def write_page(attempt: Attempt, comparison: Comparison, verdicts: list[Verdict]) -> None:
    """Write the page into the attempt's folder."""
    candidate_NK, production_NK, target_N = comparison.candidate_NK, comparison.production_NK, comparison.target_N
    gates = attempt.settings.gates
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
        production=attempt.production.name,
        delta=attempt.delta,
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
                "is_gate": mine["support"] >= gates.min_support,
            }
            for label, (action, mine, other) in enumerate(per_class)
        ],
        confusions=changed_confusions(comparison, ACTIONS, CONFUSIONS_SHOWN),
        gates=gates,
        start=attempt.settings.start,
    )
    storage.write_bytes(attempt.page_uri, page.encode())
