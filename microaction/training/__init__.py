"""Training on Ray Train, with clips from Ray Data."""
