"""The exception of everything that concerns checkpoints and weights."""

from microaction.errors import UsageError


class CheckpointError(UsageError, ValueError):
    """A checkpoint or a file of weights cannot be read, or does not fit the network."""
