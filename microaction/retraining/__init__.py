"""Retraining: from new labels to a model in production, or to a page that says why not."""
