"""The mathematics of AnoGAN and GANomaly: the search for a code, patches apart and together, losses and scores by hand."""

from __future__ import annotations

import numpy as np
import pytest
from builders import defective_picture, normal_pictures, rng_of

from spadework.detectors import ganomaly
from spadework.detectors.anogan import AnoGAN
from spadework.detectors.dcgan import decoder, encoder, initialise, signed, taken_for
from spadework.detectors.ganomaly import GANomaly
from spadework.errors import InputError

torch = pytest.importorskip("torch", reason="training needs the extra torch: torch is not installed")

pytestmark = pytest.mark.slow  # training and exporting: its packages alone take seconds to import

TINY = {"image_size": 32, "batch_size": 4, "held_out": 0, "width": 4, "latent": 8, "threads": 1, "epochs": 1}
SEARCH = {"examples": 4, "search_steps": 10, "search_rate": 0.1}
DEFECTIVE, MASK = defective_picture()


@pytest.fixture(scope="module")
def anogan():
    return AnoGAN(**TINY, **SEARCH).fit(normal_pictures(4))


def searched(model, patches, **changes):
    again = AnoGAN(**{**model.settings(), **changes})
    return again._search(model.networks_.ready, patches)


def test_the_search_lowers_what_it_searches_by(anogan):
    patches = np.stack([picture[:32, :32] for picture in normal_pictures(3, start=20)])
    remaining = [searched(anogan, patches, search_steps=steps)[1] for steps in (1, 10, 40)]
    assert (remaining[1] < remaining[0]).all()
    assert (remaining[2] < remaining[1]).all()


def test_patches_together_give_what_each_gives_alone(anogan):
    patches = np.stack([picture[:32, :32] for picture in normal_pictures(3, start=20)])
    maps, remaining = searched(anogan, patches)
    for place in range(3):
        alone_map, alone = searched(anogan, patches[place : place + 1])
        np.testing.assert_allclose(alone_map[0], maps[place], rtol=1e-3, atol=1e-5)
        assert alone[0] == pytest.approx(remaining[place], rel=1e-4)


def test_what_is_searched_by_is_the_sum_of_the_paper():
    def features(pictures):
        return 2 * pictures[:, :1]

    discriminator = type("Discriminator", (), {"features": staticmethod(features)})
    x, made = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    made[0, :, 0, 0] = 1.0  # three numbers of pixels, one feature of 2
    made[1] = 0.5  # 12 numbers, four features of 1
    found = AnoGAN(feature_weight=0.1)._remaining(x, features(x), made, discriminator)
    np.testing.assert_allclose(found.numpy(), [0.9 * 3 + 0.1 * 2, 0.9 * 6 + 0.1 * 4], rtol=1e-6)


class Fixed(torch.nn.Module):
    """A generator that makes one gray picture of any code, or a discriminator that looks at nothing."""

    def __init__(self, value):
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(float(value)))

    def forward(self, z):
        return self.value + 0 * z.sum(dim=(1, 2, 3), keepdim=True).expand(-1, 3, 4, 4)

    def features(self, pictures):
        return pictures[:, :1] * 0


def test_the_map_is_the_squared_difference_summed_over_the_colours_of_0_to_1():
    patch = rng_of("map").integers(0, 256, (1, 4, 4, 3)).astype(np.uint8)
    networks = {"generator": Fixed(0.2).requires_grad_(False), "discriminator": Fixed(0).requires_grad_(False)}
    maps, remaining = AnoGAN(search_steps=1, feature_weight=0.25)._search(networks, patch)
    np.testing.assert_allclose(maps, ((patch / 255 - 0.6) ** 2).sum(axis=3), rtol=1e-5)  # 0.2 in -1..1 is 0.6 in 0..1
    assert remaining[0] == pytest.approx(0.75 * np.abs(patch / 127.5 - 1.2).sum(), rel=1e-5)


def test_the_discriminator_takes_normal_pictures_for_real_and_others_not():
    model = AnoGAN(**{**TINY, **SEARCH, "epochs": 30, "learning_rate": 0.002}).fit(normal_pictures(4))
    discriminator = model.networks_.ready["discriminator"]
    noise = rng_of("noise").integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    normal = np.stack([model._view().see(picture) for picture in normal_pictures(4, start=30)])
    with torch.no_grad():
        real, other = (discriminator(signed(pictures, discriminator)).flatten() for pictures in (normal, noise))
    assert real.min() > other.max() + 1


def test_textures_are_searched_in_patches_without_overlap(anogan):
    model = AnoGAN(**{**TINY, "image_size": 64}, **SEARCH, patch=32).fit(normal_pictures(4))
    judged = model._judge_view(DEFECTIVE)
    corners = np.stack([DEFECTIVE[y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32)])
    maps, remaining = searched(model, corners)
    whole = np.vstack([np.hstack(maps[:2]), np.hstack(maps[2:])])
    np.testing.assert_allclose(judged.distances, whole, rtol=1e-3, atol=1e-5)
    assert judged.image_score == pytest.approx(remaining.max(), rel=1e-4)


def test_a_trained_generator_is_nearer_to_normal_pictures_than_an_untrained_one():
    normal, fresh = normal_pictures(4), normal_pictures(2, start=30)

    def remains(**changes):
        model = AnoGAN(**{**TINY, **SEARCH, "epochs": 80, "rotation": 0, "shift": 0, **changes}).fit(normal)
        return model.predict(fresh).scores.mean()

    assert remains(learning_rate=0.005) < 0.6 * remains(learning_rate=1e-12, epochs=1)


