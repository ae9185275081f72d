"""``method``: what is trained, with every hyperparameter, its default and its source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from asd_ray.config.section import Section


class OptimiserConfig(Section):
    epochs: int = Field(150, ge=0)
    """[A]: 150, without saying of which stage."""
    batch_size: int = Field(64, ge=2)
    """Clips of one step over all workers together. Not recovered from [A]."""
    lr: float = Field(9e-4, gt=0)
    """Learning rate of Adam. [A]: 0.0009."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay (AdamW). Not recovered from [A]; 0 is Adam."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Learning rate over a stage's epochs, per step. Not recovered from [A]."""
    warmup_epochs: float = Field(0.0, ge=0)
    """Linear warm-up from 0."""


class PretrainConfig(OptimiserConfig):
    """Momentum contrast on two augmented views (method A, sections 1.4 to 1.6 and 2 of its reference)."""

    encoder: str = "resnet50"
    """Encoder by its timm name. [A]: ResNet-50. It gets one input channel and no pre-trained weights."""
    projection: Literal["linear", "mlp"] = "mlp"
    """Projection head: [MoCo] v1 linear, v2 two layers. Not recovered from [A]."""
    dim: int = Field(128, ge=2)
    """Dimension D of the contrast space. [MoCo]: 128."""
    alpha: float = Field(0.4, ge=0, lt=1)
    """Mixing ratio α: log-mixup-exp draws each clip's λ from U(0, α). [BYOL-A] 0.4; not recovered from [A]."""
    bank_size: int = Field(2048, ge=1)
    """Un-mixed clips that the mixing bank keeps, per worker. [BYOL-A]: 2048."""
    crop_scale: tuple[float, float] = (0.6, 1.5)
    """Range of Random Resize Crop's frequency and time scale. [BYOL-A]: 0.6 to 1.5."""
    canvas: tuple[float, float] = (1.0, 1.5)
    """Virtual canvas of Random Resize Crop, as multiples of F and T. [BYOL-A]: 1.0 and 1.5."""
    momentum: float = Field(0.99, ge=0, le=1)
    """m: θ_k ← m θ_k + (1 − m) θ_q. [A]: 0.99."""
    momentum_schedule: Literal["constant", "cosine"] = "constant"
    """m over the stage's steps: constant, or along half a cosine to 1 (BYOL)."""
    queue_size: int = Field(4096, ge=0)
    """K: past keys that serve as negatives; 0 takes the batch's other keys. Not recovered from [A]; [MoCo] has 65,536,
    more than the clips of DCASE 2020."""
    temperature: float = Field(0.2, gt=0)
    """T of InfoNCE. [MoCo] v1 0.07, v2 0.2. Not recovered from [A]."""
    shuffle_bn: bool = True
    """Batch-norm statistics of a key never come from the same clips as its query's: keys are permuted over workers, or
    over two halves of the batch on one worker. [MoCo]."""


class FinetuneConfig(OptimiserConfig):
    """A classifier of machine and ID on the pre-trained encoder. Not recovered from [A] but for its purpose."""

    epochs: int = Field(20, ge=0)
    """Ours."""
    head: Literal["linear", "arcface"] = "arcface"
    """Linear, or additive angular margin as in the field's comparators."""
    scale: float = Field(30.0, gt=0)
    """s of the angular margin. [B], STgram: 30."""
    margin: float = Field(0.4, ge=0, lt=1.5)
    """m of the angular margin, in radians. [B] 0.4, STgram 0.7."""


class SiaMocoConfig(Section):
    """Contrastive pre-training with spectrum-information augmentation, then a classifier [A]."""

    name: Literal["sia_moco"] = "sia_moco"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the encoder's passes. ``auto``: bf16 on CUDA and on CPUs with AVX-512 BF16 or AMX, else fp32."""
    pretrain: PretrainConfig = PretrainConfig()
    finetune: FinetuneConfig = FinetuneConfig()
