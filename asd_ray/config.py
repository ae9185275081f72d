"""The study file: every field with its meaning, unit, default and source.

A study is YAML, validated here; an unknown key is an error. ``asd-ray study validate FILE`` prints the resolved study.
Sources: [A] arXiv 2509.15570 (sia_moco), [B] arXiv 2509.13853 (os_scl), [BYOL-A] the code whose augmentations A uses,
[MoCo] the code whose contrast A uses. Where a paper leaves a value open, the default is ours and says so.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

Channel = int | Literal["mean"]
Scalar = bool | int | float | str | None


class Section(BaseModel):
    """A part of the study file: immutable, and no key but the declared ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


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
    """Machine against factory background in dB: the mean of the clips', which lie within 2 dB of it."""
    seed: int = Field(0, ge=0)
    """Seed of the generator; a study's own ``seed`` does not change its data."""


class DataConfig(Section):
    layout: Literal["dcase2020", "dcase2022", "folder", "synthetic"] = "synthetic"
    """How file names say what a clip is. ``synthetic`` makes the recordings itself where ``root`` has none."""
    root: str | None = None
    """Folder of the data set. Only ``synthetic`` may leave it out: then it is the study folder's ``data/``."""
    machines: list[str] | None = None
    """Machine types to use; all that are there by default."""
    skip_bad: bool = False
    """Leave out clips that cannot be read (they are named in the log) instead of ending the study."""
    channel: Channel = 0
    """Which channel of a recording with several: its number, or the mean of all. DCASE uses the first microphone."""
    synthetic: SyntheticConfig = SyntheticConfig()
    """What ``layout: synthetic`` makes."""


class FeatureConfig(Section):
    """Log-Mel spectrograms (torchaudio's MelSpectrogram, centred, zero-padded at the ends)."""

    sample_rate: int = Field(16000, ge=1000)
    """In Hz; recordings at another rate are resampled (soxr, high quality)."""
    seconds: float = Field(10.0, gt=0)
    """Length of a clip: longer recordings are cut, shorter ones repeated from their start."""
    n_fft: int = Field(1024, ge=64)
    """Points of the Fourier transform. [A]'s own value is not recovered; 1024 as STgram, [B] uses 2048."""
    win_length: int = Field(1024, ge=64)
    """Samples of the Hann window."""
    hop_length: int = Field(512, ge=1)
    """Samples between frames: 512 gives [A]'s 313 frames for 10 s at 16 kHz."""
    n_mels: int = Field(128, ge=8)
    """Mel bands. [A], [B]: 128."""
    f_min: float = Field(0.0, ge=0)
    """Lower edge of the lowest band in Hz."""
    f_max: float | None = Field(None, gt=0)
    """Upper edge of the highest band in Hz; half the sample rate by default."""
    power: float = Field(2.0, gt=0)
    """Exponent of the magnitude: 2 is power, 1 magnitude."""
    mel_scale: Literal["htk", "slaney"] = "slaney"
    norm: Literal["slaney"] | None = "slaney"
    log: Literal["natural", "db"] = "natural"
    """Natural logarithm ([BYOL-A], which log-mixup-exp inverts) or decibels ([B])."""
    floor: float = Field(1e-10, gt=0)
    """Smallest value before the logarithm."""
    store: str | None = None
    """Folder of the feature store, to share it between studies; the study folder's ``features/`` by default."""

    @property
    def frames(self) -> int:
        """Frames T of a clip: ``1 + floor(samples / hop_length)`` with centring."""
        return 1 + round(self.seconds * self.sample_rate) // self.hop_length

    @model_validator(mode="after")
    def _consistent(self) -> FeatureConfig:
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length <= n_fft must hold, but got {self.win_length} and {self.n_fft}")
        nyquist = self.sample_rate / 2
        if (self.f_max or nyquist) > nyquist or self.f_min >= (self.f_max or nyquist):
            raise ValueError(
                f"0 <= f_min < f_max <= sample_rate / 2 must hold, but got f_min {self.f_min}, f_max {self.f_max}, "
                f"sample_rate / 2 {nyquist}"
            )
        return self


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


class EvaluationConfig(Section):
    score: Literal["classification", "knn", "mean"] = "knn"
    """A clip's anomaly score: ``classification`` is −log p(own ID); ``knn`` the mean cosine distance to the nearest
    training clips of the own ID; ``mean`` the mean of both, each standardised on the ID's training clips."""
    neighbours: int = Field(1, ge=1)
    """k of ``knn``."""
    objective: Literal["auc", "pauc", "auc_pauc"] = "auc_pauc"
    """What a search maximises on the select split: AUC, pAUC, or the mean of both."""
    max_fpr: float = Field(0.1, gt=0, lt=1)
    """p of pAUC. The challenge's is 0.1."""


