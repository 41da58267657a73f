"""Geom's own mathematics: the transforms against slicing, the Dirichlet fit against known optima, the score by hand."""

from __future__ import annotations

import numpy as np
import pytest
from builders import normal_pictures, rng_of

from spadework.detectors.geom import TRANSFORMS, Geom, transform
from spadework.errors import InputError

torch = pytest.importorskip("torch", reason="training needs the extra torch: torch is not installed")

from spadework.detectors.dirichlet import fit_dirichlet  # noqa: E402

pytestmark = pytest.mark.slow  # training and exporting: its packages alone take seconds to import

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


@pytest.mark.parametrize("spread", [0.0, 1e-6])
@pytest.mark.parametrize("size", [3, 72])
def test_vectors_all_alike_have_a_distribution_that_is_nothing_but_them(size, spread):
    """No parameters are the most likely, larger ones always more: they stop growing together, and their shares are the vector."""
    rng = rng_of("alike", size)
    logits = torch.from_numpy(2 * rng.normal(size=size) + spread * rng.normal(size=(3, size)))
    means = logits.log_softmax(dim=1).mean(dim=0).numpy()
    found = fit_dirichlet(np.stack([means, np.log([1 / size] * size)]))
    np.testing.assert_allclose(found.sum(axis=1), 1e8, rtol=1e-6)
    np.testing.assert_allclose(found[0] / found[0].sum(), np.exp(means), rtol=1e-3)
    np.testing.assert_allclose(found[1] / found[1].sum(), 1 / size, rtol=1e-3)


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

    def trained(**changes):
        return Geom(**{**TINY, "image_size": 16, "epochs": 6, **changes}).fit(normal)

    def last_loss(model):
        return model.folder_.header["training"]["losses"][-1]["loss"]

    model = trained(learning_rate=0.01)
    assert last_loss(model) < 2.5 < 4.2 < last_loss(trained(learning_rate=1e-12))
    with torch.no_grad():  # and so does what is kept, in judging
        logs = model._log_probabilities(model.networks_.ready, model._view().see(normal[0]))
    assert np.diag(logs).mean() > -3


def test_networks_are_those_published():
    from spadework.detectors.wide_resnet import WideResNet

    small = WideResNet(depth=10, widen=4, classes=72)
    assert [block.conv_2.out_channels for block in small.blocks] == [64, 128, 256]
    assert [block.conv_1.stride[0] for block in small.blocks] == [1, 2, 2]
    large = WideResNet(depth=16, widen=8, classes=72, side=64)
    assert [block.conv_2.out_channels for block in large.blocks] == [128, 128, 256, 256, 512, 512]
    assert small(torch.zeros(1, 3, 8, 8)).shape == (1, 72)
    assert (small.last.in_features, large.last.in_features) == (
        256,
        4 * 512,
    )  # means over 8 x 8 places: four of them at 64 x 64


def test_places_are_averaged_in_blocks_of_8():
    from spadework.detectors.wide_resnet import WideResNet

    network = WideResNet(depth=10, widen=1, classes=3, side=64).eval()
    with torch.no_grad():
        network.last.weight.zero_()
        network.last.weight[0, :4] = torch.tensor([1.0, 10.0, 100.0, 1000.0])  # of the first filter, in reading order
        network.last.bias.zero_()
        maps = torch.zeros(1, 64, 16, 16)
        maps[0, 0, :8, 8:] = 2.0
        maps[0, 0, 8:, :8] = 3.0
        network.stem = network.blocks = network.norm = torch.nn.Identity()
        assert network(maps)[0].tolist() == [320.0, 0.0, 0.0]


def test_first_weights_are_drawn_as_published():
    """Convolutions from normal distributions of the variance 2 / inputs, the last layer evenly within 1 / sqrt(inputs), without a shift."""
    from spadework.detectors.wide_resnet import WideResNet

    torch.manual_seed(0)
    network = WideResNet(depth=10, widen=4, classes=72)
    for layer in (layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)):
        inputs = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.2)
        assert (layer.weight.abs() > 2 * (2 / inputs) ** 0.5).any()  # not drawn evenly
    assert 0.95 < network.last.weight.abs().max().item() * 256**0.5 <= 1
    assert not network.last.bias.any()


def test_weights_decay_as_published(monkeypatch):
    """The authors add 0.00025 of the squared weights to the loss: Adam's gradients grow by 0.0005 of each."""
    made = []
    real = torch.optim.Adam.__init__
    monkeypatch.setattr(torch.optim.Adam, "__init__", lambda self, *a, **k: (made.append(self), real(self, *a, **k))[1])
    Geom(**TINY).fit(normal_pictures(1))
    assert [group["weight_decay"] for adam in made for group in adam.param_groups] == [5e-4]


def test_the_distributions_are_fitted_to_what_is_said_of_the_training_pictures():
    """For each transform its own, and to no picture that was held out: at the optimum the mean logarithms are those of the distribution."""
    pictures = normal_pictures(4)
    model = Geom(**{**TINY, "held_out": 0.5}).fit(pictures)
    held = {view.tobytes() for view in model.held_out_}
    views = [view for view in map(model._view().see, pictures) if view.tobytes() not in held]
    assert len(views) == 2
    networks = model.networks_.ready
    with torch.no_grad():
        expected = np.mean([model._log_probabilities(networks, view) for view in views], axis=0)
    alpha = torch.from_numpy(model.dirichlet_)
    found = torch.digamma(alpha) - torch.digamma(alpha.sum(dim=1, keepdim=True))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("setting", "value", "told"), [("depth", 11, "depth must be 10, 16, 22"), ("image_size", 10, "multiple of 4"), ("widen", 0, "widen")]
)  # fmt: skip
def test_bad_settings_are_refused_by_name(setting, value, told):
    with pytest.raises(InputError, match=told):
        Geom(**{**TINY, setting: value}).fit(normal_pictures(2))
