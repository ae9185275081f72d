from __future__ import annotations

import math

import pytest
import torch

from asd_ray.methods.autoencoder.network import Autoencoder, anomaly_score, context_vectors, fit


def test_the_architecture_is_the_baselines() -> None:
    network = Autoencoder(640)
    linear = [(layer.in_features, layer.out_features) for layer in network if isinstance(layer, torch.nn.Linear)]
    hidden = [(128, 128)] * 3
    assert linear == [(640, 128), *hidden, (128, 8), (8, 128), *hidden, (128, 640)]
    norms = [layer for layer in network if isinstance(layer, torch.nn.BatchNorm1d)]
    assert [norm.num_features for norm in norms] == [128, 128, 128, 128, 8, 128, 128, 128, 128]
    assert {norm.eps for norm in norms} == {1e-3}
    assert sum(isinstance(layer, torch.nn.ReLU) for layer in network) == 9
    assert isinstance(network[-1], torch.nn.Linear)


def test_running_statistics_move_fast_at_first_and_then_as_keras() -> None:
    network, x = Autoencoder(4), torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    norm = network[1]
    assert isinstance(norm, torch.nn.BatchNorm1d)
    assert norm.running_mean is not None
    expected = torch.full((128,), 9.0)  # what it starts from does not matter
    with torch.no_grad():
        norm.running_mean.fill_(5.0)
        for number in range(1100):
            batch = (1 + number % 7) * x
            momentum = max(0.01, 10 / (10 + number))
            expected = (1 - momentum) * expected + momentum * network[0](batch).mean(0)
            network(batch)
    assert momentum == 0.01
    torch.testing.assert_close(norm.running_mean, expected, rtol=1e-3, atol=1e-4)
    before = norm.running_mean.clone()
    network.eval()(x)
    assert torch.equal(norm.running_mean, before)


def test_initial_weights_are_keras() -> None:
    torch.manual_seed(0)
    for layer in Autoencoder(640):
        if isinstance(layer, torch.nn.Linear):
            bound = math.sqrt(6 / (layer.in_features + layer.out_features))
            assert 0.9 * bound < layer.weight.abs().max().item() <= bound
            assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
            assert not layer.bias.any()


def test_ten_seconds_are_309_vectors_frame_after_frame() -> None:
    log_mel = torch.arange(128 * 313).reshape(128, 313)
    vectors = context_vectors(log_mel)
    assert vectors.shape == (309, 640)
    assert torch.equal(vectors[7], torch.cat([log_mel[:, frame] for frame in range(7, 12)]))


def test_vectors_of_many_clips_are_those_of_each() -> None:
    clips = torch.randn(2, 3, 6, 9)
    vectors = context_vectors(clips)
    assert vectors.shape == (2, 3, 5, 30)
    assert all(torch.equal(vectors[i, j], context_vectors(clips[i, j])) for i in range(2) for j in range(3))


def test_what_it_was_trained_on_is_reconstructed_better_than_what_it_was_not() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(2, 20, generator=generator)
    normal = torch.randn(600, 2, generator=generator) @ basis
    network = fit(normal[:500], epochs=30, batch_size=50)
    assert not network.training
    other = torch.randn(100, 2, generator=generator) @ torch.randn(2, 20, generator=generator)
    assert anomaly_score(network, normal[500:]) < 0.5 * anomaly_score(network, other)


def test_the_seed_decides_everything() -> None:
    vectors = torch.randn(65, 20, generator=torch.Generator().manual_seed(1))  # a last batch of one is left out
    first, again = (fit(vectors, epochs=2, batch_size=32, seed=3) for _ in range(2))
    assert anomaly_score(first, vectors) == anomaly_score(again, vectors)
