"""Settings of `microaction pack`."""

from pydantic import Field, PositiveInt

from microaction.settings import CommandSettings, Location


class PackSettings(CommandSettings):
    """Encode labeled clips again, small and with intra frames only, so that training decodes only the frames it needs."""

    clips_list: Location = Field(description="List file with a line 'name.mp4 label' per clip, or a Parquet list.")
    videos: Location = Field(description="Folder of the clips.")
    out: Location = Field(
        description="Folder for videos/, list.txt, list.parquet (with subjects) and manifest.parquet. The same command again "
        "packs only what is new or changed."
    )
    short_side: PositiveInt = Field(
        256, description="Short side of the proxies in pixels; at least that of the frames in training."
    )
