"""The page of the actions and body parts."""

from docs.scripts.markdown import table
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS

PAGE = """# Actions

The 52 micro-actions of MA-52 in the order of their labels, and the body part of each. The number is `action_id` in the
tables and the label in lists of clips. In Python: `microaction.taxonomy.ACTIONS`, `BODY_PARTS` and `BODY_PART_OF`
([API](api.md#taxonomy)).

{actions}

Labels name movements, nothing else. Source: Guo et al., *Benchmarking Micro-action Recognition: Dataset, Methods, and
Applications*, IEEE TCSVT 34(7), 2024.
"""


def render() -> str:
    """Return the page."""
    rows = [
        (str(label), action, BODY_PARTS[body_part], str(body_part))
        for label, (action, body_part) in enumerate(zip(ACTIONS, BODY_PART_OF, strict=True))
    ]
    return PAGE.format(actions=table(("label", "action", "body part", "its number"), rows))
