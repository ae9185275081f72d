"""``data``: the recordings of a study."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from asd_ray.config.section import Section
from asd_ray.registry import LAYOUTS

Channel = int | Literal["mean"]


def _registered(layout: str) -> str:
    if layout not in LAYOUTS:
        raise ValueError(LAYOUTS.unknown(layout))
    return layout


class SyntheticConfig(Section):
    """The recordings that ``layout: synthetic`` makes."""

    machines: int = Field(3, ge=1, le=6)
    """Number of machine types, in the generator's order."""
    ids: int = Field(2, ge=1, le=7)
    """Number of individual machines (IDs) of each type."""
    train: int = Field(24, ge=1)
    """Normal training clips of each ID."""
    test_normal: int = Field(12, ge=1)
    """Normal test clips of each ID."""
    test_anomaly: int = Field(12, ge=1)
    """Anomalous test clips of each ID."""
    snr_db: float = Field(6.0, ge=-20, le=60)
    """Level of the machine above the factory background in dB: the mean over clips, which lie within 1 dB of it."""
    seed: int = Field(0, ge=0)
    """Seed of the generator. The study's own ``seed`` does not change the recordings."""


class DataConfig(Section):
    layout: Annotated[str, AfterValidator(_registered)] = "synthetic"
    """How folders and file names give a clip's machine, ID, split and label: ``dcase2020``, ``dcase2022``, ``folder``,
    ``synthetic``, or the name of a registered layout. ``synthetic`` makes the recordings if ``root`` has none."""
    root: str | None = None
    """Folder of the data set. Only ``synthetic`` has a default: ``data/`` in the study folder."""
    machines: list[str] | None = None
    """Machine types to use. By default all."""
    classes: Literal["id", "attributes"] = "id"
    """Classes that a classifier learns: ``id``, one for each machine and ID (section), or ``attributes``, one for each
    machine, ID and attributes of training clips (DCASE 2022: speed, load, microphone, noise). Scores compare a clip
    with its machine and ID in both cases: the challenge hides the attributes of test clips, and they are not used."""
    min_class_clips: int = Field(10, ge=1)
    """Minimum training clips of a class, with ``classes: attributes``. Rarer attributes of an ID and clips without
    attributes are pooled into one rest class; if that is too small, it takes the ID's next rarest attributes, too.
    Ours: a section of DCASE 2022 has ten target clips."""
    extra_pretraining: list[str] = Field(default_factory=list)
    """Folders of any audio, used for pre-training only (``method.pretrain.corpus``). [A]: AudioSet."""
    skip_bad: bool = False
    """Leave out clips that cannot be read, with a warning in the log. By default the first one ends the study."""
    channel: Channel = 0
    """Channel of a recording that has several: its number, or ``mean``, the mean of all. DCASE: the first
    microphone."""
    synthetic: SyntheticConfig = SyntheticConfig()

    @model_validator(mode="after")
    def _names_have_attributes(self) -> DataConfig:
        if self.classes == "attributes":
            made = self.layout == "synthetic" and self.root is None  # with the names of DCASE 2020
            if made or not LAYOUTS.get(self.layout).facts["attributes"]:
                raise ValueError(
                    f"classes is attributes, but file names of layout {self.layout} have none; set it to id"
                )
        return self
