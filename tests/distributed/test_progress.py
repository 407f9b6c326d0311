"""Progress from a process of the cluster to the driver, and how the driver handles it."""

import threading

import pytest
import ray

from microaction.distributed.progress import ProgressChannel

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def count(channel: ProgressChannel, to: int) -> int:
    for number in range(to):
        channel.send(number)
    return to


def test_all_messages_arrive_before_the_result() -> None:
    channel, messages = ProgressChannel(), list[int]()
    assert channel.follow(lambda: ray.get(count.remote(channel, 100)), messages.append) == 100
    assert sorted(messages) == list(range(100))


def test_errors_of_the_work_are_raised() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ProgressChannel().follow(fail, lambda message: None)


def test_an_error_of_the_callback_abandons_the_work() -> None:
    """As in a retraining whose lease is lost: an error that only ended a thread would let the work continue for hours."""
    channel, released = ProgressChannel(), threading.Event()

    def stop(message: int) -> None:
        raise KeyboardInterrupt(message)

    def work() -> None:
        channel.send(1)
        released.wait()

    try:
        with pytest.raises(KeyboardInterrupt):
            channel.follow(work, stop)  # would never return if it waited for the work
    finally:
        released.set()
