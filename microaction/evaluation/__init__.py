"""How good a model is: metrics, and the files that show them."""

from microaction.evaluation.metrics import recognition_metrics

__all__ = ["recognition_metrics"]
