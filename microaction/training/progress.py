"""What a training run reports. Imports nothing heavy: the process that carries the messages needs it too."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingProgress:
    """How far training is: epochs and steps count from 1; `metrics` is set at the end of an epoch.

    Before the first epoch, `features` may be set: of how many videos, (done, all), the features are computed.
    """

    epoch: int
    num_epochs: int
    step: int
    num_steps: int
    loss: float
    metrics: dict[str, float] | None = None
    num_unreadable: int = 0
    features: tuple[int, int] | None = None
