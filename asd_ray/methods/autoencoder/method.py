"""The official baseline: an autoencoder of five frames for each machine type; its reconstruction error is the score.

Legend: B batch, F mel bands, T frames, P = 5 frames, V = T − P + 1 vectors of a clip, M machine types, C classes.

The baseline of DCASE 2020 Task 2 (y-kawagu/dcase2020_task2_baseline), on features of the preset ``dcase2020_baseline``,
and its selective Mahalanobis mode from 2023 on (Harada et al., "First-shot anomaly sound detection for
machine condition monitoring: a domain generalization baseline", arXiv 2303.00455; the code of
nttcslab/dcase2023_task2_baseline_ae).

Differences to the baseline: here all machine types are trained at once. A step takes whole clips of any machine types,
and each autoencoder learns from all vectors of its own clips among them; the baseline takes 512 random vectors of one
machine type. As in the baseline, an epoch has every vector once. In a step without clips of a machine type, Adam moves
its autoencoder by momentum alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from asd_ray.config.autoencoder import AutoencoderConfig, AutoencoderTrainConfig
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.features.batches import Batches
from asd_ray.methods.autoencoder.network import CONTEXT, Autoencoder, context_vectors
from asd_ray.methods.base import DataInfo, Inputs, Method, Stage, resolve_precision
from asd_ray.methods.workers import world_size
from asd_ray.registry import register_method

BATCH = 64  # clips of one pass, where errors of the training clips are summed
RIDGE = 1e-6  # of the mean variance; keeps the covariance invertible if an error is constant


class AutoencoderStage(Stage):
    """Training of all machine types' autoencoders, each by the mean squared error of its own clips.

    Args:
        config: settings of the stage.
        networks: of the M machine types.
        machine: (C,) machine type of every class.
        precision: ``auto``, ``fp32`` or ``bf16`` (:func:`asd_ray.methods.base.resolve_precision`).
    """

    name = "train"
    settings = ("method.train", "method.precision")
    machine: Tensor

    def __init__(
        self, config: AutoencoderTrainConfig, networks: nn.ModuleList, machine: Tensor, precision: str
    ) -> None:
        super().__init__()
        self.optimiser, self.precision = config, precision
        self.validation, self.patience, self.keep = config.validation, config.patience, config.keep
        self.networks = networks
        self.register_buffer("machine", machine, persistent=False)

    def forward(self, inputs: Inputs, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over machine types of their mean squared errors, which are 0 for one without clips in the batch.

        The metric ``reconstruction`` is the mean squared error of all clips of the batch.
        """
        x, machines = inputs["log_mel"].float(), self.machine[labels]
        losses, total = [], x.new_zeros(())
        for number, network in enumerate(self.networks):
            own = machines == number
            if own.any():
                losses.append(_errors(network, x[own], self.precision).square().mean())
                total += losses[-1].detach() * own.sum()
            else:  # each worker must have a gradient of each parameter
                losses.append(0 * torch.stack([parameter.sum() for parameter in network.parameters()]).sum())
        return torch.stack(losses).mean(), {"reconstruction": total / len(x)}

    @property
    def trained(self) -> nn.Module:
        return self.networks

    def validation_loss(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """The sum over clips of the mean squared error by the clip's own autoencoder."""
        x, machines = inputs["log_mel"].float(), self.machine[labels]
        total = x.new_zeros(())
        for number in machines.unique().tolist():
            errors = _errors(self.networks[number], x[machines == number], self.precision)
            total += errors.square().mean(dim=(1, 2)).sum()
        return total


@register_method("autoencoder", config=AutoencoderConfig)
class AutoencoderMethod(Method):
    """One autoencoder for each machine type.

    The embedding of a clip has its anomaly scores by all M autoencoders, because :meth:`embed` does not know the
    machine type. A logit is the negative score by the machine type of the class. Only :meth:`own_score` uses them:
    distances between embeddings have no meaning, and neither have probabilities of IDs that share an autoencoder.

    Args:
        config: settings of the method.
        info: of the data.

    Attributes:
        machines: M names, in the order of embeddings.
        inverse_covariance: Σ⁻¹, (M, 2, F, F), of the errors' F bands in the source and the target domain; None if the
            score needs none, zeros before :meth:`finish`.

    Raises:
        ConfigError: clips are shorter than P frames.
    """

    has_own_score = True
    inverse_covariance: Tensor | None
    machine: Tensor

    def __init__(self, config: AutoencoderConfig, info: DataInfo) -> None:
        super().__init__()
        if info.frames < CONTEXT:
            raise ConfigError(
                f"features.seconds: the autoencoder takes {CONTEXT} frames at a time, but clips have {info.frames}; "
                "make them longer."
            )
        self.config = config
        of_class = [name.partition("/")[0] for name in info.classes]
        self.machines = sorted(set(of_class))
        self.register_buffer("machine", torch.tensor([self.machines.index(m) for m in of_class]), persistent=False)
        self.networks = nn.ModuleList(Autoencoder(CONTEXT * info.n_mels) for _ in self.machines)
        shape = (len(self.machines), 2, info.n_mels, info.n_mels)
        self.register_buffer("inverse_covariance", None if config.score == "mse" else torch.zeros(shape))

    def stages(self) -> Sequence[Stage]:
        """Build the stage; none with 0 epochs."""
        train, precision = self.config.train, self.config.precision
        return [AutoencoderStage(train, self.networks, self.machine, precision)] if train.epochs else []

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Scores (B, M) by all autoencoders, and the negative scores (B, C) by the one of each class."""
        x = inputs["log_mel"].float()
        errors = (_errors(network, x, self.config.precision) for network in self.networks)
        scores = torch.stack([self._score(number, e) for number, e in enumerate(errors)], dim=1)
        return scores, -scores[:, self.machine]

    def own_score(self, embedding: Tensor, groups: Sequence[str]) -> Tensor:
        """Scores (B,) by the clips' own machine types, also of untrained IDs."""
        numbers = []
        for name in groups:
            machine = name.partition("/")[0]
            if machine not in self.machines:
                raise AsdRayError(
                    f"{name}: no autoencoder was trained for the machine type {machine}, only for "
                    f"{', '.join(self.machines)}; train on clips of it, or leave its clips out."
                )
            numbers.append(self.machines.index(machine))
        chosen = torch.tensor(numbers, dtype=torch.long, device=embedding.device)
        return embedding.gather(1, chosen[:, None])[:, 0]

    @torch.no_grad()
    def finish(self, clips: Batches) -> None:
        """Compute Σ⁻¹ of the training clips' errors for each machine type and domain.

        Clips without a domain count as source clips. A domain without clips gets the other's covariance.
        """
        if self.inverse_covariance is None:
            return
        bands, shape = self.inverse_covariance.shape[-1], self.inverse_covariance.shape[:2]
        target = torch.tensor([clip.domain == "target" for clip in clips.clips], dtype=torch.long)
        # fp64 sums over frames of 1, the error, and its products, in one tensor for one reduction.
        sums = self.inverse_covariance.new_zeros(*shape, bands + 1, bands + 1, dtype=torch.float64)
        start = 0
        for batch in clips.in_order(BATCH):
            batch = batch.to(sums.device)
            group = 2 * self.machine[batch.labels] + target[start : start + len(batch.labels)].to(sums.device)
            start += len(batch.labels)
            for chosen in group.unique().tolist():
                number, domain = divmod(chosen, 2)
                own_clips = batch.inputs["log_mel"][group == chosen].float()
                errors = _errors(self.networks[number], own_clips, self.config.precision)
                blocks = errors.reshape(-1, bands).double()
                blocks = torch.cat([blocks.new_ones(len(blocks), 1), blocks], dim=1)
                sums[number, domain] += blocks.T @ blocks
        if world_size() > 1:
            dist.all_reduce(sums)
        for of_machine, inverse in zip(sums, self.inverse_covariance, strict=True):
            for domain in range(2):
                own = of_machine[domain] if of_machine[domain, 0, 0] > 1 else of_machine[1 - domain]
                inverse[domain] = _inverse_covariance(own)

    def _score(self, number: int, errors: Tensor) -> Tensor:
        """Scores (B,) of errors (B, V, P F) by machine type ``number``."""
        if self.inverse_covariance is None:
            return errors.square().mean(dim=(1, 2))
        frames = errors.unflatten(2, (CONTEXT, -1)).flatten(1, 2)  # (B, P V, F)
        if self.config.score == "mahalanobis_of_mean":
            frames = frames.mean(dim=1, keepdim=True)
        source, target = (((frames @ inverse) * frames).sum(dim=2) for inverse in self.inverse_covariance[number])
        return torch.minimum(source.mean(dim=1), target.mean(dim=1))


def _errors(network: nn.Module, log_mel: Tensor, precision: str) -> Tensor:
    """x − r(x) (B, V, P F) of clips (B, F, T), fp32 whatever the precision of r."""
    vectors = context_vectors(log_mel)
    dtype = resolve_precision(precision, log_mel.device)
    with torch.autocast(log_mel.device.type, dtype=dtype, enabled=dtype is not None):
        reconstructed = network(vectors.flatten(0, 1))
    return vectors - reconstructed.float().view_as(vectors)


def _inverse_covariance(sums: Tensor) -> Tensor:
    """(F, F) from Σ [1, e]ᵀ[1, e], (1 + F, 1 + F) over at least two errors e."""
    count, mean = sums[0, 0], sums[0, 1:] / sums[0, 0]
    covariance = (sums[1:, 1:] - count * torch.outer(mean, mean)) / (count - 1)
    least = (RIDGE * covariance.diagonal().mean()).clamp(min=torch.finfo(torch.float32).tiny)
    covariance = covariance + least * torch.eye(len(mean), dtype=sums.dtype, device=sums.device)
    return torch.cholesky_inverse(torch.linalg.cholesky(covariance))
