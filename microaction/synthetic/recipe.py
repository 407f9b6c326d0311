"""What decides how the videos of a drawn dataset look: written beside them, so that a second call cannot mix in others."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from microaction.synthetic.tables import write_atomically

DRAWING_VERSION = 2  # increase it when the same seeds begin to give other pixels
RECIPE_NAME = "recipe.json"
SUBJECT_SEEDS_PER_DATASET = 100_000  # datasets of different seeds show different people


@dataclass(frozen=True)
class Recipe:
    """What decides how a video of a given name looks. The number of videos does not."""

    drawing_version: int
    seed: int
    num_train_subjects: int
    num_val_subjects: int
    width: int
    height: int
    fps: int

    def __post_init__(self) -> None:
        """Raise `ValueError` for numbers of subjects that a dataset cannot have."""
        train, val = self.num_train_subjects, self.num_val_subjects
        for name, count in (("num_train_subjects", train), ("num_val_subjects", val)):
            if count < 1:
                raise ValueError(f"{name} ({count}) must be at least 1: every video shows a subject")
        if train + val > SUBJECT_SEEDS_PER_DATASET:
            raise ValueError(
                f"num_train_subjects + num_val_subjects ({train + val}) must be at most {SUBJECT_SEEDS_PER_DATASET}; "
                "use fewer subjects"
            )

    @property
    def train_subjects(self) -> range:
        """The numbers of the subjects of train, from 0."""
        return range(self.num_train_subjects)

    @property
    def val_subjects(self) -> range:
        """The numbers of the subjects of val, none of which is in train."""
        return range(self.num_train_subjects, self.num_train_subjects + self.num_val_subjects)

    def subject_seed(self, subject: int) -> int:
        """Return the seed of a subject of this dataset."""
        return self.seed * SUBJECT_SEEDS_PER_DATASET + subject


def check_recipe(root: Path, recipe: Recipe) -> None:
    """Write the recipe to the root, or compare it with the one that the root has. Raises `ValueError` if they differ."""
    path, values = root / RECIPE_NAME, asdict(recipe)
    if not path.exists():
        write_atomically(path, json.dumps(values, indent=2) + "\n")
        return
    existing: dict[str, Any] = json.loads(path.read_text())
    for name in {**values, **existing}:
        if existing.get(name) != values.get(name):
            raise ValueError(
                f"dataset {root} was made with {name}={existing.get(name)}, not {values.get(name)}: all videos of a dataset "
                "must have the same recipe; choose another root, or delete this one"
            )
