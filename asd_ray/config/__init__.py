"""The study file: every field with its meaning, unit, default and source.

A study is YAML, validated here; an unknown key is an error. ``asd-ray study validate FILE`` prints the resolved study.
Sources: [A] arXiv 2509.15570 (sia_moco), [B] arXiv 2509.13853 (os_scl), [BYOL-A] the code whose augmentations A uses,
[MoCo] the code whose contrast A uses. Where a paper leaves a value open, the default is ours and says so.
"""

from asd_ray.config.autoencoder import AutoencoderConfig, AutoencoderTrainConfig
from asd_ray.config.data import Channel, DataConfig, SyntheticConfig
from asd_ray.config.evaluation import EvaluationConfig
from asd_ray.config.features import FeatureConfig
from asd_ray.config.method import MethodConfig
from asd_ray.config.optimiser import OptimiserConfig, ValidatedConfig
from asd_ray.config.os_scl import OsSclConfig, OsSclTrainConfig
from asd_ray.config.search import Distribution, Scalar, SearchConfig
from asd_ray.config.section import Section
from asd_ray.config.sia_moco import FinetuneConfig, PretrainConfig, SiaMocoConfig
from asd_ray.config.study import ResourceConfig, StudyConfig

__all__ = [
    "AutoencoderConfig",
    "AutoencoderTrainConfig",
    "Channel",
    "DataConfig",
    "Distribution",
    "EvaluationConfig",
    "FeatureConfig",
    "FinetuneConfig",
    "MethodConfig",
    "OptimiserConfig",
    "OsSclConfig",
    "OsSclTrainConfig",
    "PretrainConfig",
    "ResourceConfig",
    "Scalar",
    "SearchConfig",
    "Section",
    "SiaMocoConfig",
    "StudyConfig",
    "SyntheticConfig",
    "ValidatedConfig",
]
