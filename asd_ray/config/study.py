"""A whole study file, and ``resources``: what its trials may use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from asd_ray.config.data import DataConfig
from asd_ray.config.evaluation import EvaluationConfig
from asd_ray.config.features import FeatureConfig
from asd_ray.config.method import MethodConfig, parse_method
from asd_ray.config.search import SearchConfig
from asd_ray.config.section import Section


class ResourceConfig(Section):
    workers: int = Field(1, ge=1)
    """Training workers of one trial. With one, the trial trains in its own process; with more, through Ray Train."""
    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_worker: float = Field(0, ge=0)
    max_concurrent_trials: int | None = Field(None, ge=1)
    """By default as many as there is room for at the start. On a Ray at an address the number counts as it is, so that
    a cluster with an autoscaler grows for them."""
    max_failures: int = Field(1, ge=0)
    """Times that a trial is started again after it lost a worker."""
    reuse_processes: bool = True
    """Run the next trial in the process of the trial before. A new process needs three seconds to start. ``false``
    starts one for every trial: for a method that leaves something behind in its process, and to see each trial under
    its own name among the dashboard's actors. The workers of a trial with several are always new."""
    reading: Literal["auto", "cached", "streamed"] = "auto"
    """Where training takes the features from: Ray's object store, read once (``cached``), or the shards, again every
    epoch (``streamed``). ``auto`` caches what fits."""
    stage_cache: str | None = None
    """Folder for trained stages that studies share, under the hash of all that decides them; all nodes must see it. By
    default a study shares them between its own trials, where its search lets several want the same, in ``stages/``."""
    keep_detectors: Literal["best", "all"] = "best"
    """Which trials' detectors and encoders stay in their folders. One has the embeddings of all training clips: half a
    gigabyte with a ResNet-50 on DCASE 2020."""
    storage: str | None = None
    """Folder for checkpoints of trials with several workers; the study folder by default. On several nodes it must be
    shared."""

    def room(self, total: Mapping[str, float]) -> int:
        """How many trials fit at the same time on a Ray with these resources (``CPU``, ``GPU``), one at least."""
        room = total.get("CPU", 0) / (self.workers * self.cpus_per_worker)
        if self.gpus_per_worker:
            room = min(room, total.get("GPU", 0) / (self.workers * self.gpus_per_worker))
        return max(int(room), 1)


class StudyConfig(Section):
    """A whole study file."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the study in folders, logs and the Ray dashboard."""
    seed: int = Field(0, ge=0)
    """Every random number of the study is derived from it (and from trial, epoch and worker)."""
    data: DataConfig = DataConfig()
    features: FeatureConfig = FeatureConfig()
    method: Annotated[SerializeAsAny[MethodConfig], BeforeValidator(parse_method)] = Field(
        default_factory=lambda: parse_method({})
    )
    """What is trained: ``name`` chooses the method and with it the other keys."""
    evaluation: EvaluationConfig = EvaluationConfig()
    search: SearchConfig = SearchConfig()
    resources: ResourceConfig = ResourceConfig()

    @model_validator(mode="after")
    def _data_has_a_root(self) -> StudyConfig:
        if self.data.layout != "synthetic" and self.data.root is None:
            raise ValueError(f"data.root must name the data set's folder for data.layout {self.data.layout}")
        return self

    @model_validator(mode="after")
    def _method_has_its_data(self) -> StudyConfig:
        self.method.check_data(self.data)
        return self
