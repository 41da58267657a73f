"""Geom's own mathematics: the transforms against slicing, the Dirichlet fit against known optima, the score by hand."""

from __future__ import annotations

import numpy as np
import pytest
from builders import normal_pictures, rng_of

from spadework.detectors.geom import TRANSFORMS, Geom, transform
from spadework.errors import InputError

torch = pytest.importorskip("torch", reason="training needs the extra torch: torch is not installed")

from spadework.detectors.dirichlet import fit_dirichlet  # noqa: E402

TINY = {"image_size": 8, "widen": 1, "epochs": 1, "batch_size": 32, "held_out": 0, "threads": 1}


def kind_of(mirror=False, down=0, along=0, turns=0):
    return TRANSFORMS.index((mirror, down, along, turns))


def test_there_are_72_transforms_all_different():
    view = rng_of("view").integers(0, 255, (8, 8, 3)).astype(np.uint8)
    assert len({transform(view, kind).tobytes() for kind in range(len(TRANSFORMS))}) == 72
    np.testing.assert_array_equal(transform(view, 0), view)


def test_transforms_are_slices():
    view = rng_of("view").integers(0, 255, (8, 8, 3)).astype(np.uint8)
    np.testing.assert_array_equal(transform(view, kind_of(mirror=True)), view[:, ::-1])
    np.testing.assert_array_equal(transform(view, kind_of(turns=1)), view.transpose(1, 0, 2)[::-1])
    np.testing.assert_array_equal(transform(view, kind_of(turns=2)), view[::-1, ::-1])
    down = transform(view, kind_of(down=1))
    np.testing.assert_array_equal(down[2:], view[:-2])
    np.testing.assert_array_equal(down[:2], view[1::-1])  # reflected, the border row twice
    left = transform(view, kind_of(along=-1))
    np.testing.assert_array_equal(left[:, :-2], view[:, 2:])
    np.testing.assert_array_equal(left[:, -2:], view[:, :-3:-1])
    both = transform(view, kind_of(mirror=True, down=1, turns=2))
    np.testing.assert_array_equal(both, down[:, ::-1][::-1, ::-1])


@pytest.mark.parametrize("alpha", [[1.0, 1.0, 1.0], [0.02, 3.0, 40.0], [900.0, 0.5, 0.5, 2.0], [1e-3, 1e-3]])
def test_the_fit_finds_a_known_optimum(alpha):
    """The mean logarithms of the distribution itself: its own parameters are the most likely ones."""
    alpha = torch.tensor(alpha, dtype=torch.float64)
    means = (torch.digamma(alpha) - torch.digamma(alpha.sum())).numpy()
    np.testing.assert_allclose(fit_dirichlet(means), alpha.numpy(), rtol=1e-4)
    np.testing.assert_allclose(fit_dirichlet(np.stack([means, means])), [alpha.numpy()] * 2, rtol=1e-4)


def test_the_fit_of_drawn_vectors_is_the_most_likely():
    drawn = np.random.default_rng(0).dirichlet([2.0, 5.0, 0.7], 4000)
    found = fit_dirichlet(np.log(drawn).mean(axis=0))
    np.testing.assert_allclose(found, [2.0, 5.0, 0.7], rtol=0.06)

    def likelihood(alpha):
        return torch.distributions.Dirichlet(torch.tensor(alpha)).log_prob(torch.from_numpy(drawn)).mean().item()

    for step in np.eye(3) * 0.05:
        assert likelihood(found) > max(likelihood(found + step), likelihood(found - step))


def test_the_score_is_the_sum_of_the_paper():
    model = Geom(**TINY).fit(normal_pictures(2))
    network = model.networks_.ready["classifier"]
    picture = normal_pictures(1, start=9)[0]
    view = model._view().see(picture)
    expected = 0.0
    for kind in range(72):
        changed = torch.from_numpy(transform(view, kind).astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        p = torch.softmax(network(changed).double(), dim=1)[0].numpy()
        expected += ((model.dirichlet_[kind] - 1) * np.log(p)).sum()
    assert model.predict(picture).score == pytest.approx(-expected / 72, rel=1e-5)


def test_training_tells_transforms_apart():
    """After four epochs the loss is below that of guessing, log 72 = 4.28; an untrained network stays there."""
    normal = normal_pictures(2)

    def last_loss(**changes):
        model = Geom(**{**TINY, "image_size": 16, "epochs": 6, **changes}).fit(normal)
        return model.folder_.header["training"]["losses"][-1]["loss"]

    assert last_loss(learning_rate=0.01) < 2.5 < 4.2 < last_loss(learning_rate=1e-12)


def test_networks_are_those_published():
    from spadework.detectors.wide_resnet import WideResNet

    small = WideResNet(depth=10, widen=4, classes=72)
    assert [block.conv_2.out_channels for block in small.blocks] == [64, 128, 256]
    assert [block.conv_1.stride[0] for block in small.blocks] == [1, 2, 2]
    large = WideResNet(depth=16, widen=8, classes=72)
    assert [block.conv_2.out_channels for block in large.blocks] == [128, 128, 256, 256, 512, 512]
    assert small(torch.zeros(1, 3, 8, 8)).shape == (1, 72)


@pytest.mark.parametrize(
    ("setting", "value", "told"), [("depth", 11, "depth must be 10, 16, 22"), ("image_size", 10, "multiple of 4"), ("widen", 0, "widen")]
)  # fmt: skip
def test_bad_settings_are_refused_by_name(setting, value, told):
    with pytest.raises(InputError, match=told):
        Geom(**{**TINY, setting: value}).fit(normal_pictures(2))
