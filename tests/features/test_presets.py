from __future__ import annotations

import pytest

from asd_ray.config import FeatureConfig
from asd_ray.config.study_file import parse_study, to_yaml, with_values
from asd_ray.errors import ConfigError
from asd_ray.features.store import settings_of

BASELINE = {"preset": "dcase2020_baseline"}


def test_a_preset_sets_defaults_and_explicit_keys_win() -> None:
    assert FeatureConfig() == FeatureConfig.model_validate({"preset": "sia_moco"})
    config = FeatureConfig.model_validate({"preset": "stgram", "n_fft": 2048, "norm": "slaney"})
    assert (config.n_fft, config.norm, config.mel_scale, config.pad_mode) == (2048, "slaney", "htk", "reflect")
    assert FeatureConfig.model_validate({"preset": "stgram", "floor": 1e-5}).floor == 1e-5
    assert FeatureConfig.model_validate({"preset": "stgram"}).norm is None


def test_what_is_resolved_stays_when_a_trial_sets_values() -> None:
    study = parse_study({"name": "s", "features": {**BASELINE, "n_mels": 64}}, "f")
    trial = with_values(study, {"features.hop_length": 256, "seed": 5})
    assert trial.features == study.features.model_copy(update={"hop_length": 256})
    assert trial.features.floor_rule == "add"
    document = study.model_dump(mode="json")
    assert parse_study(document, "f") == study
    assert "floor_rule: add" in to_yaml(study)


def test_an_explicit_default_of_another_preset_wins_too() -> None:
    study = parse_study({"name": "s", "features": {**BASELINE, "pad_mode": "constant"}}, "f")
    assert with_values(study, {"seed": 1}).features.pad_mode == "constant"


@pytest.mark.parametrize("preset", ["nix", None, 3, ["stgram"]])
def test_an_unknown_preset_is_named(preset: object) -> None:
    with pytest.raises(ConfigError, match=r"features\.preset.*sia_moco"):
        parse_study({"name": "s", "features": {"preset": preset}}, "f")


def test_mirrored_ends_need_clips_longer_than_half_a_window() -> None:
    with pytest.raises(ConfigError, match="more than n_fft / 2 samples"):
        parse_study({"name": "s", "features": {"preset": "stgram", "seconds": 0.03}}, "f")


def test_only_what_changes_the_numbers_is_a_setting_of_the_store() -> None:
    named = FeatureConfig.model_validate({"preset": "os_scl", "store": "/x", "gpus_per_task": 0.5})
    spelled_out = FeatureConfig(n_fft=2048, win_length=2048, log="db")
    assert settings_of(named, 0) == settings_of(spelled_out, 0)
    others = set(FeatureConfig.model_fields) - {"preset", "store", "gpus_per_task"}
    assert set(settings_of(named, 0)) == others | {"frames", "channel"}
