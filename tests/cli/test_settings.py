"""Where the settings of a command come from, and what is said of those that do not fit."""

from collections.abc import Callable
from pathlib import Path

import pytest

from microaction.cli.app import parse_settings
from microaction.labeling.settings import LabelSettings
from microaction.models import ManetConfig
from microaction.models.video_swin.family import VideoSwinConfig
from microaction.models.video_vit.family import VideoViTConfig
from microaction.training.settings import TrainSettings
from tests.conftest import CommandResult

TRAIN = ("--train-list", "/l", "--train-videos", "/v", "--storage-path", "/s", "--name", "n")
LABEL = ("label", "in", "out", "--model", "m")
YAML = """
archive: s3://b/in
out: s3://b/out
model: s3://b/m
stride-s: 0.5
window_s: 3
chunk-s: 60
"""


@pytest.fixture
def yaml(tmp_path: Path) -> str:
    path = tmp_path / "label.yaml"
    path.write_text(YAML)
    return str(path)


def test_a_yaml_file_has_any_setting_with_dashes_or_underscores(yaml: str) -> None:
    settings = parse_settings(LabelSettings, ["--config", yaml])
    assert (settings.archive, settings.out, settings.model) == ("s3://b/in", "s3://b/out", "s3://b/m")
    assert (settings.stride_s, settings.window_s, settings.chunk_s) == (0.5, 3.0, 60.0)


def test_flags_override_the_environment_and_that_the_file(yaml: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROACTION_WINDOW_S", "4")
    monkeypatch.setenv("MICROACTION_CHUNK_S", "30")
    settings = parse_settings(LabelSettings, ["--config", yaml, "--chunk-s", "90"])
    assert settings.chunk_s == 90.0, "flag, environment and file"
    assert settings.window_s == 4.0, "environment and file"
    assert settings.stride_s == 0.5, "file"
    assert settings.max_gap_s == 0.0, "default"


def test_arguments_override_the_environment_and_that_the_file(yaml: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROACTION_CONFIG", yaml)
    monkeypatch.setenv("MICROACTION_OUT", "/from/environment")
    settings = parse_settings(LabelSettings, [])
    assert (settings.archive, settings.out) == ("s3://b/in", "/from/environment")
    settings = parse_settings(LabelSettings, ["/first", "/second"])
    assert (settings.archive, settings.out) == ("/first", "/second")


def test_parts_of_nested_settings_come_from_all_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(
        "train_list: /l\ntrain_videos: /v\nval_list: /l\nval_videos: /v\nstorage_path: /s\nname: n\n"
        "recipe: {epochs: 3, batch-size: 20, warmup_epochs: 2}\n"
    )
    monkeypatch.setenv("MICROACTION_RECIPE__EPOCHS", "4")
    monkeypatch.setenv("MICROACTION_RECIPE__WARMUP_EPOCHS", "1")
    settings = parse_settings(TrainSettings, ["--config", str(path), "--recipe.epochs", "5", "--model.width", "16"])
    assert (settings.recipe.epochs, settings.recipe.warmup_epochs, settings.recipe.batch_size) == (5, 1.0, 20)
    assert settings.model == ManetConfig(width=16)
    monkeypatch.delenv("MICROACTION_RECIPE__WARMUP_EPOCHS")
    settings = parse_settings(TrainSettings, [*TRAIN, "--split-by", "subject"])
    assert settings.recipe.epochs == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("label", "in", "out"), "model: Field required"),
        ((*LABEL, "--nope"), "unrecognized arguments: --nope"),
        ((*LABEL, "--stride-s", "5"), "stride_s (5.0) must be at most window_s (2.0)"),
        ((*LABEL, "--window-s", "long"), "window-s: Input should be a valid number"),
        ((*LABEL, "--continue-threshold", "0.6"), "continue_threshold (0.6) must be at most start_threshold (0.5)"),
        ((*LABEL, "--config", "absent.yaml"), "no file at absent.yaml"),
        (("catalog",), "archive: Field required out: Field required"),
        (("train", "--name", "../up"), "name: String should match pattern"),
        (("train", *TRAIN), "give val_list and val_videos, or split_by=subject to hold out subjects of train_list"),
        (("train", *TRAIN, "--split-by", "person"), "split-by: Input should be 'list' or 'subject'"),
        (("train", *TRAIN, "--val-list", "l"), "val_list and val_videos belong together"),
        (
            ("train", *TRAIN, "--split-by", "subject", "--min-workers", "3"),
            "min_workers (3) must be at most num_workers (1)",
        ),
    ],
)
def test_wrong_settings_are_refused_in_one_line(
    arguments: tuple[str, ...], message: str, job: Callable[..., CommandResult]
) -> None:
    result = job(*arguments)
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("windows_s: 2", "windows-s: Extra inputs are not permitted (given: 2)"),
        ("stride_s: [1]", "stride-s: Input should be a valid number (given: [1])"),
        ("- stride_s", "label.yaml: the file must hold lines 'setting: value'"),
        ("stride_s: {", "label.yaml: while parsing"),
    ],
)
def test_wrong_files_are_refused_in_one_line(
    content: str, message: str, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    (tmp_path / "label.yaml").write_text(content)
    result = job(*LABEL, "--config", str(tmp_path / "label.yaml"))
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())
    assert "`microaction label --help` lists the settings" in result.stderr


def test_a_wrong_variable_is_refused_in_one_line(
    job: Callable[..., CommandResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICROACTION_STRIDE_S", "often")
    result = job(*LABEL)
    assert result.returncode == 2
    assert "stride-s: Input should be a valid number" in result.stderr


SPLIT = ("--split-by", "subject")


@pytest.mark.parametrize("flags", [["--model", "vit-s"], ["--model=vit-s"], ["--model.preset", "vit-s"]])
def test_a_network_is_chosen_by_name_and_changed_by_flags(flags: list[str]) -> None:
    settings = parse_settings(
        TrainSettings, [*TRAIN, *SPLIT, *flags, "--model.head", "hierarchical", "--model.depth", "2"]
    )
    assert isinstance(settings.model, VideoViTConfig)
    assert (settings.model.head, settings.model.depth, settings.model.width) == ("hierarchical", 2, 384)
    assert settings.recipe.optimizer == "adamw"


def test_a_recipe_is_chosen_by_name_and_changed_by_flags() -> None:
    settings = parse_settings(
        TrainSettings, [*TRAIN, *SPLIT, "--model", "tsm", "--recipe", "published", "--recipe.epochs", "3"]
    )
    assert (settings.recipe.name, settings.recipe.epochs, settings.recipe.milestones) == ("published", 3, (0.4, 0.8))


def test_a_file_may_name_network_and_recipe(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("model: video-swin-s\nrecipe: published\n")
    settings = parse_settings(TrainSettings, [*TRAIN, *SPLIT, "--config", str(path), "--recipe.batch-size", "16"])
    assert settings.model == VideoSwinConfig(depths=(2, 2, 18, 2), drop_path=0.2)
    assert (settings.recipe.name, settings.recipe.batch_size, settings.recipe.backbone_lr_factor) == (
        "published",
        16,
        0.1,
    )


def test_a_name_of_no_network_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parse_settings(TrainSettings, [*TRAIN, *SPLIT, "--model", "resnet"])
    assert raised.value.code == 2
    assert "model.preset: Input should be 'manet', 'tsm', 'tsn', 'c3d', " in capsys.readouterr().err.replace("\n", " ")


def test_a_field_of_another_family_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_settings(TrainSettings, [*TRAIN, *SPLIT, "--model", "c3d", "--model.num-heads", "3"])
    assert "num-heads" in capsys.readouterr().err
