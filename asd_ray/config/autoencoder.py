"""``method: {name: autoencoder}``: the official baseline of DCASE 2020 Task 2, and its score of 2023."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from asd_ray.config.method import MethodConfig
from asd_ray.config.optimiser import ValidatedConfig


class AutoencoderTrainConfig(ValidatedConfig):
    """The training of all machine types' autoencoders in one stage."""

    epochs: int = Field(100, ge=0)
    """Epochs of the stage. The baseline's: 100."""
    batch_size: int = Field(16, ge=2)
    """Clips in one optimiser step, of all machine types and over all workers, each with all its vectors. The baseline
    takes 512 random vectors of one machine type, as many as 1.7 clips have; 16 clips of six machine types have 820
    vectors of each. Ours."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate of Adam. The baseline's: 0.001."""
    schedule: Literal["constant", "cosine", "cosine_epochs"] = "constant"
    """Learning rate over the epochs. The baseline's: constant."""
    probe_every: int = Field(0, ge=0)
    """Epochs between two measurements of the k-NN AUC. Never by default: there are no embeddings to measure."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share of the training clips that is held out and measured after every epoch, by a hash of their paths. The
    baseline holds out the last 10 % of the vectors."""
    keep: Literal["last", "best"] = "last"
    """Weights that the stage leaves behind: those of the ``last`` epoch, as in the baseline, or of the ``best``."""


class AutoencoderConfig(MethodConfig):
    """One autoencoder of five frames for every machine type. It does not know IDs."""

    name: Literal["autoencoder"] = "autoencoder"
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Precision of the autoencoders, and of the gradients that several workers exchange; errors and scores are fp32.
    The baseline's: fp32. It reconstructs levels in dB, of which bf16 holds three digits, and the score is the error of
    the reconstruction. ``auto``: bf16 on CUDA and on CPUs with AVX-512 BF16 or AMX, else fp32."""
    score: Literal["mse", "mahalanobis", "mahalanobis_of_mean"] = "mse"
    """A clip's anomaly score from the errors e = x − r(x) of its reconstruction. ``mse``: their mean square, as in the
    baseline of 2020 to 2022. The other two are the baseline's selective Mahalanobis mode of 2023 and later: the smaller
    of two distances, by the covariance Σ of the source clips' errors and of the target clips' errors. ``mahalanobis``:
    the mean over frames of eᵀ Σ⁻¹ e. ``mahalanobis_of_mean``: ēᵀ Σ⁻¹ ē of the mean error ē over frames. The published
    code computes the latter, up to a factor: it averages e_iᵀ Σ⁻¹ e_j over all pairs of frames."""
    train: AutoencoderTrainConfig = AutoencoderTrainConfig()
