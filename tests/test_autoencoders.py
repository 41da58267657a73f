"""The autoencoders' own mathematics: SSIM against scikit-image and by hand, patches and their overlap by hand, what training reaches."""

from __future__ import annotations

import numpy as np
import pytest
from builders import defective_picture, normal_pictures, rng_of

from spadework.detectors import patches
from spadework.detectors.ae_l2 import AutoencoderL2
from spadework.detectors.ae_ssim import AutoencoderSSIM, similarity
from spadework.detectors.patches import average_map, draw_patch, drawn_example, starts
from spadework.detectors.trained import Views
from spadework.errors import InputError

torch = pytest.importorskip("torch", reason="training needs the extra torch: torch is not installed")

pytestmark = pytest.mark.slow  # training and exporting: its packages alone take seconds to import

DEFECTIVE = defective_picture()[0]
TINY = {"image_size": 32, "batch_size": 4, "held_out": 0, "width": 4, "latent": 8, "examples": 4, "learning_rate": 0.01}
STILL = {"rotation": 0, "shift": 0, "threads": 1}


def two_pictures():
    rng = rng_of("ssim")
    first = rng.random((24, 30))
    return first, np.clip(first + rng.normal(0, 0.2, first.shape), 0, 1)


def ssim(first, second):
    found = similarity(*(torch.from_numpy(each.astype(np.float32))[None, None] for each in (first, second)))
    return found[0, 0].numpy()


