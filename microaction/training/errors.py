"""The exceptions of training."""

from microaction.errors import UsageError


class TrainingError(UsageError, ValueError):
    """A training run cannot start or continue; the message says what to change."""


class StateError(UsageError, ValueError):
    """A saved state cannot be read; the message says what to do."""
