"""Settings of `microaction pack`."""

from typing import Literal, TypeAlias

from pydantic import Field, PositiveInt

from microaction.preprocessing import PersonScale
from microaction.settings import CommandSettings, Location

PeopleRule: TypeAlias = Literal["off", "auto"]


class PackSettings(CommandSettings):
    """Encode labeled clips again, small and with intra frames only, so that training decodes only the frames it needs."""

    clips_list: Location = Field(
        description="List file with a line 'name.mp4 label' per clip, or a Parquet list. Or a list of spans (Parquet, or "
        "MMA-52's CSV): its videos are encoded whole."
    )
    videos: Location = Field(description="Folder of the clips.")
    out: Location = Field(
        description="Folder for videos/, list.txt, list.parquet (with subjects) and manifest.parquet; of a list of spans, "
        "instances.parquet in place of the lists. The same command again packs only what is new or changed."
    )
    short_side: PositiveInt = Field(
        256, description="Short side of the proxies in pixels; at least that of the frames in training."
    )
    people: PeopleRule = Field(
        "off",
        description="`auto`: clips in which several people are seen are cut to one of them, whom the list's column person names "
        "(1, 2, … from left to right), or to the tallest; regions of the list come first. `off`: whole frames, or regions.",
    )
    person: PersonScale = Field(
        PersonScale(),
        description="With people=auto: how people lie in the crops. As in the other clips that a network is trained on: `train` "
        "measures it (person.json in a run's folder). Default: as in MA-52.",
    )
