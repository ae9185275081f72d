from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf

from asd_ray.config import FeatureConfig, PretrainConfig
from asd_ray.data.clips import Clip
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.explore.views import View, background_from_store, two_views
from asd_ray.features import store

F, T = 16, 40
FEATURES = FeatureConfig(n_mels=F)
MEAN, STD = -5.0, 2.0


def clips(count: int = 3) -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [(f"clip {n}", (MEAN + STD * rng.standard_normal((F, T))).astype(np.float32)) for n in range(count)]


def draw(config: PretrainConfig, seed: int = 0, features: FeatureConfig = FEATURES, count: int = 3) -> list[View]:
    return two_views(clips(count), clips(count), MEAN, STD, config, features, seed)


@pytest.mark.parametrize("canvas", [(1.0, 1.5), (1.3, 1.0), (0.8, 0.7)])
def test_what_is_drawn_is_what_was_cut_out_of_the_canvas(canvas: tuple[float, float]) -> None:
    for seed in range(8):
        for view in draw(PretrainConfig(canvas=canvas), seed):
            low, left, height, width = view.canvas
            assert (height, width) == (int(canvas[0] * F), int(canvas[1] * T))
            whole = torch.zeros(3 * F, 3 * T)  # the clip in the middle, zeros around it, more than any canvas
            whole[F : 2 * F, T : 2 * T] = torch.from_numpy(view.mixed)
            first, start, bands, frames = view.crop
            assert low <= first <= first + bands <= low + height
            assert left <= start <= start + frames <= left + width
            cut = whole[F + first : F + first + bands, T + start : T + start + frames]
            expected = nnf.interpolate(cut[None, None], size=(F, T), mode="bicubic", align_corners=True)[0, 0]
            np.testing.assert_allclose(view.cropped, expected.numpy(), atol=1e-4)


def test_the_mixture_is_equation_1_with_the_ratio_in_the_title() -> None:
    ratios = []
    for seed in range(12):
        for view in draw(PretrainConfig(alpha=0.3), seed):
            expected = np.log((1 - view.ratio) * np.exp(view.original) + view.ratio * np.exp(view.other))
            np.testing.assert_allclose(view.mixed, expected, atol=1e-5)
            assert view.other_title != view.title
            np.testing.assert_allclose(view.other, (dict(clips())[view.other_title] - MEAN) / STD, atol=1e-6)
            ratios.append(view.ratio)
    assert 0 < min(ratios) < 0.03
    assert 0.27 < max(ratios) < 0.3


@pytest.mark.parametrize("log", ["natural", "db"])
def test_the_mixing_domain_and_the_band_are_the_studys(log: str) -> None:
    features = FeatureConfig(n_mels=F, log=log)
    unit = 1.0 if log == "natural" else np.log(10) / 10
    for view in draw(PretrainConfig(mix_domain="power", band="high", band_from_hz=2000), features=features):
        changed = np.abs(view.mixed - view.original).max(axis=1) > 1e-6
        assert changed.any()
        assert not changed[: changed.argmax()].any()
        assert changed[changed.argmax() :].all()
        assert 0 < changed.argmax() < F
        energy, other = (
            np.exp(STD * unit * image[changed].astype(np.float64)) for image in (view.original, view.other)
        )
        mixed = np.log((1 - view.ratio) * energy + view.ratio * other) / (STD * unit)
        np.testing.assert_allclose(view.mixed[changed], mixed, atol=1e-4)


def test_two_views_each_drawn_by_the_seed_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = draw(PretrainConfig(), 1), draw(PretrainConfig(), 1), draw(PretrainConfig(), 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert [(view.title, view.number) for view in first] == [(f"clip {n}", v) for n in range(3) for v in (1, 2)]
    for one, two in zip(first, again, strict=True):
        assert (one.ratio, one.crop) == (two.ratio, two.crop)
        np.testing.assert_array_equal(one.cropped, two.cropped)
    assert [view.ratio for view in first] != [view.ratio for view in other]
    assert first[0].ratio != first[1].ratio


def test_a_clip_alone_has_nothing_to_be_mixed_with() -> None:
    with pytest.raises(ConfigError, match="clip 0: there is no other clip"):
        draw(PretrainConfig(), count=1)


def test_the_background_of_a_store_are_its_training_clips(tmp_path: Path) -> None:
    members = [Clip(f"fan/train/normal_id_00_{n}.wav", "fan", "00", "train", "normal") for n in range(3)]
    images = np.stack([image for _, image in clips()]).astype(np.float16)
    columns = {"log_mel": images, "level_db": np.zeros(3, np.float32)}
    name = store.write_shard(tmp_path, f"log_mel-train-00000-{0:016x}", members, columns, {"clips": 3})
    shards = {"train": [store.Shard(3, {"log_mel": name})]}
    manifest = store.Manifest({"n_mels": F, "frames": T}, shards, {"train": 3}, MEAN, STD, {}, [])
    background = background_from_store(tmp_path, manifest)
    assert background[1][0] == "fan 00, normal\nnormal_id_00_1.wav"
    np.testing.assert_array_equal(background[1][1], images[1].astype(np.float32))
    # The same clip in the store's fp16 is no partner for itself.
    views = two_views(clips(1), background, MEAN, STD, PretrainConfig(), FEATURES, 0)
    assert all("normal_id_00_0" not in view.other_title for view in views)
    with pytest.raises(AsdRayError, match="no training clips"):
        background_from_store(tmp_path, store.Manifest({}, {}, {}, 0, 1, {}, []))
