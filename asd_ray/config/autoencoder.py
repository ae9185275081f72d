"""``method: {name: autoencoder}``: the official baseline of DCASE 2020 Task 2, and its score of 2023."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from asd_ray.config.method import OptimiserConfig
from asd_ray.config.section import Section


class AutoencoderTrainConfig(OptimiserConfig):
    epochs: int = Field(100, ge=0)
    """The baseline's are 100."""
    batch_size: int = Field(16, ge=2)
    """Clips of one step over all machine types and workers together, each with all its vectors. The baseline takes 512
    vectors of one machine type at random, as many as 1.7 clips have; 16 clips of six machine types are 820 vectors of
    each. Ours."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate of Adam. The baseline's is 0.001."""
    schedule: Literal["constant", "cosine", "cosine_epochs"] = "constant"
    """The baseline's learning rate is constant."""
    probe_every: int = Field(0, ge=0)
    """Epochs between measurements of the k-NN AUC. There are no embeddings to measure it on: never."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share of the training clips (by a hash of their paths) that is held out and measured after every epoch. The
    baseline holds out the last 10 % of the vectors."""
    patience: int = Field(0, ge=0)
    """Epochs without a lower validation loss after which training ends; 0 trains all its epochs."""
    keep: Literal["last", "best"] = "last"
    """Whose weights are left behind. The baseline's: the last epoch's."""


class AutoencoderConfig(Section):
    """One autoencoder of five frames for every machine type, without knowledge of IDs."""

    name: Literal["autoencoder"] = "autoencoder"
    score: Literal["mse", "mahalanobis", "mahalanobis_of_mean"] = "mse"
    """A clip's anomaly score, from the errors of its reconstruction: their mean square (2020 to 2022, and later on as
    the baseline's simple mode); the mean over frames of their squared Mahalanobis distance, by the covariance of the
    training clips' errors (the selective Mahalanobis mode of 2023 and later, as its paper has it); or that distance of
    the mean error alone, which is what the published code of that mode computes."""
    train: AutoencoderTrainConfig = AutoencoderTrainConfig()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the feature store that it needs."""
        return ("log_mel",)
