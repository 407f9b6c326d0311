"""Progress from a process of the cluster to the one that a person watches."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.util.queue import Empty, Queue

POLL_S = 0.5


class ProgressChannel:
    """Carries small messages to the driver; travels to tasks and actors as an argument. Needs a running Ray."""

    def __init__(self) -> None:
        self._queue = Queue(actor_options={"num_cpus": 0})

    def tell(self, message: Any) -> None:
        """Sends a message and does not wait: work never depends on whether somebody watches."""
        self._queue.actor.put_nowait.remote(message)

    @contextmanager
    def followed_by(self, on_message: Callable[[Any], None]) -> Iterator[None]:
        """Inside the block, calls `on_message` for each message, on another thread; afterwards the channel is closed."""
        ended = threading.Event()
        follower = threading.Thread(target=self._follow, args=(on_message, ended), daemon=True)
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()
            self._queue.shutdown(force=True)

    def _follow(self, on_message: Callable[[Any], None], ended: threading.Event) -> None:
        while True:
            last_round = ended.is_set()  # read before the queue, so that its last messages are still taken
            try:
                on_message(self._queue.get(timeout=POLL_S))
            except Empty:
                if last_round:
                    return