class Distribution(Section):
    """Where a search draws a key from: ``{uniform: [0.1, 0.6]}`` or ``{type: uniform, low: 0.1, high: 0.6}``.

    ``uniform`` and ``loguniform`` are real numbers, ``int`` and ``logint`` integers, bounds included; ``choice`` is a
    list of values.
    """

    type: Literal["uniform", "loguniform", "int", "logint", "choice"]
    low: float | None = None
    high: float | None = None
    choices: list[Scalar] | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: Any) -> Any:
        kinds = ("uniform", "loguniform", "int", "logint", "choice")
        if isinstance(given, Distribution) or (isinstance(given, dict) and "type" in given):
            return given
        if not isinstance(given, dict) or len(given) != 1 or next(iter(given)) not in kinds:
            raise ValueError(f"expected one of {{{': [...]}, {'.join(kinds)}: [...]}}, but got {given!r}")
        [(kind, values)] = given.items()
        if kind == "choice":
            return {"type": kind, "choices": values}
        if not isinstance(values, (list, tuple)) or len(values) != 2:
            raise ValueError(f"{kind} takes two numbers, [low, high], but got {values!r}")
        return {"type": kind, "low": values[0], "high": values[1]}

    @model_validator(mode="after")
    def _consistent(self) -> Distribution:
        if self.type == "choice":
            if not self.choices or self.low is not None or self.high is not None:
                raise ValueError("choice takes a list of at least one value")
            return self
        if self.choices is not None or self.low is None or self.high is None:
            raise ValueError(f"{self.type} takes two numbers, [low, high]")
        if self.low > self.high:
            raise ValueError(f"low <= high must hold, but got [{self.low:g}, {self.high:g}]")
        if self.type.startswith("log") and self.low <= 0:
            raise ValueError(f"low > 0 must hold on a logarithmic scale, but got {self.low:g}")
        if self.type.endswith("int") and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"{self.type} takes two integers, but got [{self.low:g}, {self.high:g}]")
        return self

    @model_serializer
    def _as_short_form(self) -> dict[str, list[Any]]:
        if self.type == "choice":
            return {"choice": list(self.choices or [])}
        bounds = [self.low, self.high]
        return {self.type: [int(b or 0) for b in bounds] if self.type.endswith("int") else bounds}

    def examples(self) -> list[Scalar]:
        """The values that a study must accept for the whole distribution to make sense: the bounds or the choices."""
        if self.type == "choice":
            return list(self.choices or [])
        cast = int if self.type.endswith("int") else float
        return [cast(self.low or 0), cast(self.high or 0)]

    def contains(self, value: Scalar) -> bool:
        """Whether a search may draw the value."""
        if self.type == "choice":
            return value in (self.choices or [])
        low, high = self.low or 0, self.high or 0
        return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high

    def __str__(self) -> str:
        if self.type == "choice":
            return "one of " + ", ".join(str(choice) for choice in self.choices or [])
        scale = " (log)" if self.type.startswith("log") else ""
        return f"{self.low:g} to {self.high:g}{scale}"


class SearchConfig(Section):
    space: dict[str, Distribution] = {}
    """Dotted key of the study -> its distribution, for example ``method.pretrain.alpha: {uniform: [0.1, 0.6]}``."""
    num_trials: int = Field(20, ge=1)
    """Trials of the study, the study file's own values (the first trial) among them."""
    sampler: Literal["tpe", "random"] = "tpe"
    """Optuna's sampler: tree-structured Parzen estimator (multivariate, constant liar), or random."""
    startup_trials: int = Field(10, ge=0)
    """Random trials before TPE begins to model."""
    scheduler: Literal["none"] = "none"
    """Early stopping of trials."""
    warm_start: list[dict[str, Scalar]] = []
    """Points to try right after the study file's own values."""
    seeds: int = Field(1, ge=1)
    """Seeds that the best configurations are run with. Repeats are not built yet: 1."""

    @model_validator(mode="after")
    def _no_repeats_yet(self) -> SearchConfig:
        if self.seeds > 1:
            raise ValueError(f"seeds must be 1, this version cannot repeat trials yet, but got {self.seeds}")
        return self


class ResourceConfig(Section):
    workers: int = Field(1, ge=1)
    """Training workers of one trial. With one, the trial trains in its own process; with more, through Ray Train."""
    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_worker: float = Field(0, ge=0)
    max_concurrent_trials: int | None = Field(None, ge=1)
    """By default as many as the cluster has room for."""
    max_failures: int = Field(1, ge=0)
    """Times that a trial is started again after it lost a worker."""
    storage: str | None = None
    """Folder for checkpoints of trials with several workers; the study folder by default. On several nodes it must be
    shared."""


class StudyConfig(Section):
    """A whole study file."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the study in folders, logs and the Ray dashboard."""
    seed: int = Field(0, ge=0)
    """Every random number of the study is derived from it (and from trial, epoch and worker)."""
    data: DataConfig = DataConfig()
    features: FeatureConfig = FeatureConfig()
    method: SiaMocoConfig = SiaMocoConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    search: SearchConfig = SearchConfig()
    resources: ResourceConfig = ResourceConfig()

    @model_validator(mode="after")
    def _data_has_a_root(self) -> StudyConfig:
        if self.data.layout != "synthetic" and self.data.root is None:
            raise ValueError(f"data.root must name the data set's folder for data.layout {self.data.layout}")
        return self
