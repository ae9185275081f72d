"""``method: {name: sia_moco}``: contrastive pre-training with spectrum-information augmentation, then a classifier."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from asd_ray.config.data import DataConfig
from asd_ray.config.method import MethodConfig
from asd_ray.config.optimiser import OptimiserConfig, ValidatedConfig


class PretrainConfig(OptimiserConfig):
    """Momentum contrast on two augmented views (method A, sections 1.4 to 1.6 and 2 of its reference)."""

    encoder: str = "resnet50"
    """Encoder, by its name in timm or in ``register_encoder``. [A]: ResNet-50. It has one input channel and starts from
    random weights."""
    init_from: str | None = None
    """Folder of a saved encoder (``published``) to start from, of the same architecture and features. By default the
    weights are random."""
    corpus: Literal["own", "extra", "both"] = "own"
    """Clips to pre-train on: the set's own training clips, those of ``data.extra_pretraining``, or both. All are
    standardised with the mean and standard deviation of the training clips. [A]: AudioSet."""
    projection: Literal["linear", "mlp"] = "mlp"
    """Projection head: ``linear`` as in [MoCo] v1, or ``mlp``, two layers, as in v2. Not recovered from [A]."""
    dim: int = Field(128, ge=2)
    """D, the dimension of the contrast space. [MoCo]: 128."""
    alpha: float = Field(0.4, ge=0, lt=1)
    """α, the mixing ratio: log-mixup-exp draws each clip's λ from U(0, α). [BYOL-A]: 0.4. Not recovered from [A]."""
    bank_size: int = Field(2048, ge=1)
    """Clips that the mixing bank of each worker keeps to mix with, themselves unmixed. [BYOL-A]: 2048."""
    mix_domain: Literal["normalised", "power"] = "normalised"
    """What log-mixup-exp adds: ``normalised``, the exponentials of standardised features ([BYOL-A]), which are
    power^(1/σ); or ``power``, the mel energies whose logarithm the features are (magnitudes, with
    ``features.power: 1``)."""
    band: Literal["all", "high"] = "all"
    """Mel bands that are mixed: ``all``, as in the published operation, or ``high``, those from ``band_from_hz`` on,
    which is the argument of [A]."""
    band_from_hz: float = Field(2000.0, ge=0)
    """Lowest centre frequency of a mixed band in Hz, with ``band: high``. Ours."""
    crop_scale: tuple[float, float] = (0.6, 1.5)
    """Range of the frequency and time scale of Random Resize Crop. [BYOL-A]: 0.6 to 1.5."""
    canvas: tuple[float, float] = (1.0, 1.5)
    """Virtual canvas of Random Resize Crop, as multiples of F and T. [BYOL-A]: 1.0 and 1.5."""
    momentum: float = Field(0.99, ge=0, le=1)
    """m: θ_k ← m θ_k + (1 − m) θ_q. [A]: 0.99."""
    momentum_schedule: Literal["constant", "cosine"] = "constant"
    """m over the stage's steps: ``constant``, or ``cosine``, along half a cosine to 1 (BYOL)."""
    queue_size: int = Field(4096, ge=0)
    """K, the number of past keys that serve as negatives; with 0 the negatives are the other keys of the batch. All
    parts of a step (``accumulate``) see the queue as it was before the step. Not recovered from [A]; [MoCo]: 65,536,
    which is more than DCASE 2020 has clips."""
    temperature: float = Field(0.2, gt=0)
    """T of InfoNCE. [MoCo]: 0.07 in v1, 0.2 in v2. Not recovered from [A]."""
    keep: Literal["last", "best"] = "last"
    """Encoder that the stage leaves behind: that of the ``last`` epoch, or of the ``best``, which has the highest k-NN
    AUC on the select split of all measured epochs (``probe_every``)."""
    shuffle_bn: bool = True
    """Batch norm never sees a key together with the clips of its query: keys are permuted over the workers, or over two
    halves of the batch of a single worker. [MoCo]."""


class FinetuneConfig(ValidatedConfig):
    """A classifier of the training clips' classes (machine and ID) that uses the pre-trained encoder.

    [A] says that the representation is fine-tuned, and nothing of how. Defaults without a source are ours.
    """

    epochs: int = Field(20, ge=0)
    """Epochs of the stage; 0 leaves it out. Ours."""
    coupling: Literal["encoder", "channel", "frozen", "none"] = "encoder"
    """How the classifier uses the pre-trained encoder. [A] only says that a light network is fine-tuned on the
    representation. ``encoder``: the head is on the encoder's pooled features, and both are trained. ``channel``: the
    encoder is frozen; its last feature map, reduced to one channel, is a second input channel of the light network,
    beside the Log-Mel. ``frozen``: the encoder is frozen, and the head on its pooled features is trained. ``none``: the
    light network on the Log-Mel, without pre-training: the ablation."""
    network: str = "mobilefacenet"
    """Light network of the couplings ``channel`` and ``none``: ``mobilefacenet`` (the variant of this field, as in
    [B]), or another name of timm's or ``register_encoder``'s, with random weights. [A] names ``mobilenetv2_100`` and
    MobileFaceNet, but not which of them gave its result."""
    head: Literal["linear", "arcface"] = "arcface"
    """Head: ``linear``, or ``arcface``, an additive angular margin, as in the methods that [A] compares with."""
    scale: float = Field(30.0, gt=0)
    """s of the angular margin. [B], STgram: 30."""
    margin: float = Field(0.4, ge=0, lt=1.5)
    """m of the angular margin, in radians. [B]: 0.4; STgram: 0.7."""
    mixup: float = Field(0.0, ge=0)
    """Mix pairs of pre-normed clips with λ ~ Beta(mixup, mixup), one λ for each batch and worker. The loss is
    λ CE(y_a) + (1 − λ) CE(y_b), with the margin on y_a (Noisy-ArcMix). 0 does not mix. [B], Noisy-ArcMix: 0.5."""
    validation: float = Field(0.05, ge=0, lt=1)
    """Share of the training clips that is held out to choose the epoch, by a hash of their paths. All of them are
    normal. [B]: 0.05."""
    keep: Literal["last", "best"] = "best"
    """Weights that the stage leaves behind: those of the ``last`` epoch, or of the ``best``, which has the lowest
    validation loss ([B]). Without ``validation``, the last."""


class SiaMocoConfig(MethodConfig):
    """Contrastive pre-training with spectrum-information augmentation, then a classifier [A]."""

    name: Literal["sia_moco"] = "sia_moco"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of encoder and light network, and of the gradients that several workers exchange; the head is fp32.
    ``auto``: bf16 on CUDA and on CPUs with AVX-512 BF16 or AMX, else fp32."""
    compile: bool = False
    """Compile encoder and light network with ``torch.compile`` at their first passes. This takes half a minute or more
    in each trial, and needs a C++ compiler on every node."""
    pretrain: PretrainConfig = PretrainConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    paths: ClassVar[tuple[str, ...]] = ("pretrain.init_from",)

    @property
    def stage_epochs(self) -> dict[str, int]:
        pretrain = {} if self.finetune.coupling == "none" else {"pretrain": self.pretrain.epochs}
        return {**pretrain, "finetune": self.finetune.epochs}

    @property
    def augmentation(self) -> PretrainConfig:
        return self.pretrain

    def check_data(self, data: DataConfig) -> None:
        if self.pretrain.corpus != "own" and not data.extra_pretraining:
            raise ValueError(
                f"data.extra_pretraining must name folders of audio for method.pretrain.corpus {self.pretrain.corpus}"
            )
