"""What runs in every training worker."""

from typing import Any

import ray

from microaction.models import Family, register_family
from microaction.training.settings import TrainSettings


def train_process(config: dict[str, Any]) -> None:
    """Run one training worker: Ray Train calls this in each of them."""
    family: Family = config["family"]  # workers may not know families that are defined outside of this package
    register_family(family)
    settings = TrainSettings.model_validate_json(config["settings"])
    shared = (settings, config["channel"], config["num_threads"])
    if family.task == "detection":
        from microaction.training.detection_loop import DetectionTrainer

        DetectionTrainer(*shared).run()
        return
    from microaction.training.recognition_loop import RecognitionTrainer

    skeletons = None if config["skeletons"] is None else ray.get(config["skeletons"][0])
    RecognitionTrainer(*shared, config["label_embeddings"], skeletons).run()
