"""Method B: one-stage supervised contrastive learning on Log-Mel, Tgram and TFgram, and its parts as comparators.

Legend: B batch of one worker, N global batch, S samples, F mel bands, T frames, D = 128 features, C classes.

Huang et al., "Noise supervised contrastive learning and feature-perturbed for anomalous sound detection", ICASSP 2025,
arXiv 2509.13853 (OS-SCL), and its published code:

1. The clips of a batch are mixed in pairs.
2. MobileFaceNet, and a head that compresses its features ("feature perturbation"), give unit vectors z.
3. The loss is an angular margin plus a supervised contrast, in which a mixed clip has its first label only ("noise").
4. A moving average of the weights gives the scores.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from asd_ray.config.os_scl import OsSclConfig
from asd_ray.data.clips import group_of
from asd_ray.methods.base import DataInfo, Inputs, Method, Stage, resolve_precision
from asd_ray.methods.blocks.heads import ArcFaceHead
from asd_ray.methods.blocks.losses import supervised_contrastive
from asd_ray.methods.blocks.mixup import draw_mixup, mixed_accuracy, mixed_cross_entropy
from asd_ray.methods.blocks.mobilefacenet import MobileFaceNet
from asd_ray.methods.os_scl.gram import TFgram, Tgram
from asd_ray.methods.workers import gather, rank, world_size
from asd_ray.registry import register_method

log = logging.getLogger("asd_ray")


class OsSclNetwork(nn.Module):
    """Clips to unit vectors z (B, D); also holds the angular-margin head of their classes.

    It has the branches of ``config.inputs`` only: with 41 classes at 128 × 313, 1,372,246 parameters for all three
    inputs, and 891,968 for the Log-Mel alone. The published code has 5,289 more (1,377,535 and 897,257), in ``fc_out``,
    a linear layer of its MobileFaceNet whose output is not used.

    Args:
        config: settings of the method.
        info: of the data.
    """

    def __init__(self, config: OsSclConfig, info: DataInfo) -> None:
        super().__init__()
        self.precision, n_mels, frames = config.precision, info.n_mels, info.frames
        grams: dict[str, nn.Module] = {}
        if "tgram" in config.inputs:
            grams["tgram"] = Tgram(n_mels, frames, int(info.features.get("hop_length", 512)))
        if "tfgram" in config.inputs:
            grams["tfgram"] = TFgram(n_mels, frames)
        self.mel, self.grams = "mel" in config.inputs, nn.ModuleDict(grams)
        self.mobilefacenet = MobileFaceNet(len(config.inputs), n_mels, frames)
        features = self.mobilefacenet.num_features
        self.perturbation = perturbation_head(config.perturbation, features, config.perturbation_dim)
        self.head = ArcFaceHead(features, len(info.classes), config.scale, config.margin)
        for convolutions in (self.grams, self.mobilefacenet):
            cast(Any, convolutions).to(memory_format=torch.channels_last)  # torch's annotations lack this form

    def forward(self, inputs: Inputs) -> Tensor:
        """Floats of :func:`as_floats` to z (B, D)."""
        device = next(iter(inputs.values())).device
        dtype = resolve_precision(self.precision, device)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            channels = [inputs["log_mel"]] if self.mel else []
            channels += [gram(inputs["waveform"]).float() for gram in self.grams.values()]
            features = self.mobilefacenet(torch.stack(channels, dim=1))  # (B, I, F, T), in the paper's order
        return nnf.normalize(self.perturbation(features.float()), dim=1)

    def extra_repr(self) -> str:
        return f"mel={self.mel}, precision={self.precision}"


def perturbation_head(kind: str, features: int, dim: int) -> nn.Module:
    """The feature-perturbation head, D → R → D; with ``none`` the features stay as they are.

    Batch norm follows the activation, so the output has both signs.

    Args:
        kind: ``relu``, ``leaky_relu`` (a variant of the published code) or ``none``.
        features: D.
        dim: R.
    """
    if kind == "none":
        return nn.Identity()
    layers: list[nn.Module] = []
    for inputs, outputs in ((features, dim), (dim, features)):
        activation = nn.ReLU() if kind == "relu" else nn.LeakyReLU(0.01)
        layers += [nn.Linear(inputs, outputs), activation, nn.BatchNorm1d(outputs)]
    return nn.Sequential(*layers)


def as_floats(inputs: Inputs) -> dict[str, Tensor]:
    """Columns in fp32: Log-Mels without normalisation, and waveforms in [-1, 1]."""
    floats = {name: column.float() for name, column in inputs.items()}
    if "waveform" in floats:
        floats["waveform"] = floats["waveform"] / 32768
    return floats


def mixed(inputs: Mapping[str, Tensor], partner: Tensor, ratio: float) -> dict[str, Tensor]:
    """λ x + (1 − λ) x_π of each column: as published, a mixed Log-Mel is not the Log-Mel of the mixed waveform.

    Args:
        inputs: column name -> (B, …).
        partner: π, (B,) positions of the clips to mix in.
        ratio: λ.
    """
    return {name: ratio * column + (1 - ratio) * column[partner] for name, column in inputs.items()}


@torch.no_grad()
def update_average(average: nn.Module, student: nn.Module, decay: float, student_decay: float = 0.0) -> None:
    """θ_ema ← β θ_ema + (1 − β) θ, then θ ← (1 − student_decay) θ, in place.

    θ are weights and the running statistics of batch norm, as in the published code; β is ``decay``.
    """
    pairs = zip(average.state_dict().values(), student.state_dict().values(), strict=True)
    averages, weights = zip(*((a, w) for a, w in pairs if w.is_floating_point()), strict=True)
    get_ema_multi_avg_fn(decay)(averages, weights, None)
    if student_decay:
        for weight in weights:
            weight.mul_(1 - student_decay)


class OsSclStage(Stage):
    """Mixed clips, angular margin and supervised contrast.

    Args:
        config: settings of the method.
        network: the method's. With ``train.ema`` it holds the average, and a copy of it is trained.
    """

    name = "train"

    def __init__(self, config: OsSclConfig, network: OsSclNetwork) -> None:
        super().__init__()
        train = config.train
        self.optimiser, self.config = train, train
        self.validation, self.patience, self.keep = train.validation, train.patience, train.keep
        self.student = (deepcopy(network) if train.ema else network).requires_grad_()
        self.average = network.requires_grad_(False) if train.ema else None

    def forward(self, inputs: Inputs, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L = L_cls + L_sup of clips.

        The contrast is among the clips of all workers; mixup and batch norm are among those of one. The accuracy is
        that of the logits without margin, with the weights of the loss.
        """
        config, clips, partners, ratio = self.config, as_floats(inputs), labels, 1.0
        if config.mixup:
            ratio, partner = draw_mixup(config.mixup, len(labels), labels.device)
            clips, partners = mixed(clips, partner, ratio), labels[partner]
        z = self.student(clips)
        loss = mixed_cross_entropy(self.student.head(z, labels), labels, partners, ratio)
        with torch.no_grad():
            accuracy = mixed_accuracy(self.student.head(z), labels, partners, ratio)
        metrics = {"classification": loss.detach(), "accuracy": accuracy}
        if config.contrast:
            contrast = self._contrast(z, labels)
            metrics["contrast"] = contrast.detach()
            loss = loss + config.contrast * contrast
        return loss, metrics

    def _contrast(self, z: Tensor, labels: Tensor) -> Tensor:
        """L_sup of the global batch (N, D).

        A worker has gradients for its own rows only. The gradient of the loss is the sum over workers, but training
        averages over them: therefore the gradient (not the value) is multiplied by the number of workers.
        """
        workers, everyone = world_size(), gather(z)
        before, after = everyone[: rank() * len(z)], everyone[(rank() + 1) * len(z) :]
        loss = supervised_contrastive(
            torch.cat([before, z, after]), gather(labels), self.config.temperature, self.config.base_temperature
        )
        return workers * loss - (workers - 1) * loss.detach()

    def validation_loss(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """The sum over unmixed clips of the cross-entropy with margin, from the network that gives the scores."""
        network = self.student if self.average is None else self.average
        return nnf.cross_entropy(network.head(network(as_floats(inputs)), labels), labels, reduction="sum")

    def end_step(self, progress: float = 0.0) -> None:
        """Move the average towards the weights."""
        if self.average is not None:
            update_average(self.average, self.student, self.config.ema, self.config.student_decay)


@register_method("os_scl", config=OsSclConfig)
class OsScl(Method):
    """The network with its head: everything that a detector needs.

    Args:
        config: settings of the method.
        info: of the data.
    """

    has_own_score = True

    def __init__(self, config: OsSclConfig, info: DataInfo) -> None:
        super().__init__()
        self.config, self.info = config, info
        self.network = OsSclNetwork(config, info)

    def stages(self) -> Sequence[Stage]:
        """Build the stage; none with 0 epochs."""
        train = self.config.train
        if not train.epochs:
            return []
        steps = train.epochs * max(int(self.info.clips * (1 - train.validation)) // train.batch_size, 1)
        if (left := train.ema**steps) > 0.1:
            log.warning(
                "method.train.ema: %g leaves %.0f %% of the random start in the averaged weights, which score, after "
                "%d steps; lower it, or train longer.",
                train.ema,
                100 * left,
                steps,
            )
        return [OsSclStage(self.config, self.network).to(next(self.parameters()).device)]

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """z (B, D) and logits (B, C) without margin."""
        z = self.network(as_floats(inputs))
        return z, self.network.head(z)

    def own_score(self, embedding: Tensor, groups: Sequence[str]) -> Tensor:
        """The published score, −log softmax(logits with margin on the own class)[own class], (B,) fp64.

        The margin is applied to test clips as in training; the score ``classification`` is the same without margin. If
        an ID has several classes, the class of a clip is unknown: all of them have the margin, and their softmax is
        summed. A clip of an untrained ID gets the smallest score of all IDs.
        """
        numbers = {name: position for position, name in enumerate(self.info.groups)}
        of_class = embedding.new_tensor([numbers[group_of(name)] for name in self.info.classes], dtype=torch.long)
        own = embedding.new_tensor([numbers.get(name, -1) for name in groups], dtype=torch.long)
        known = own >= 0
        scores = torch.empty(len(embedding), dtype=torch.float64, device=embedding.device)
        scores[known] = self._margin_score(embedding[known], own[known, None] == of_class)
        if not known.all():
            unknown = embedding[~known]
            tried = [self._margin_score(unknown, (of_class == n).expand(len(unknown), -1)) for n in numbers.values()]
            scores[~known] = torch.stack(tried).amin(dim=0)
        return scores

    def _margin_score(self, z: Tensor, own: Tensor) -> Tensor:
        """Scores (B,) of z (B, D), given a mask (B, C) of their own classes."""
        log_p = self.network.head(z, own).double().log_softmax(dim=1)
        return -log_p.masked_fill(~own, -torch.inf).logsumexp(dim=1)
