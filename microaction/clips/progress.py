"""Progress from a process of the cluster to the one that a person watches."""

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
        # Beside the driver: other machines may go.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

    def tell(self, message: Any) -> None:
        """Sends a message and does not wait: work never depends on whether somebody watches."""
        self._queue.actor.put_nowait.remote(message)

    def follow(self, work: Callable[[], Result], on_message: Callable[[Any], None]) -> Result:
        """Does `work` on a thread of its own and calls `on_message` for each message on this one; returns what `work` does.

        Raises what either of them raises. Where that is `on_message`, or a person stops the program, `work` is left alone: it
        ends with this process. Afterwards the channel is closed.
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
                except RayActorError:  # nobody is told any more; the work goes on
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
