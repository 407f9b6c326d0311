"""Keeps Ray Data's scheduling loop from taking a core of its own."""

import time

SCHEDULING_PAUSE_S = 0.01


class ThrottledExecution:
    """Execution callback that makes Ray Data's scheduling loop pause between its steps.

    Of the CPUs that training leaves, Ray Data gives each pipeline of a cluster a whole number (Ray 2.60): often none. Such a
    pipeline decodes one block whenever it has none to give, and until then its loop spins in a thread of the training
    process: it takes a core, and the interpreter lock from the trainer.
    """

    def before_execution_starts(self, executor: object) -> None:
        """Do nothing; part of the interface."""

    def on_execution_step(self, executor: object) -> None:  # noqa: ARG002 - the interface
        """Pause; called by the loop after each of its steps."""
        time.sleep(SCHEDULING_PAUSE_S)

    def after_execution_succeeds(self, executor: object) -> None:
        """Do nothing; part of the interface."""

    def after_execution_fails(self, executor: object, error: Exception) -> None:
        """Do nothing; part of the interface."""