def test_networks_are_those_of_dcgan():
    made = decoder(128, 3, 64, width=4)
    assert made(torch.zeros(1, 64, 1, 1)).shape == (1, 3, 128, 128)
    convolutions = [layer for layer in made if type(layer) is torch.nn.ConvTranspose2d]
    assert [layer.out_channels for layer in convolutions] == [64, 32, 16, 8, 4, 3]
    told = encoder(32, 3, 100, width=4)
    assert told(torch.zeros(2, 3, 32, 32)).shape == (2, 100, 1, 1)
    deviations = [each.weight.std().item() for each in initialise(told).modules() if type(each) is torch.nn.Conv2d]
    np.testing.assert_allclose(deviations, 0.02, rtol=0.15)
    assert told.features(torch.zeros(1, 3, 32, 32)).shape == (1, 16, 4, 4)
    normalised = [type(layer) is torch.nn.BatchNorm2d for layer in told.features]
    assert (normalised[:3], sum(normalised)) == ([False, False, False], 2)  # not after the first


def test_the_discriminator_s_loss_is_the_cross_entropy():
    answers = torch.tensor([0.0, 2.0])
    assert taken_for(True, answers).item() == pytest.approx((np.log(2) + np.log(1 + np.exp(-2))) / 2, rel=1e-6)
    assert taken_for(False, answers).item() == pytest.approx((np.log(2) + np.log(1 + np.exp(2))) / 2, rel=1e-6)


# ---------------------------------------------------------------- GANomaly


def test_ganomaly_s_score_by_hand():
    model = GANomaly(**TINY).fit(normal_pictures(4))
    networks = model.networks_.ready
    view = model._view().see(DEFECTIVE)
    x = torch.from_numpy(view.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    z = networks["encoder"](x)
    again = networks["second_encoder"](networks["decoder"](z))
    expected = sum((float(a) - float(b)) ** 2 for a, b in zip(z.flatten(), again.flatten(), strict=True)) / 8
    found = model.predict(DEFECTIVE).only
    assert found.score == pytest.approx(expected, rel=1e-4)
    assert found.score_map is None


def test_ganomaly_s_loss_by_hand():
    def features(pictures):
        return 3 * pictures

    discriminator = type("Discriminator", (), {"features": staticmethod(features)})
    rng = rng_of("loss")
    x, copy = (torch.from_numpy(rng.normal(size=(2, 3, 4, 4))) for _ in range(2))
    z, again = (torch.from_numpy(rng.normal(size=(2, 5))) for _ in range(2))
    difference = (x - copy).numpy()
    expected = 9 * (difference**2).mean() + 50 * np.abs(difference).mean() + ((z - again).numpy() ** 2).mean()
    assert GANomaly()._loss(x, copy, z, again, discriminator).item() == pytest.approx(expected)


def test_ganomaly_learns():
    def last(**changes):
        model = GANomaly(**{**TINY, "epochs": 20, **changes}).fit(normal_pictures(4))
        return model.folder_.header["training"]["losses"][-1]

    trained, untrained = last(learning_rate=0.005), last(learning_rate=1e-12)
    assert trained["generator"] < 0.5 * untrained["generator"]
    assert trained["discriminator"] < 0.8 * untrained["discriminator"]


@pytest.mark.parametrize(("lost", "drawn"), [(1e9, 4 + 3), (1e-9, 4)])
def test_a_discriminator_that_is_too_sure_is_drawn_anew(lost, drawn, monkeypatch):
    """Four networks are drawn at first, and the discriminator after each of three steps, or never."""
    networks = []
    monkeypatch.setattr(ganomaly, "LOST", lost)
    monkeypatch.setattr(ganomaly, "initialise", lambda network: networks.append(network) or initialise(network))
    monkeypatch.setattr(GANomaly, "_normal_scores", lambda *_: (np.empty(0), np.empty(0)))
    GANomaly(**{**TINY, "epochs": 3}).fit(normal_pictures(4))
    assert len(networks) == drawn
    assert all(network is networks[3] for network in networks[4:])


def test_the_defaults_are_the_published_numbers():
    anogan, other = AnoGAN.paper().settings(), GANomaly.paper().settings()
    assert [anogan[key] for key in ("image_size", "latent", "epochs", "learning_rate", "search_steps", "search_rate")] == [
        128, 64, 50, 2e-4, 300, 0.02,
    ]  # fmt: skip
    weights = [other[f"{part}_weight"] for part in ("adversarial", "picture", "code")]
    assert [*weights, other["image_size"], other["latent"], other["epochs"]] == [1, 50, 1, 32, 100, 15]


@pytest.mark.parametrize(
    ("kind", "setting", "value", "told"),
    [
        (AnoGAN, "image_size", 48, "image_size must be 16, 32, 64"),
        (AnoGAN, "patch", 64, "patch must be at most image_size"),
        (AnoGAN, "feature_weight", 2, "feature_weight must be at most 1"),
        (AnoGAN, "search_steps", 0, "search_steps"),
        (GANomaly, "image_size", 8, "image_size must be 16, 32, 64"),
        (GANomaly, "code_weight", -1, "code_weight"),
    ],
)
def test_bad_settings_are_refused_by_name(kind, setting, value, told):
    with pytest.raises(InputError, match=told):
        kind(**{**TINY, setting: value}).fit(normal_pictures(2))
