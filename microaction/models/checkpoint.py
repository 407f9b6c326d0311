"""A checkpoint is a directory: `model.safetensors` and `config.json`. Weights carry their preprocessing and their labels.

With a `golden.safetensors` beside them, as in a registry, a checkpoint is loaded only if it still computes that golden output.
A file of published weights loads as a checkpoint too, as far as its family knows its layout (`importing`).

Nothing here unpickles: safetensors holds numbers only, and foreign files are read with `weights_only=True`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError
from torch import Tensor

from microaction import storage
from microaction.installation import find_packaged
from microaction.models.errors import CheckpointError
from microaction.models.families import build_model, family_of, register_family
from microaction.models.family import Family, Task
from microaction.models.golden import GOLDEN_FILE, TOLERANCE, golden_difference
from microaction.models.inputs import predict
from microaction.models.interface import Network, Prediction
from microaction.models.score_calibration import ScoreCalibration
from microaction.models.settings import AnyModelConfig
from microaction.preprocessing import Preprocessing
from microaction.settings import PACKAGED_MODELS

PUBLISHED_SUFFIXES = (".pth", ".pt")
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT: Literal[2] = 2  # 2: tagged configurations of families; calibration of its own


class Calibration(BaseModel):
    """What turns logits into probabilities that can be believed: they are divided by `temperature` before the softmax."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: PositiveFloat = Field(allow_inf_nan=False)


class CheckpointConfig(BaseModel):
    """`config.json`: all that is needed to rebuild the network and to know where it comes from.

    `calibration` is None for a network that was never calibrated, and `score_calibration` for all but detectors. `license` is
    what users of the weights must know, and `origin` where the weights came from if not from training.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[2] = FORMAT
    model: AnyModelConfig
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    calibration: Calibration | None = None
    score_calibration: ScoreCalibration | None = None
    recipe: dict[str, Any]
    versions: dict[str, str]
    metrics: dict[str, float]
    origin: str = ""
    license: str = ""

    @property
    def num_sampled(self) -> int:
        """Frames of a clip that the network sees, in all views together."""
        return self.model.num_rgb_frames * self.preprocessing.views

    @property
    def num_pose_sampled(self) -> int:
        """Frames of a clip's skeleton that the network sees, in all views together."""
        return self.model.num_pose_frames * self.preprocessing.views

    @property
    def needs_skeletons(self) -> bool:
        """Whether clips and windows must come with skeletons."""
        return self.num_pose_sampled > 0 or self.preprocessing.fit == "people"

    @property
    def task(self) -> Task:
        """Whether the network classifies clips, or finds actions in untrimmed video."""
        return family_of(self.model).task

    @property
    def temperature(self) -> float:
        """What logits are divided by: the calibration's temperature, or 1."""
        return 1.0 if self.calibration is None else self.calibration.temperature


@dataclass(frozen=True)
class ModelRef:
    """A checkpoint as it was resolved: where it is, the digest and the SHA-256 of the golden file that it must have, and its
    family, so that workers know families that are defined outside of this package. None: not known yet, or no golden file."""

    uri: str
    digest: str | None = None
    golden_sha256: str | None = None
    family: Family | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint. `ref` is what to pass on, so that whoever loads it again gets the same one or an error."""

    model: Network
    config: CheckpointConfig
    ref: ModelRef

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the weights and of all that changes their predictions."""
        assert self.ref.digest is not None, "loading sets it"
        return self.ref.digest

    @property
    def notices(self) -> list[str]:
        """What a user of the checkpoint should know, a sentence each."""
        notices = []
        if self.config.calibration is None and self.config.score_calibration is None:
            notices.append("it is not calibrated, so its probabilities are over-confident (see `microaction import`)")
        if self.config.license:
            notices.append(self.config.license)
        return notices

    @torch.inference_mode()
    def predict(self, frames_BTHWC: Tensor, keypoints_BMTK3: Tensor | None = None) -> Prediction:
        """Return what the network says (float32), the logits divided by the temperature, on the model's device.

        Of uint8 RGB frames [B, V·T, H, W, 3] of all views, and of keypoints [B, M, V·T, K, 3] for networks that see skeletons.
        """
        said = predict(self.model, frames_BTHWC, keypoints_BMTK3, self.config.preprocessing)
        return said._replace(logits=said.logits / self.config.temperature)

    def logits(self, frames_BTHWC: Tensor, keypoints_BMTK3: Tensor | None = None) -> Tensor:
        """Return the logits [B, K] of `predict`."""
        return self.predict(frames_BTHWC, keypoints_BMTK3).logits

    def classify(self, frames_BTHWC: Tensor, keypoints_BMTK3: Tensor | None = None) -> Tensor:
        """Return calibrated probabilities [B, K] (float32) of what `predict` takes."""
        return self.logits(frames_BTHWC, keypoints_BMTK3).softmax(dim=1)


