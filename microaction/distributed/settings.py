"""Settings of commands that run on a cluster. Importable without Ray."""

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from microaction.settings import CommandSettings


class ClusterSettings(CommandSettings):
    """What a command may count on where nodes are added on demand."""

    gpus: NonNegativeInt | None = Field(
        None, description="GPUs that an autoscaling cluster can have. Default: as many as it has at the start."
    )
    cpus: PositiveInt | None = Field(
        None, description="CPUs that an autoscaling cluster can have. Default: as many as it has at the start."
    )
    node_wait_s: PositiveFloat = Field(
        1800.0, description="Seconds to wait for the first nodes of a cluster that has none."
    )


CLUSTER_FIELDS = frozenset(ClusterSettings.model_fields) - frozenset(CommandSettings.model_fields)
"""Settings that say where a command runs, and decide nothing of its result."""
