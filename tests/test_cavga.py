"""CAVGA's own mathematics: Grad-CAM by hand, what the map is made of, what training does to attention."""

from __future__ import annotations

import numpy as np
import pytest
from builders import defective_picture, normal_pictures, rng_of

from spadework.detectors.cavga import CAVGARu, grad_cam
from spadework.errors import InputError

torch = pytest.importorskip("torch", reason="training needs the extra torch: torch is not installed")

pytestmark = pytest.mark.slow  # training and exporting: its packages alone take seconds to import

TINY = {
    "image_size": 32, "batch_size": 4, "held_out": 0, "width": 4, "latent": 8, "stages": 1, "threads": 1, "epochs": 1,
}  # fmt: skip
PICTURES = normal_pictures(4)


def test_grad_cam_of_two_layers_by_hand():
    """F = x * u for two maps, z = sum over maps of v * F^2, so dz/dF = 2 v F, and its weights are 2 v mean(F)."""
    x = torch.from_numpy(rng_of("x").random((2, 1, 3, 4)))
    u = torch.tensor([1.5, -2.0], dtype=torch.float64).view(1, 2, 1, 1).requires_grad_()
    v = torch.tensor([0.5, 3.0], dtype=torch.float64).view(1, 2, 1, 1)
    features = x * u
    found = grad_cam(features, (v * features**2).sum(dim=1), learning=True)
    maps = (x * u).detach().numpy()
    weights = 2 * v.numpy() * maps.mean(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(found.detach().numpy(), (weights * maps).sum(axis=1))
    # The sum of the result is sum_k 2 v_k mean(F_k) sum(F_k) = sum_k 2 v_k u_k^2 mean(x) sum(x): its derivative in u_k is twice that, over u_k.
    (gradient,) = torch.autograd.grad(found.sum(), u)
    pixels = x.numpy()
    squares = (pixels.mean(axis=(2, 3)) * pixels.sum(axis=(2, 3))).sum()
    np.testing.assert_allclose(
        gradient.flatten().numpy(), 4 * v.flatten().numpy() * u.detach().flatten().numpy() * squares
    )


def test_the_map_is_one_less_attention():
    """The means of the codes are linear in the features: their gradient is the sum of a feature's weights over all codes."""
    model = CAVGARu(**TINY).fit(PICTURES)
    network = model.networks_.ready["encoder"]
    view = model._view().see(defective_picture()[0])
    x = torch.from_numpy(view.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    features = network.features(x)[0].numpy()
    weights = network.mean.weight[:, :, 0, 0].numpy().sum(axis=0)
    attention = 1 / (1 + np.exp(-np.einsum("c,chw->hw", weights.astype(np.float64), features)))
    found = model._judge_view(view)
    assert found.distances.shape == (8, 8)
    np.testing.assert_allclose(found.distances, 1 - attention, rtol=1e-4)
    assert found.image_score == pytest.approx((1 - attention).mean(), rel=1e-4)


def test_training_draws_attention_to_normal_pictures():
    fresh = normal_pictures(2, start=30)

    def ignored(**changes):
        model = CAVGARu(**{**TINY, "epochs": 40, "learning_rate": 0.01, "attention_weight": 1.0, **changes}).fit(
            PICTURES
        )
        return np.mean([found.score_map.mean() for found in model.predict(fresh)])

    trained = ignored()
    assert trained < 0.25
    assert ignored(learning_rate=1e-12) > 0.35
    assert ignored(attention_weight=0) > 1.5 * trained  # it is this part of the loss that does it


def test_training_lowers_the_difference_of_pictures():
    losses = (
        CAVGARu(**{**TINY, "epochs": 30, "learning_rate": 0.005}).fit(PICTURES).folder_.header["training"]["losses"]
    )
    assert losses[-1]["picture"] < 0.7 * losses[0]["picture"]


def test_the_encoder_is_resnet_18():
    from spadework.detectors.residual_vae import Decoder, Encoder

    network = Encoder(width=64, stages=4, latent=100)
    convolutions = [part for part in network.features.modules() if type(part) is torch.nn.Conv2d]
    assert sum(part.kernel_size != (1, 1) for part in convolutions) == 17  # and the layer that is left out
    assert sum(value.numel() for value in network.features.parameters()) == 11_176_512
    small = Encoder(width=2, stages=4, latent=3)
    features, mean, log_variance = small(torch.zeros(1, 3, 64, 64))
    assert (features.shape, mean.shape, log_variance.shape) == ((1, 16, 2, 2), (1, 3, 2, 2), (1, 3, 2, 2))
    assert Decoder(width=2, stages=4, latent=3)(mean).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [("image_size", 48, "power of two"), ("stages", 4, "at least 64 with 4 stages"), ("attention_weight", -1, "attention_weight")],
)  # fmt: skip
def test_bad_settings_are_refused_by_name(setting, value, told):
    with pytest.raises(InputError, match=told):
        CAVGARu(**{**TINY, setting: value}).fit(PICTURES)
