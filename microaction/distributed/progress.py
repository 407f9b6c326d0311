"""Progress from a process of the cluster to the driver."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

POLL_S = 0.5
Result = TypeVar("Result")


class ProgressChannel:
    """Carries small messages to the driver; travels to tasks and actors as an argument. Needs a running Ray."""

    def __init__(self) -> None:
        # On the driver's node: other nodes may go away.
        driver_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": driver_node})

    def send(self, message: Any) -> None:
        """Send a message without waiting: work never depends on whether somebody listens."""
        self._queue.actor.put_nowait.remote(message)

    def follow(self, work: Callable[[], Result], on_message: Callable[[Any], None]) -> Result:
        """Do `work` in a thread of its own and call `on_message` for each message in this one; return what `work` returns.

        Raises what either of them raises. If `on_message` raises, or a person stops the program, `work` is abandoned: it ends
        with this process. Afterwards the channel is closed.
        """
        future: Future[Result] = Future()
        threading.Thread(target=_settle, args=(future, work), daemon=True).start()
        try:
            while True:
                is_last = future.done()  # read before the queue, so that its last messages are still taken
                try:
                    on_message(self._queue.get(timeout=POLL_S))
                except Empty:
                    if is_last:
                        return future.result()
                except RayActorError:  # no more messages; the work continues
                    while not future.done():
                        time.sleep(POLL_S)
                    return future.result()
        finally:
            self._queue.shutdown(force=True)


def _settle(future: "Future[Result]", work: Callable[[], Result]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
