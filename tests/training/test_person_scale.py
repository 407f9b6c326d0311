"""How people lie in a run's clips: measured once, the same after a restart, and None where nobody is seen."""

import json
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from microaction.clips.manifest import Clip, ManifestError, read_list
from microaction.people import load_clip_look, measure_scale
from microaction.preprocessing import PersonScale
from microaction.training import person_scale
from microaction.training.errors import TrainingError
from microaction.training.person_scale import with_person_scale
from microaction.training.run import run_training
from microaction.training.settings import TrainSettings
from tests.people.scenes import draw_clip
from tests.training.runs import settings

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Clips of one person each."""
    folder = tmp_path_factory.mktemp("alone")
    return [Clip(f"{seed}.mp4", str(draw_clip(folder / f"{seed}.mp4", seed)), 0) for seed in range(6)]


@pytest.fixture
def of(data: Path, tmp_path: Path) -> TrainSettings:
    return settings(data, tmp_path, "run")


def expected_scale(clips: list[Clip]) -> PersonScale:
    scale = measure_scale([load_clip_look(clip.uri) for clip in clips])
    assert scale is not None
    return scale


def test_a_run_measures_once(
    of: TrainSettings, alone: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [*alone, Clip("absent.mp4", str(tmp_path / "absent.mp4"), 0)]
    measured = with_person_scale(of, clips, str(tmp_path))
    assert measured.preprocessing.person == expected_scale(alone)
    assert TrainSettings.model_validate_json(measured.model_dump_json()) == measured, "what its workers get"
    monkeypatch.delattr(person_scale, "load_clip_look")
    monkeypatch.delattr(person_scale, "measure_scale")
    assert with_person_scale(of, clips[:2], str(tmp_path)) == measured


def test_nobody_in_the_clips_is_recorded_too(of: TrainSettings, data: Path, tmp_path: Path) -> None:
    clips = read_list(f"{data}/train.txt", str(data), 52)
    assert with_person_scale(of, clips, str(tmp_path)) == of
    assert (tmp_path / "person.json").read_text() == "null\n"


def test_clips_that_are_cut_do_not_count(of: TrainSettings, alone: list[Clip], tmp_path: Path) -> None:
    """They are cut in the scale of the others."""
    pair = str(draw_clip(tmp_path / "pair.mp4", 3, 11))
    clips = [*alone, *(Clip(f"{i}.mp4", pair, 0) for i in range(7))]
    auto = of.model_copy(update={"people": "auto"})
    assert with_person_scale(auto, clips, str(tmp_path / "auto")).preprocessing.person == expected_scale(alone)
    whole = with_person_scale(of, clips, str(tmp_path / "off")).preprocessing.person
    assert whole is not None
    assert whole.aspect == round(320 / 192, 4)


def test_what_is_given_stays(of: TrainSettings, alone: list[Clip], tmp_path: Path) -> None:
    given = of.preprocessing.model_copy(update={"person": PersonScale()})
    for kept in (
        of.model_copy(update={"preprocessing": given}),
        of.model_copy(update={"preprocessing": of.preprocessing.model_copy(update={"fit": "people"})}),
    ):
        assert with_person_scale(kept, alone, str(tmp_path)) is kept
    assert not (tmp_path / "person.json").exists()


def test_a_missing_detector_ends_a_run_with_a_way_out(
    of: TrainSettings, alone: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(clips: list[Clip], cuts_people: bool) -> None:
        raise ValueError("the weights are missing: install the package where this runs")

    monkeypatch.setattr(person_scale, "_look_at_block", fail)
    with pytest.raises(TrainingError, match="install the package"):
        with_person_scale(of, alone, str(tmp_path))


@pytest.mark.slow
def test_both_splits_are_cut_to_the_people_whom_their_lists_name(data: Path, tmp_path: Path) -> None:
    """Nobody is the third of two: such clips are left out of training and of validation."""
    pair = str(draw_clip(tmp_path / "pair.mp4", 3, 11))
    lists = {}
    for split in ("train", "val"):
        rows = [{"name": f"{i}.mp4", "label": i, "uri": pair, "person": 1 + i % 2} for i in range(8)]
        odd = str(draw_clip(tmp_path / f"{split}.mp4", 3, 11))
        rows.append({"name": "odd.mp4", "label": 0, "uri": odd, "person": 3})
        lists[f"{split}_list"] = f"{tmp_path}/{split}.parquet"
        pd.DataFrame(rows).to_parquet(lists[f"{split}_list"])
    recipe = {"epochs": 1, "batch_size": 4, "learning_rate": 0.01}
    run_training(settings(data, tmp_path, "run", recipe=recipe, people="auto", max_unreadable_fraction=0.2, **lists))
    unreadable = json.loads((tmp_path / "run/unreadable.json").read_text())
    assert set(unreadable) == {f"{tmp_path}/train.mp4", f"{tmp_path}/val.mp4"}
    assert all("the list names person 3" in reason for reason in unreadable.values())
    assert (tmp_path / "run/person.json").read_text() == "null\n", "no clip keeps its own scale"


def test_settings_that_exclude_each_other_are_refused(data: Path, tmp_path: Path) -> None:
    skeletons = {f"{split}_skeletons": "skeletons.parquet" for split in ("train", "val")}
    pixels = {"short_side": 40, "crop": 32, "fit": "people"}
    with pytest.raises(ValidationError, match="people: manet sees the square around the people of its skeletons"):
        settings(data, tmp_path, "run", people="auto", preprocessing=pixels, **skeletons)
    with pytest.raises(
        ValidationError, match=r"recipe\.part_shift and recipe\.part_scale: manet sees the square around"
    ):
        settings(data, tmp_path, "run", recipe={"part_scale": 0.1}, preprocessing=pixels, **skeletons)
    listed = pd.DataFrame([{"name": f"{i}.mp4", "label": 0, "person": 1} for i in range(4)])
    listed.to_parquet(tmp_path / "list.parquet")
    with pytest.raises(ManifestError, match=r"0\.mp4 is listed with person 1, but people is off: set people to auto"):
        run_training(settings(data, tmp_path, "run", train_list=str(tmp_path / "list.parquet")))