def save_checkpoint(model: Network, config: CheckpointConfig, uri: str) -> None:
    """Write the checkpoint directory; `config.json` last, so that a directory with one is complete."""
    storage.write_bytes(storage.join(uri, WEIGHTS_FILE), weights_bytes(model))
    storage.write_bytes(storage.join(uri, CONFIG_FILE), config.model_dump_json(indent=2).encode() + b"\n")


def weights_bytes(model: Network) -> bytes:
    """Return the content of a checkpoint's weights file."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return bytes(safetensors.torch.save(weights))


def load_checkpoint(model: str | ModelRef, *, device: str = "cpu") -> Checkpoint:
    """Load a checkpoint; its network is in evaluation mode on `device`.

    `model` is the path or URI of a checkpoint directory or of a file of published weights, `demo`, or a `ModelRef`. Raises
    `CheckpointError` where it is none of these, its configuration is invalid or of an earlier format, weights and
    configuration disagree, the network does not compute its golden output, or it is not what the `ModelRef` says.
    """
    ref = model if isinstance(model, ModelRef) else ModelRef(model)
    if ref.family is not None:
        register_family(ref.family)
    network, config, digest = _read(ref.uri)
    if ref.digest not in (None, digest):
        raise CheckpointError(
            f"{ref.uri} has changed: its digest was {ref.digest} and is {digest} now; restore it, or start another run"
        )
    if len(config.labels) != config.model.num_classes:
        raise CheckpointError(
            f"{ref.uri}: {CONFIG_FILE} names {len(config.labels)} labels for a network of {config.model.num_classes} classes"
        )
    checkpoint = Checkpoint(network.eval(), config, replace(ref, digest=digest, family=family_of(config.model)))
    golden_sha256 = _check_golden(checkpoint, ref)
    checkpoint = replace(checkpoint, ref=replace(checkpoint.ref, golden_sha256=golden_sha256))
    network.to(device)
    return checkpoint


def load_weights(model: Network, uri: str) -> None:
    """Load a checkpoint directory's weights into a network of the same shape. Raises `CheckpointError`."""
    _fill(model, _read_file(uri, WEIGHTS_FILE), uri)


def check_labels(config: CheckpointConfig, labels: Sequence[str], uri: str) -> None:
    """Raise `CheckpointError` unless the checkpoint's classes are exactly `labels`, in order."""
    if tuple(labels) != config.labels:
        raise CheckpointError(
            f"{uri} was trained for {len(config.labels)} classes, the first of which is {config.labels[0]!r}; they are not "
            f"the {len(labels)} labels of this project"
        )


def _read(uri: str) -> tuple[Network, CheckpointConfig, str]:
    """Return the network with its weights, its configuration and its digest."""
    folder = _folder_of(uri)
    if not storage.exists(storage.join(folder, CONFIG_FILE)) and storage.exists(folder):
        from microaction.models.importing import read_published

        network, config = read_published(folder)
        return network, config, _digest(weights_bytes(network), config)
    config = read_config(folder)
    weights = _read_file(folder, WEIGHTS_FILE)
    network = build_model(config.model)
    _fill(network, weights, folder)
    return network, config, _digest(weights, config)


