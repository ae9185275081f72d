"""Settings of a training stage that methods share: epochs, batches, learning rate, held-out clips."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from asd_ray.config.section import Section


class OptimiserConfig(Section):
    """A training stage: AdamW over a number of epochs."""

    epochs: int = Field(150, ge=0)
    """Epochs of the stage; 0 leaves it out. [A]: 150, without naming the stage."""
    batch_size: int = Field(64, ge=2)
    """Clips in one optimiser step, over all workers together. Not recovered from [A]."""
    accumulate: int = Field(1, ge=1)
    """Parts that a step's batch is split into, where the whole batch does not fit into memory. The optimiser makes one
    step with the gradients of all parts. Whatever looks at a whole batch sees one part: batch norm, post-norm, in-batch
    negatives."""
    lr: float = Field(9e-4, gt=0)
    """Learning rate. [A]: 0.0009."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay (AdamW); 0 is plain Adam. Not recovered from [A]."""
    lr_min: float = Field(0.0, ge=0)
    """Learning rate at the end of the cosine."""
    schedule: Literal["constant", "cosine", "cosine_epochs"] = "cosine"
    """Learning rate over the stage's epochs: ``constant``; ``cosine``, half a cosine that falls with every step; or
    ``cosine_epochs``, the same cosine, which falls after every epoch. Not recovered from [A]."""
    warmup_epochs: float = Field(0.0, ge=0)
    """Epochs of linear warm-up from learning rate 0."""
    probe_every: int = Field(10, ge=0)
    """Epochs between two measurements of the k-NN AUC on the select split; the last epoch is always measured. 0 never
    measures."""

    @model_validator(mode="after")
    def _cosine_falls(self) -> OptimiserConfig:
        if self.lr_min > self.lr:
            raise ValueError(f"lr_min <= lr must hold, but got {self.lr_min:g} and {self.lr:g}")
        return self


class ValidatedConfig(OptimiserConfig):
    """A training stage that can hold out training clips and measure their loss."""

    validation: float = Field(0.0, ge=0, lt=1)
    """Share of the training clips that is held out, chosen by a hash of their paths. All of them are normal."""
    patience: int = Field(0, ge=0)
    """Epochs without a lower validation loss after which the stage ends; 0 trains all epochs."""

    @model_validator(mode="after")
    def _patience_needs_validation(self) -> ValidatedConfig:
        if self.patience and not self.validation:
            raise ValueError("patience needs clips that are held out: set validation above 0, or patience to 0")
        return self
