"""Labeled clips: MA-52's lists, and their way through Ray Data to a network."""