def _folder_of(uri: str) -> str:
    """Return where a checkpoint is; some are in the package, in folders named for them."""
    return packaged_folder(uri) if uri in PACKAGED_MODELS else uri


def packaged_folder(name: str) -> str:
    """Return where the package, or another installation of it, has one of its networks."""
    return str(find_packaged(f"models/{name.replace('-', '_')}/{WEIGHTS_FILE}").parent)


def read_config(uri: str) -> CheckpointConfig:
    """Return the configuration of a checkpoint directory. Raises `CheckpointError`."""
    config_uri = storage.join(uri, CONFIG_FILE)
    content = _read_file(uri, CONFIG_FILE)
    try:
        found = json.loads(content)
        if isinstance(found, dict) and isinstance(found.get("format"), int) and found["format"] < FORMAT:
            raise CheckpointError(
                f"{uri} was written by an earlier version of microaction (format {found['format']}, this version reads "
                f"{FORMAT}): train it again, or use the version that wrote it"
            )
        return CheckpointConfig.model_validate(found)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg'].removeprefix('Value error, ')}".removeprefix(
                ": "
            )
            for problem in error.errors()
        )
        raise CheckpointError(f"{config_uri} is not a checkpoint's configuration: {problems}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{config_uri} is not a checkpoint's configuration: {error}") from error


def _read_file(uri: str, name: str) -> bytes:
    try:
        return storage.read_bytes(storage.join(uri, name))
    except FileNotFoundError as error:
        if uri.endswith(PUBLISHED_SUFFIXES):
            raise CheckpointError(f"no file at {uri}: check the name of the weights") from error
        raise CheckpointError(
            f"{uri} is not a checkpoint directory ({error}): it must hold {CONFIG_FILE} and {WEIGHTS_FILE}, as `microaction "
            "train` writes them, or be a file of published weights"
        ) from error


def _check_golden(checkpoint: Checkpoint, ref: ModelRef) -> str | None:
    """Return the SHA-256 of the golden file, if there is one."""
    golden_uri = storage.join(_folder_of(ref.uri), GOLDEN_FILE)
    try:
        golden = storage.read_bytes(golden_uri)
    except FileNotFoundError as error:
        if ref.golden_sha256 is None:
            return None
        raise CheckpointError(_not_as_registered(ref.uri, f"{GOLDEN_FILE} is missing")) from error
    found = hashlib.sha256(golden).hexdigest()
    if ref.golden_sha256 not in (None, found):
        what = f"the SHA-256 of {GOLDEN_FILE} is {found}, not {ref.golden_sha256}"
        raise CheckpointError(_not_as_registered(ref.uri, what))
    try:
        difference = golden_difference(checkpoint, golden)
    except ValueError as error:
        raise CheckpointError(f"{golden_uri}: {error}") from error
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"{ref.uri} does not compute here what it computed when it was registered: its logits for the golden input differ "
            f"by {difference:.2%}; its files have changed, or incompatible versions of the code or of torch are installed"
        )
    return found


def _not_as_registered(uri: str, what: str) -> str:
    return (
        f"{uri} is not what was registered: {what}, so nothing proves that the network computes what it did; restore the "
        "file, or use another version"
    )


def _fill(model: Network, weights: bytes, uri: str) -> None:
    try:
        model.load_state_dict(safetensors.torch.load(weights), strict=True)
    except (RuntimeError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())  # torch's has several lines
        raise CheckpointError(f"{storage.join(uri, WEIGHTS_FILE)} does not fit its configuration: {reason}") from error


def _digest(weights: bytes, config: CheckpointConfig) -> str:
    """Recipe, versions, metrics and origin are left out: they describe the weights and change no prediction.

    So are values that are the defaults: a version with more settings computes the same digest.
    """
    relevant = config.model_dump(
        mode="json",
        include={"model", "preprocessing", "labels", "calibration", "score_calibration"},
        exclude_defaults=True,
    )
    relevant["family"] = config.model.family
    digest = hashlib.sha256(weights)
    digest.update(json.dumps(relevant, sort_keys=True).encode())
    return digest.hexdigest()
