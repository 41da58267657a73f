"""ITAE's own mathematics: rotations against slicing, what it is trained on, the errors by hand."""

from __future__ import annotations

import numpy as np
import pytest
from builders import defective_picture, normal_pictures, rng_of

from spadework.detectors.itae import ITAE, rotate
from spadework.errors import InputError

torch = pytest.importorskip("torch", reason="training needs the extra torch: torch is not installed")

pytestmark = pytest.mark.slow  # training and exporting: its packages alone take seconds to import

TINY = {"image_size": 32, "batch_size": 4, "held_out": 0, "width": 4, "threads": 1, "epochs": 2}
PICTURES = normal_pictures(4)


def test_rotations_are_slices():
    view = rng_of("view").integers(0, 255, (6, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(rotate(view, 0), view)
    np.testing.assert_array_equal(rotate(view, 1), view.transpose(1, 0, 2)[::-1])
    np.testing.assert_array_equal(rotate(view, 2), view[::-1, ::-1])
    np.testing.assert_array_equal(rotate(view, 3), view.transpose(1, 0, 2)[:, ::-1])


def test_the_score_is_the_mean_of_errors_each_divided_by_its_mean_in_training():
    model = ITAE(**TINY).fit(PICTURES)
    network = model.networks_.ready["restorer"]

    def errors(picture):
        view = model._view().see(picture) / np.float32(255)
        grays = view @ np.array([0.299, 0.587, 0.114], np.float32)
        found = []
        for turns in range(4):
            turned = torch.from_numpy(np.rot90(grays, turns).copy())[None, None]
            found.append(np.abs(network(turned)[0].numpy().transpose(1, 2, 0) - view).mean(axis=2))
        return np.array(found, np.float64)

    training = np.mean([errors(picture).mean(axis=(1, 2)) for picture in PICTURES], axis=0)
    np.testing.assert_allclose(model.training_errors_, training, rtol=1e-4)
    picture = defective_picture()[0]
    expected = (errors(picture) / training[:, None, None]).mean(axis=0)
    found = model.predict(picture).only
    np.testing.assert_allclose(found.view_map, expected, rtol=1e-3)
    assert found.score == pytest.approx(expected.mean(), rel=1e-4)


def test_it_is_trained_to_restore_the_upright_picture(monkeypatch):
    """Each picture of a batch is mirrored or not, and one of its rotations, made gray, goes in."""
    model = ITAE(**TINY)
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, pictures):
            seen.extend(pictures[:, 0].detach().numpy())
            return self.weight * pictures.expand(-1, 3, -1, -1)

    monkeypatch.setattr(ITAE, "_build", lambda self: {"restorer": Spy()})
    model.fit(PICTURES)
    weights = np.array([0.299, 0.587, 0.114])
    known = {}
    for number, picture in enumerate(PICTURES):
        gray = model._view().see(picture) / 255 @ weights
        for mirrored in (False, True):
            for turns in range(4):
                known[number, mirrored, turns] = np.rot90(gray[:, ::-1] if mirrored else gray, turns)
    for shown in seen[:8]:  # two epochs of four
        assert min(np.abs(shown - other).max() for other in known.values()) < 1e-5
    assert (
        len(
            {
                turns
                for shown in seen[:8]
                for (_, _, turns), other in known.items()
                if np.abs(shown - other).max() < 1e-5
            }
        )
        > 1
    )


def test_what_comes_out_is_compared_with_the_upright_picture_mirrored_or_not(monkeypatch):
    """A network that answers with the same slope, whatever it sees: its loss tells which pictures it was compared with."""
    shown = []

    class Slope(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, pictures):
            shown.extend(pictures[:, 0].detach().numpy())
            y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(-1, 0, 32), indexing="ij")
            return self.weight + (x + 2 * y).expand(len(pictures), 3, 32, 32)

    monkeypatch.setattr(ITAE, "_build", lambda self: {"restorer": Slope()})
    model = ITAE(**{**TINY, "epochs": 1, "batch_size": 8}).fit(normal_pictures(8))
    y, x = np.mgrid[0:1:32j, -1:0:32j]
    slope, losses, mirrored = (x + 2 * y)[..., None], [], []
    upright = [model._view().see(picture) / 255 for picture in normal_pictures(8)]
    for gray in shown[:8]:
        distances = {
            (number, flip, turns): np.abs(
                np.rot90((picture[:, ::-1] if flip else picture) @ np.array([0.299, 0.587, 0.114]), turns) - gray
            ).max()
            for number, picture in enumerate(upright)
            for flip in (False, True)
            for turns in range(4)
        }
        number, flip, _ = min(distances, key=distances.__getitem__)
        mirrored.append(flip)
        losses.append(((slope - (upright[number][:, ::-1] if flip else upright[number])) ** 2).mean())
    assert model.folder_.header["training"]["losses"][0]["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert 0 < sum(mirrored) < 8


def test_the_rate_is_halved_after_every_tenth(monkeypatch):
    rates, momenta = [], set()
    model = ITAE(**{**TINY, "epochs": 20, "learning_rate": 0.1})
    real = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD,
        "step",
        lambda self, *rest: (
            rates.append(self.param_groups[0]["lr"]),
            momenta.add(self.param_groups[0]["momentum"]),
            real(self, *rest),
        )[2],
    )
    model.fit(PICTURES)
    np.testing.assert_allclose(rates, [0.1 * 0.5 ** (step // 2) for step in range(20)])
    assert momenta == {0.9}


def test_training_lowers_the_loss():
    losses = ITAE(**{**TINY, "epochs": 30, "learning_rate": 0.2}).fit(PICTURES).folder_.header["training"]["losses"]
    assert losses[-1]["loss"] < 0.2 * losses[0]["loss"]


def test_the_network_is_that_published():
    from spadework.detectors.unet import UNet

    network = UNet(1, 3, width=4)
    assert network(torch.zeros(1, 1, 32, 48)).shape == (1, 3, 32, 48)
    assert [layers[3].out_channels for layers in network.down] == [4, 8, 16, 32, 32]
    assert [(layers[0].in_channels, layers[3].out_channels) for layers in network.up] == [
        (64, 16),
        (32, 8),
        (16, 4),
        (8, 4),
    ]


@pytest.mark.parametrize(
    ("setting", "value", "told"), [("image_size", 40, "multiple of 16"), ("image_score", "max", "image_score")]
)
def test_bad_settings_are_refused_by_name(setting, value, told):
    with pytest.raises(InputError, match=told):
        ITAE(**{**TINY, setting: value}).fit(PICTURES)
