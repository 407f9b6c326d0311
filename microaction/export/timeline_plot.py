"""The events of a video over time, as a figure for notebooks."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from microaction.export.labels import VideoLabels
from microaction.pages import COLORS, color_of, printable
from microaction.taxonomy import ACTIONS, BODY_PART_OF

WIDTH_IN, LANE_IN, MARGIN_IN = 10.0, 0.28, 1.3
MIN_ALPHA = 0.25  # of an event with a score of 0
DPI = 100


class NotebookFigure(Figure):
    """A figure that notebooks show as the result of a cell, whether or not pyplot was imported."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=DPI)
        return file.getvalue()


def timeline_figure(video: VideoLabels) -> Figure:
    """Return a figure with a lane per person and action that occurs, by person and body part, and time in seconds.

    Bars are in the person's color, and fainter where the probability is lower.
    """
    lanes = sorted(
        {(event.person, BODY_PART_OF[event.action_id], event.action_id) for event in video.events}, reverse=True
    )
    figure = NotebookFigure(figsize=(WIDTH_IN, MARGIN_IN + LANE_IN * max(len(lanes), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    row_of = {(person, action_id): row for row, (person, _, action_id) in enumerate(lanes)}
    for event in video.events:
        axes.broken_barh(
            [(event.start_s, event.end_s - event.start_s)],
            (row_of[event.person, event.action_id] - 0.4, 0.8),
            color=COLORS[color_of(event.person)][0],
            alpha=MIN_ALPHA + (1 - MIN_ALPHA) * event.probability,
        )
    has_several = len({person for person, _, _ in lanes}) > 1
    axes.set_yticks(
        range(len(lanes)),
        [
            f"{printable(video.person_name(person))}: {ACTIONS[action_id]}" if has_several else ACTIONS[action_id]
            for person, _, action_id in lanes
        ],
    )
    for text in (*axes.get_yticklabels(), axes.title):
        text.set_parse_math(False)  # names of files and people may have dollar signs
    axes.set_ylim(-0.6, max(len(lanes), 1) - 0.4)
    axes.set_xlim(0, video.facts["duration_s"] or max((event.end_s for event in video.events), default=1.0))
    axes.set_xlabel("time (s)")
    axes.set_title(printable(video.name))
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    return figure
