"""Metrics of a network on labeled clips and on untrimmed video, and the files that report them."""

from microaction.evaluation.metrics import recognition_metrics

__all__ = ["recognition_metrics"]
