"""``method``: what is trained, with every hyperparameter, its default and its source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from asd_ray.config.section import Section


class OptimiserConfig(Section):
    epochs: int = Field(150, ge=0)
    """[A]: 150, without saying of which stage."""
    batch_size: int = Field(64, ge=2)
    """Clips of one step over all workers together. Not recovered from [A]."""
    accumulate: int = Field(1, ge=1)
    """Parts of a step's batch that are computed one after the other, where the whole does not fit into memory. One
    optimiser step takes the gradients of all parts. What looks at a whole batch sees one part: batch norm, post-norm,
    in-batch negatives."""
    lr: float = Field(9e-4, gt=0)
    """Learning rate of Adam. [A]: 0.0009."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay (AdamW). Not recovered from [A]; 0 is Adam."""
    lr_min: float = Field(0.0, ge=0)
    """Where the cosine ends."""
    schedule: Literal["constant", "cosine", "cosine_epochs"] = "cosine"
    """Learning rate over a stage's epochs: constant, or falling along half a cosine from step to step or, in
    ``cosine_epochs``, only after every epoch. Not recovered from [A]."""
    warmup_epochs: float = Field(0.0, ge=0)
    """Linear warm-up from 0."""
    probe_every: int = Field(10, ge=0)
    """Epochs between measurements of the k-NN AUC on the select split (there is one after the last epoch, too); 0
    never measures."""

    @model_validator(mode="after")
    def _cosine_falls(self) -> OptimiserConfig:
        if self.lr_min > self.lr:
            raise ValueError(f"lr_min <= lr must hold, but got {self.lr_min:g} and {self.lr:g}")
        return self


class ValidatedConfig(OptimiserConfig):
    """Of a stage that can hold out training clips and watch their loss."""

    validation: float = Field(0.0, ge=0, lt=1)
    """Share of the training clips (normal ones, by a hash of their paths) that is held out."""
    patience: int = Field(0, ge=0)
    """Epochs without a lower validation loss after which the stage ends; 0 trains all its epochs."""

    @model_validator(mode="after")
    def _patience_needs_validation(self) -> ValidatedConfig:
        if self.patience and not self.validation:
            raise ValueError("patience needs clips that are held out: set validation above 0, or patience to 0")
        return self


class PretrainConfig(OptimiserConfig):
    """Momentum contrast on two augmented views (method A, sections 1.4 to 1.6 and 2 of its reference)."""

    encoder: str = "resnet50"
    """Encoder by its timm name. [A]: ResNet-50. It gets one input channel and no weights that came with timm."""
    init_from: str | None = None
    """Folder of a saved encoder (``published``) to start from, of the same architecture and features;
    random weights by default."""
    corpus: Literal["own", "extra", "both"] = "own"
    """What is pre-trained on: the set's own training clips, those of ``data.extra_pretraining``, or both; all are
    standardised with the training clips' mean and deviation. [A] took AudioSet."""
    projection: Literal["linear", "mlp"] = "mlp"
    """Projection head: [MoCo] v1 linear, v2 two layers. Not recovered from [A]."""
    dim: int = Field(128, ge=2)
    """Dimension D of the contrast space. [MoCo]: 128."""
    alpha: float = Field(0.4, ge=0, lt=1)
    """Mixing ratio α: log-mixup-exp draws each clip's λ from U(0, α). [BYOL-A] 0.4; not recovered from [A]."""
    bank_size: int = Field(2048, ge=1)
    """Un-mixed clips that the mixing bank keeps, per worker. [BYOL-A]: 2048."""
    mix_domain: Literal["normalised", "power"] = "normalised"
    """What log-mixup-exp adds up: the exponential of standardised features ([BYOL-A]), which is power^(1/σ), or the mel
    energies themselves, whose logarithm the features are (with ``features.power: 1`` these are magnitudes)."""
    band: Literal["all", "high"] = "all"
    """Mel bands that are mixed: all, as the published operation does, or those from ``band_from_hz`` on, which is what
    [A] argues with."""
    band_from_hz: float = Field(2000.0, ge=0)
    """With ``band: high``, the lowest centre frequency of a band that is mixed. Ours."""
    crop_scale: tuple[float, float] = (0.6, 1.5)
    """Range of Random Resize Crop's frequency and time scale. [BYOL-A]: 0.6 to 1.5."""
    canvas: tuple[float, float] = (1.0, 1.5)
    """Virtual canvas of Random Resize Crop, as multiples of F and T. [BYOL-A]: 1.0 and 1.5."""
    momentum: float = Field(0.99, ge=0, le=1)
    """m: θ_k ← m θ_k + (1 − m) θ_q. [A]: 0.99."""
    momentum_schedule: Literal["constant", "cosine"] = "constant"
    """m over the stage's steps: constant, or along half a cosine to 1 (BYOL)."""
    queue_size: int = Field(4096, ge=0)
    """K: past keys that serve as negatives; 0 takes the batch's other keys. A step's negatives are what the queue held
    before it, all parts of ``accumulate`` alike. Not recovered from [A]; [MoCo] has 65,536, more than the clips of
    DCASE 2020."""
    temperature: float = Field(0.2, gt=0)
    """T of InfoNCE. [MoCo] v1 0.07, v2 0.2. Not recovered from [A]."""
    keep: Literal["last", "best"] = "last"
    """Which epoch's encoder goes on: the last, or the one with the highest k-NN AUC on the select split among those
    that were measured (``probe_every``)."""
    shuffle_bn: bool = True
    """Batch-norm statistics of a key never come from the same clips as its query's: keys are permuted over workers, or
    over two halves of the batch on one worker. [MoCo]."""


