"""Micro-action recognition in large archives of interview video."""

__version__ = "0.1.0"