def test_ssim_is_scikit_image_s():
    metrics = pytest.importorskip("skimage.metrics", reason="compares with scikit-image, which is not installed")
    first, second = two_pictures()
    mean, whole = metrics.structural_similarity(
        first, second, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    found = ssim(first, second)
    np.testing.assert_allclose(found, whole[5:-5, 5:-5], atol=2e-5)
    assert found.mean() == pytest.approx(mean, abs=1e-5)


def test_ssim_by_hand():
    first, second = two_pictures()
    away = np.arange(11) - 5
    weights = np.exp(-0.5 * (away[:, None] ** 2 + away**2) / 1.5**2)
    weights /= weights.sum()
    x, y = first[3:14, 7:18], second[3:14, 7:18]
    mx, my = (weights * x).sum(), (weights * y).sum()
    vx, vy, cov = (
        (weights * (x - mx) ** 2).sum(),
        (weights * (y - my) ** 2).sum(),
        (weights * (x - mx) * (y - my)).sum(),
    )
    expected = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    assert ssim(first, second)[3, 7] == pytest.approx(expected, abs=1e-5)
    np.testing.assert_allclose(ssim(first, first), 1, atol=1e-6)


def test_the_map_is_one_less_the_similarity_of_each_pixel_s_window_reflected_at_the_border():
    pictures = [np.pad(each, 5, mode="reflect") for each in two_pictures()]
    tensors = [torch.from_numpy(each.astype(np.float32))[None, None] for each in two_pictures()]
    np.testing.assert_allclose(AutoencoderSSIM()._residual(*tensors)[0], 1 - ssim(*pictures), atol=1e-5)


def test_overlapping_patches_are_averaged():
    """A row of 5 pixels, patches of 3 at 0 and 2: the middle pixel is judged twice, by 1 and by 2."""
    view = np.zeros((3, 5, 3), np.uint8)
    view[:, 0] = 10  # tells the first patch from the second

    def judge(patches):
        first = patches[:, 0, 0, 0] == 10
        return np.where(first, 1.0, 2.0)[:, None, None] * np.ones((1, 3, 3))

    np.testing.assert_array_equal(average_map(view, 3, 2, judge, batch=1), [[1, 1, 1.5, 2, 2]] * 3)
    np.testing.assert_array_equal(average_map(view, 3, 2, judge), [[1, 1, 1.5, 2, 2]] * 3)


def test_every_pixel_is_in_a_patch():
    assert starts(256, 128, 30) == [0, 30, 60, 90, 120, 128]
    assert starts(128, 128, 30) == [0]
    assert starts(8, 4, 2) == [0, 2, 4]


def test_patches_are_cut_turned_and_mirrored():
    view = rng_of("patch").integers(0, 255, (9, 9, 3)).astype(np.uint8)
    still = {"rotation": 0, "shift": 0, "mirror": False}
    np.testing.assert_array_equal(draw_patch(view, 9, np.random.default_rng(0), **still), view)

    class Drawn:
        def __init__(self, *numbers):
            self.numbers = numbers

        def random(self, count):
            return np.array(self.numbers[:count])

    np.testing.assert_array_equal(draw_patch(view, 3, Drawn(0.5, 0, 1, 1), **still), view[:3, 6:])
    mirrored = draw_patch(view, 9, Drawn(0.5, 0.5, 0.5, 0), rotation=0, shift=0, mirror=True)
    np.testing.assert_array_equal(mirrored, view[:, ::-1])
    turned = draw_patch(view, 9, Drawn(1, 0.5, 0.5, 1), rotation=90, shift=0, mirror=False)
    assert (
        np.abs(turned.astype(int) - np.rot90(view, 1)).max() <= 1
        or np.abs(turned.astype(int) - np.rot90(view, 3)).max() <= 1
    )
    shifted = draw_patch(view, 9, Drawn(0.5, 0.5, 1, 1), rotation=0, shift=2 / 9, mirror=False)
    np.testing.assert_array_equal(shifted[:, :7], view[:, 2:])


def test_examples_take_turns_with_the_pictures_and_are_the_same_each_time():
    views = Views(rng_of("views").integers(0, 255, (2, 16, 16, 3)).astype(np.uint8), np.array([0, 1]))

    def example(number, side=None, seed=0, rotation=0.0):
        return drawn_example(views, number, side, seed=seed, rotation=rotation, shift=0, mirror=False)

    for number in range(4):
        np.testing.assert_array_equal(example(number), views[:][number % 2])
        np.testing.assert_array_equal(example(number, 8), example(number, 8))
    assert len({example(number, 8).tobytes() for number in range(20)}) > 15
    assert (example(0, 8, seed=1) != example(0, 8)).any()


def test_patches_of_textures_are_turned_all_the_way_round_and_whole_pictures_a_little(monkeypatch):
    asked = []
    monkeypatch.setattr(
        patches, "draw_patch", lambda *_, rotation, shift, mirror: asked.append((rotation, shift, mirror))
    )
    views = Views(np.zeros((1, 16, 16, 3), np.uint8), np.array([0]))
    for side, rotation in ((8, None), (None, None), (8, 20.0)):
        drawn_example(views, 0, side, seed=0, rotation=rotation, shift=0.1, mirror=True)
    assert asked == [(180.0, 0.1, True), (5.0, 0.1, True), (20.0, 0.1, True)]


def test_weights_decay(monkeypatch):
    made = []
    real = torch.optim.Adam.__init__
    monkeypatch.setattr(torch.optim.Adam, "__init__", lambda self, *a, **k: (made.append(self), real(self, *a, **k))[1])
    AutoencoderL2(**{**TINY, "epochs": 1}, weight_decay=0.25).fit(normal_pictures(2))
    assert [group["weight_decay"] for adam in made for group in adam.param_groups] == [0.25]


def test_layers_are_those_published():
    from spadework.detectors.autoencoder import build_autoencoder

    def encoder(side):
        network = build_autoencoder(side, 3, latent=100, width=32)
        convolutions = [layer for layer in network if type(layer) is torch.nn.Conv2d]
        return [(c.kernel_size[0], c.stride[0], c.out_channels) for c in convolutions]

    at_128 = [
        (4, 2, 32),
        (4, 2, 32),
        (3, 1, 32),
        (4, 2, 64),
        (3, 1, 64),
        (4, 2, 128),
        (3, 1, 64),
        (3, 1, 32),
        (8, 1, 100),
    ]
    assert encoder(128) == at_128
    assert encoder(256) == [(4, 2, 32), *at_128]
    network = build_autoencoder(128, 3, latent=100, width=32)
    ways = [[layer for layer in network if type(layer) is kind] for kind in (torch.nn.Conv2d, torch.nn.ConvTranspose2d)]
    down, up = ([(c.kernel_size, c.stride, c.in_channels, c.out_channels) for c in way] for way in ways)
    assert up == [(kernel, stride, after, before) for kernel, stride, before, after in reversed(down)]
    kinds = [type(layer).__name__ for layer in network]
    assert [place for place, kind in enumerate(kinds) if kind == "LeakyReLU"] == [*range(1, 16, 2), *range(18, 33, 2)]
    assert {layer.negative_slope for layer in network if type(layer) is torch.nn.LeakyReLU} == {0.2}
    assert build_autoencoder(64, 1, latent=4, width=2)(torch.zeros(2, 1, 64, 64)).shape == (2, 1, 64, 64)


@pytest.mark.parametrize("kind", [AutoencoderL2, AutoencoderSSIM])
def test_a_trained_network_sees_more_than_an_untrained_one(kind):
    """With a learning rate of next to nothing a network stays as it was drawn, and its map tells the defect no better than chance does."""
    picture, mask = defective_picture(colour=(250, 250, 250))
    normal = normal_pictures(4)

    def contrast(**changes):
        model = kind(**{**TINY, **STILL, "epochs": 30, **changes}).fit(normal)
        found = model.predict(picture).score_map
        losses = model.folder_.header["training"]["losses"]
        return found[mask].mean() / found[~mask].mean(), losses[-1]["loss"] / losses[0]["loss"]

    trained, fallen = contrast()
    untrained, stayed = contrast(learning_rate=1e-12)
    assert fallen < 0.3 < 0.99 < stayed
    assert trained > 2 * untrained


def test_textures_are_inspected_in_patches():
    model = AutoencoderL2(**{**TINY, "image_size": 64}, patch=32, stride=16, epochs=1, threads=1).fit(
        normal_pictures(2)
    )
    picture = defective_picture()[0]
    network = model.networks_.ready["autoencoder"]
    found = model.predict(picture).only.view_map
    corner = torch.from_numpy(picture[:32, :32].astype(np.float32) / 255).permute(2, 0, 1)[None]
    expected = ((network(corner) - corner) ** 2).sum(1)[0].numpy()
    np.testing.assert_allclose(found[:16, :16], expected[:16, :16], rtol=1e-4)  # no other patch reaches there


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("image_size", 48, "image_size must be 32, 64, 128"),
        ("patch", 48, "patch must be 32, 64, 128"),
        ("patch", 64, "patch must be at most image_size, 32"),
        ("shift", 1, "shift must lie"),
        ("image_score", "max", "image_score must be one of"),
    ],
)
def test_bad_settings_are_refused_by_name(setting, value, told):
    with pytest.raises(InputError, match=told):
        AutoencoderL2(**{**TINY, setting: value}).fit(normal_pictures(2))


def test_a_stride_that_leaves_pixels_out_is_refused():
    """They would be in no patch, and their score 0 / 0. A whole picture has no neighbour: there the stride means nothing."""
    with pytest.raises(
        InputError, match="stride must be at most the patch's side, 32, so that no pixel is left out, not 33"
    ):
        AutoencoderL2(**{**TINY, "image_size": 64}, patch=32, stride=33).fit(normal_pictures(2))
    assert np.isfinite(AutoencoderL2(**TINY, stride=33, epochs=1).fit(normal_pictures(2)).predict(DEFECTIVE).score)
