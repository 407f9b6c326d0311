"""Labeled clips: lists in MA-52's format, sampling, packing, and reading through Ray Data."""
