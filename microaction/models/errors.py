"""The exception of everything that concerns checkpoints and weights."""

from microaction.errors import UsageError


class CheckpointError(UsageError, ValueError):
    """A checkpoint or a file of weights cannot be read, or does not fit the network."""


class SkeletonsNeededError(UsageError):
    """A network that sees skeletons was given frames alone."""

    def __init__(self) -> None:
        super().__init__(
            "PCAN sees skeletons beside the frames: it is run from Python, with `Inputs(frames, heatmaps)`; choose another "
            "network"
        )
