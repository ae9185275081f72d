"""``method: {name: os_scl}``: one-stage supervised contrastive learning, and the comparators that are parts of it.

[B] arXiv 2509.13853 and its published code. STgram-MFN and Noisy-ArcMix are settings of it (``studies/comparators``).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from asd_ray.config.method import MethodConfig
from asd_ray.config.optimiser import ValidatedConfig

Input = Literal["mel", "tgram", "tfgram"]


class OsSclTrainConfig(ValidatedConfig):
    """Mixup, angular margin and supervised contrast in one stage."""

    epochs: int = Field(300, ge=0)
    """Epochs of the stage. [B]: 300."""
    batch_size: int = Field(64, ge=2)
    """Clips in one optimiser step, over all workers together. [B]: 64."""
    lr: float = Field(1e-4, gt=0)
    """Learning rate of AdamW. [B]: 1e-4."""
    lr_min: float = Field(1e-5, ge=0)
    """Learning rate at the end of the cosine. [B]: a tenth of ``lr``."""
    schedule: Literal["constant", "cosine", "cosine_epochs"] = "cosine_epochs"
    """Learning rate over the epochs. [B]: the cosine that falls after every epoch."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay. [B]: 0.01, the default of torch's AdamW."""
    mixup: float = Field(0.5, ge=0)
    """Mix pairs of clips, both Log-Mel and waveform, with λ ~ Beta(mixup, mixup), one λ for each batch and worker. 0
    does not mix. [B], Noisy-ArcMix: 0.5."""
    contrast: float = Field(1.0, ge=0)
    """Weight of the supervised contrastive loss; 0 leaves it out. [B]: 1."""
    temperature: float = Field(0.02, gt=0)
    """T of the contrast. [B]'s code: 0.02."""
    base_temperature: float = Field(0.07, gt=0)
    """T_base: the contrast is scaled by T / T_base. [B]'s code: 0.07."""
    ema: float = Field(0.9999, ge=0, lt=1)
    """Decay β of the moving average of the weights, which gives the scores: average ← β · average + (1 − β) · weights
    after every step. With 0 the weights themselves give the scores. [B]: 0.9999, over 161,700 steps; a short training
    needs a smaller β."""
    student_decay: float = Field(0.0, ge=0, lt=1)
    """After every update of the average, the trained weights and batch-norm statistics are multiplied by
    1 − ``student_decay``. The paper [B] does not mention this; its code uses 2e-6, a factor of 0.72 over its run."""
    validation: float = Field(0.05, ge=0, lt=1)
    """Share of the training clips that is held out to choose the epoch, by a hash of their paths. All of them are
    normal. [B]: 0.05, drawn at random."""
    keep: Literal["last", "best"] = "best"
    """Weights that the stage leaves behind: those of the ``last`` epoch, or of the ``best``, which has the lowest
    validation loss ([B])."""

    @model_validator(mode="after")
    def _fits_together(self) -> OsSclTrainConfig:
        if self.student_decay and not self.ema:
            raise ValueError("student_decay is part of the average's update: set ema above 0, or student_decay to 0")
        return self


class OsSclConfig(MethodConfig):
    """MobileFaceNet on Log-Mel, Tgram and TFgram with a feature-perturbation head [B]."""

    name: Literal["os_scl"] = "os_scl"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of Tgram, TFgram and MobileFaceNet, and of the gradients that several workers exchange; the rest is
    fp32. ``auto``: bf16 on CUDA and on CPUs with AVX-512 BF16 or AMX, else fp32. [B]: fp32."""
    inputs: tuple[Input, ...] = Field(("mel", "tgram", "tfgram"), min_length=1)
    """Input channels of the network: the Log-Mel, and what Tgram and TFgram make of the waveform. They always come in
    this order. [B]'s best result uses all three, STgram-MFN ``mel`` and ``tgram``."""
    perturbation: Literal["relu", "leaky_relu", "none"] = "relu"
    """Activation of the feature-perturbation head between network and angular margin; ``none`` leaves the head out.
    [B]: ReLU."""
    perturbation_dim: int = Field(64, ge=1)
    """R, the width to which the head compresses the 128 features. [B]: 64."""
    scale: float = Field(30.0, gt=0)
    """s of the angular margin. [B], STgram-MFN: 30."""
    margin: float = Field(0.4, ge=0, lt=1.5)
    """m of the angular margin, in radians. [B]: 0.4; STgram-MFN and Noisy-ArcMix: 0.7."""
    train: OsSclTrainConfig = OsSclTrainConfig()

    @property
    def columns(self) -> tuple[str, ...]:
        log_mel = ("log_mel",) if "mel" in self.inputs else ()
        return log_mel if set(self.inputs) == {"mel"} else (*log_mel, "waveform")

    @model_validator(mode="after")
    def _inputs_once(self) -> OsSclConfig:
        if repeated := sorted({name for name in self.inputs if self.inputs.count(name) > 1}):
            raise ValueError(f"inputs lists {', '.join(repeated)} more than once")
        return self
