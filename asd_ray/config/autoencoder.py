"""``method: {name: autoencoder}``: the official baseline of DCASE 2020 Task 2, and its score of 2023."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from asd_ray.config.section import Section
from asd_ray.config.sia_moco import ValidatedConfig


class AutoencoderTrainConfig(ValidatedConfig):
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
    keep: Literal["last", "best"] = "last"
    """Whose weights are left behind. The baseline's: the last epoch's."""


class AutoencoderConfig(Section):
    """One autoencoder of five frames for every machine type, without knowledge of IDs."""

    name: Literal["autoencoder"] = "autoencoder"
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Of the autoencoders' passes, and of gradients that several workers exchange; errors and scores are fp32. The
    baseline's is fp32: what it reconstructs are levels in dB, of which bf16 holds three digits, and its score is what
    the reconstruction misses. ``auto``: bf16 on CUDA and on CPUs with AVX-512 BF16 or AMX, else fp32."""
    score: Literal["mse", "mahalanobis", "mahalanobis_of_mean"] = "mse"
    """A clip's anomaly score, from the errors e = x − r(x) of its reconstruction. ``mse``: their mean square, the
    baseline's of 2020 to 2022. The others are its selective Mahalanobis mode of 2023 and later: the smaller of two
    distances, by the covariance Σ of the source clips' and of the target clips' errors. ``mahalanobis``: the mean over
    frames of eᵀ Σ⁻¹ e. ``mahalanobis_of_mean``: ēᵀ Σ⁻¹ ē of the mean error ē over frames, which is what the published
    code of that mode computes (up to a factor), as it averages e_iᵀ Σ⁻¹ e_j over all pairs of frames."""
    train: AutoencoderTrainConfig = AutoencoderTrainConfig()

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return self.train.epochs

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the feature store that it needs."""
        return ("log_mel",)