class FinetuneConfig(ValidatedConfig):
    """A classifier of the training clips' classes (machine and ID), which uses what pre-training has learned.

    Not recovered from [A] but for its purpose.
    """

    epochs: int = Field(20, ge=0)
    """Ours."""
    coupling: Literal["encoder", "channel", "frozen", "none"] = "encoder"
    """How the pre-trained encoder enters. [A] says only that a light network is fine-tuned on the representation.
    ``encoder``: the head is on the encoder's pooled features and both are trained. ``channel``: the encoder's last
    feature map, reduced to one channel, is a second input channel of the light network beside the Log-Mel; the encoder
    is frozen. ``frozen``: the head alone is trained, on the frozen encoder's pooled features. ``none``: the light
    network on the Log-Mel alone, without pre-training: the ablation."""
    network: str = "mobilefacenet"
    """The light network of the couplings ``channel`` and ``none``: ``mobilefacenet`` (this field's variant, as in [B])
    or a timm name without pre-trained weights. [A] names ``mobilenetv2_100`` and MobileFaceNet, not which gave its
    result."""
    head: Literal["linear", "arcface"] = "arcface"
    """Linear, or additive angular margin as in the field's comparators."""
    scale: float = Field(30.0, gt=0)
    """s of the angular margin. [B], STgram: 30."""
    margin: float = Field(0.4, ge=0, lt=1.5)
    """m of the angular margin, in radians. [B] 0.4, STgram 0.7."""
    mixup: float = Field(0.0, ge=0)
    """Mixes pairs of pre-normed clips with λ ~ Beta(mixup, mixup), one λ per batch and worker; the loss is
    λ CE(y_a) + (1 − λ) CE(y_b), with the margin on y_a (Noisy-ArcMix). 0 does not mix. [B], Noisy-ArcMix: 0.5."""
    validation: float = Field(0.05, ge=0, lt=1)
    """Share of the training clips (normal ones, by a hash of their paths) that is held out to choose the epoch by. [B]:
    0.05."""
    keep: Literal["last", "best"] = "best"
    """Whose weights the stage leaves behind: the last epoch's, or those of the lowest validation loss, as [B] does.
    Without validation it is the last."""


class SiaMocoConfig(Section):
    """Contrastive pre-training with spectrum-information augmentation, then a classifier [A]."""

    name: Literal["sia_moco"] = "sia_moco"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the passes of encoder and light network, and of the gradients that several workers exchange; the head is fp32.
    ``auto``: bf16 on CUDA and on CPUs with AVX-512 BF16 or AMX, else fp32."""
    compile: bool = False
    """Translate encoder and light network by ``torch.compile`` at their first passes, which takes half a minute or more
    in each trial and needs a C++ compiler on every node."""
    pretrain: PretrainConfig = PretrainConfig()
    finetune: FinetuneConfig = FinetuneConfig()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the feature store that the method needs."""
        return ("log_mel",)

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return self.finetune.epochs + (0 if self.finetune.coupling == "none" else self.pretrain.epochs)
