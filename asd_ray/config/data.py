"""``data``: which recordings a study is about."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from asd_ray.config.section import Section

Channel = int | Literal["mean"]


class SyntheticConfig(Section):
    machines: int = Field(3, ge=1, le=6)
    """Number of machine types, taken in the generator's order."""
    ids: int = Field(2, ge=1, le=7)
    """Individuals (IDs) of each machine type."""
    train: int = Field(24, ge=1)
    """Normal training clips of each ID."""
    test_normal: int = Field(12, ge=1)
    """Normal test clips of each ID."""
    test_anomaly: int = Field(12, ge=1)
    """Anomalous test clips of each ID."""
    snr_db: float = Field(6.0, ge=-20, le=60)
    """Machine against factory background in dB: the mean of the clips', which lie within 1 dB of it."""
    seed: int = Field(0, ge=0)
    """Seed of the generator; a study's own ``seed`` does not change its data."""


class DataConfig(Section):
    layout: Literal["dcase2020", "dcase2022", "folder", "synthetic"] = "synthetic"
    """How file names say what a clip is. ``synthetic`` makes the recordings itself where ``root`` has none."""
    root: str | None = None
    """Folder of the data set. Only ``synthetic`` may leave it out: then it is the study folder's ``data/``."""
    machines: list[str] | None = None
    """Machine types to use; all that are there by default."""
    classes: Literal["id", "attributes"] = "id"
    """What a classifier tells apart: machines and IDs (sections), or, more finely, the attributes of an ID's training
    clips (DCASE 2022: speed, load, microphone, noise). A clip is scored against its machine and ID either way: the
    attributes of test clips are hidden in the challenge and never looked at."""
    min_class_clips: int = Field(10, ge=1)
    """With ``classes: attributes``, attributes that fewer training clips of an ID have are no class of their own; these
    clips, and those without attributes, are one class together, which takes up the ID's rarest attributes until it has
    so many. Ours: DCASE 2022 has ten target clips in a section."""
    extra_pretraining: list[str] = Field(default_factory=list)
    """Folders of any audio, whatever it is of, for pre-training alone (``method.pretrain.corpus``). [A] pre-trains on
    AudioSet."""
    skip_bad: bool = False
    """Leave out clips that cannot be read (they are named in the log) instead of ending the study."""
    channel: Channel = 0
    """Which channel of a recording with several: its number, or the mean of all. DCASE uses the first microphone."""
    synthetic: SyntheticConfig = SyntheticConfig()
    """What ``layout: synthetic`` makes."""

    @model_validator(mode="after")
    def _names_have_attributes(self) -> DataConfig:
        nameless = self.layout == "dcase2020" or (self.layout == "synthetic" and self.root is None)
        if self.classes == "attributes" and nameless:
            raise ValueError(f"classes is attributes, but file names of layout {self.layout} have none; set it to id")
        return self
