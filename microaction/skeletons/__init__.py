"""Skeletons of people in clips: keypoints by frame and person, from published pickles and in a Parquet table."""

from microaction.skeletons.errors import SkeletonError
from microaction.skeletons.skeleton import Skeleton
from microaction.skeletons.table import read_skeletons, write_skeletons
from microaction.skeletons.unpickling import load_pickle, published_skeletons

__all__ = ["Skeleton", "SkeletonError", "load_pickle", "published_skeletons", "read_skeletons", "write_skeletons"]
