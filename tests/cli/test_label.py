"""How `microaction label` shows its progress."""

import pytest

from microaction.cli import label
from microaction.cli.label import ProgressFormatter
from microaction.labeling.run import Progress


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(label, "time", clock)
    return clock


def test_stages_other_than_labeling_count_videos(clock: Clock) -> None:
    assert ProgressFormatter()(Progress("catalog", 3, 7)) == (3, 7, "catalog: 3 of 7 videos")


def test_labeling_shows_rates_of_the_last_minute(clock: Clock) -> None:
    formatter = ProgressFormatter()
    assert formatter(Progress("label", 0, 90, 0.0, 7200.0)) == (0.0, 7200.0, "0:00 min of 2:00:00 h of video")
    clock.now_s = 100.0
    text = "20:00 min of 2:00:00 h of video, 12.0 windows/s, 8:20 min left"
    assert formatter(Progress("label", 15, 90, 1200.0, 7200.0, 1200)) == (1200.0, 7200.0, text)
    clock.now_s = 140.0
    text = "1:00:00 h of 2:00:00 h of video, 60.0 windows/s, 1:00 min left, 2 chunks failed"
    assert formatter(Progress("label", 45, 90, 3600.0, 7200.0, 3600, 2)) == (3600.0, 7200.0, text)


def test_a_run_without_progress_shows_no_remaining_time(clock: Clock) -> None:
    formatter = ProgressFormatter()
    formatter(Progress("label", 0, 1, 0.0, 60.0))
    clock.now_s = 10.0
    assert formatter(Progress("label", 0, 1, 0.0, 60.0))[2] == "0:00 min of 1:00 min of video"
