"""What a process of the cluster tells the driver, and what the driver makes of it."""

import time

import pytest
import ray

from microaction.distributed.progress import ProgressChannel

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def count(channel: ProgressChannel, to: int) -> int:
    for number in range(to):
        channel.send(number)
    return to


def test_all_messages_come_before_the_result() -> None:
    channel, told = ProgressChannel(), list[int]()
    assert channel.follow(lambda: ray.get(count.remote(channel, 100)), told.append) == 100
    assert sorted(told) == list(range(100))


def test_errors_of_the_work_are_raised() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ProgressChannel().follow(fail, lambda message: None)


def test_who_watches_can_end_it() -> None:
    """As a retraining does whose lease is lost: an error that only ended a thread would let it go on for hours."""
    channel = ProgressChannel()

    def stop(message: int) -> None:
        raise KeyboardInterrupt(message)

    def work() -> None:
        channel.send(1)
        time.sleep(30)

    started_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        channel.follow(work, stop)
    assert time.monotonic() - started_s < 20
