"""A whole study file, and ``resources``: processes, cores and storage of its trials."""

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
    """Training workers of one trial. A single worker trains in the trial's own process; several through Ray Train."""
    cpus_per_worker: float = Field(1, gt=0)
    """CPU cores that Ray reserves for each worker."""
    gpus_per_worker: float = Field(0, ge=0)
    """GPUs that Ray reserves for each worker; 0.5 lets two workers share one."""
    max_concurrent_trials: int | None = Field(None, ge=1)
    """Maximum number of trials at the same time. Default: as many as there is room for at the start. On a Ray at an
    address the number is taken as it is, so that a cluster with an autoscaler grows to hold them."""
    max_failures: int = Field(1, ge=0)
    """How often a trial is restarted after it lost a worker."""
    reuse_processes: bool = True
    """Run the next trial in the process of the trial before. A new process needs three seconds to start. ``false``
    starts one for every trial: for a method that leaves something behind in its process, and to see each trial under
    its own name among the dashboard's actors. The workers of a trial with several are always new."""
    reading: Literal["auto", "cached", "streamed"] = "auto"
    """Source of the features in training. ``cached``: Ray's object store, filled once. ``streamed``: the shards, read
    anew in every epoch. ``auto``: cached if they fit."""
    stage_cache: str | None = None
    """Folder of trained stages that studies share, visible to all nodes. A hash of all that decides a stage names it.
    Default: a study shares stages between its own trials only, in ``stages/``, where its search lets several want the
    same."""
    keep_detectors: Literal["best", "all"] = "best"
    """Trials whose detectors and encoders are kept. A detector holds the embeddings of all training clips: half a
    gigabyte with a ResNet-50 on DCASE 2020."""
    storage: str | None = None
    """Folder for checkpoints of trials with several workers, shared by all nodes. Default: the study folder."""

    def room(self, total: Mapping[str, float]) -> int:
        """Number of trials that fit at the same time on a Ray with these resources (``CPU``, ``GPU``), at least 1."""
        room = total.get("CPU", 0) / (self.workers * self.cpus_per_worker)
        if self.gpus_per_worker:
            room = min(room, total.get("GPU", 0) / (self.workers * self.gpus_per_worker))
        return max(int(room), 1)


class StudyConfig(Section):
    """A whole study file."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the study in folders, logs and the Ray dashboard."""
    seed: int = Field(0, ge=0)
    """Seed from which every random number of the study is derived, together with trial, epoch and worker."""
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
