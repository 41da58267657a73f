"""PaDiM's own mathematics: distances by SciPy, maps by the plain recipe of the public codes, what is held out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from builders import defective_picture, normal_pictures, rng_of
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import mahalanobis as scipy_mahalanobis

from spadework.detectors import padim
from spadework.detectors.padim import PaDiM
from spadework.errors import InputError
from spadework.metrics import PixelAccumulator
from spadework.pyramid import descriptors

SMALL = {"image_size": 64, "calibration_images": 6}
PICTURES = normal_pictures(6)
DEFECTIVE, MASK = defective_picture()


def features_of(model, picture):
    """(P, d): what the model reads of a picture."""
    levels = next(iter(model._see_each([picture]))).pyramid.levels
    return descriptors(levels, upsampling=model.upsampling)[:, model.channels_].astype(np.float64)


def plain_distances(normal, features):
    """As the public codes compute them, place by place: `normal` (N, P, d), `features` (P, d)."""
    out = []
    for place in range(normal.shape[1]):
        covariance = np.cov(normal[:, place], rowvar=False) + 0.01 * np.identity(normal.shape[2])
        out.append(scipy_mahalanobis(features[place], normal[:, place].mean(axis=0), np.linalg.inv(covariance)))
    return np.array(out)


@pytest.mark.parametrize("channels", [3, 40])
def test_distances_are_scipys(channels, monkeypatch):
    monkeypatch.setattr(padim, "BLOCK", 10 * channels**2)  # several blocks, the last one partial
    monkeypatch.setattr(padim, "SMALL", 29 * channels**2)  # and pictures in two parts, one of them alone
    rng = rng_of("padim", channels)
    normal = rng.normal(size=(30, 25, channels)).astype(np.float32) @ rng.normal(size=(channels, channels))
    normal = normal.astype(np.float32)
    new = (3 * rng.normal(size=(25, channels))).astype(np.float32)
    parts = [padim.mahalanobis(new[p], m, w) for p, m, w in padim.gaussians(normal, np.arange(30))]
    assert [len(part) for part in parts] == [10, 10, 5]
    np.testing.assert_allclose(np.concatenate(parts), plain_distances(normal.astype(np.float64), new), rtol=1e-4)


@pytest.mark.parametrize("size", [1, 16, 17, 45])
def test_whitening_undoes_the_covariance(size):
    rows = rng_of("whitening", size).normal(size=(3, 60, size))
    covariances = rows.transpose(0, 2, 1) @ rows / 60 + 0.01 * np.eye(size)
    found = padim.whitening(covariances)
    np.testing.assert_array_equal(found, np.tril(found))
    white = found @ covariances @ found.transpose(0, 2, 1)
    np.testing.assert_allclose(white, np.broadcast_to(np.eye(size), white.shape), atol=1e-9)


def test_maps_are_those_of_the_plain_recipe():
    """Same features, same settings: the maps, and their pixel ROCAUC and PRO, of the recipe as public codes have it."""
    model = PaDiM(**SMALL).fit(PICTURES)
    normal = np.stack([features_of(model, picture) for picture in PICTURES])
    ours, plain = PixelAccumulator(), PixelAccumulator()
    for picture, mask in [(DEFECTIVE, MASK), defective_picture(7), (normal_pictures(1, start=80)[0], MASK & False)]:
        distances = plain_distances(normal, features_of(model, picture)).reshape(8, 8)
        grown = cv2.resize(distances.astype(np.float32), (64, 64), interpolation=cv2.INTER_LINEAR)
        expected = gaussian_filter(grown, sigma=4)
        found = model.predict(picture).only
        np.testing.assert_allclose(found.score_map, expected, rtol=1e-3)
        assert found.score == pytest.approx(expected.max(), rel=1e-3)
        ours.add(found.score_map, mask)
        plain.add(expected, mask)
    ours, plain = ours.result(limit=0.3), plain.result(limit=0.3)
    assert abs(ours.auroc - plain.auroc) < 0.005
    assert abs(ours.pro - plain.pro) < 0.005


def test_channels_are_a_seeded_draw():
    model = PaDiM(**SMALL).fit(PICTURES)
    assert len(model.channels_) == len(set(model.channels_.tolist())) == 100
    assert model.channels_.max() < 448
    np.testing.assert_array_equal(PaDiM(**SMALL).fit(PICTURES[:2]).channels_, model.channels_)
    assert PaDiM(**SMALL, seed=1).fit(PICTURES[:2]).channels_.tolist() != model.channels_.tolist()
    assert PaDiM(**SMALL, channels=None, levels=(1,)).fit(PICTURES[:2]).channels_.tolist() == list(range(64))


def test_a_picture_is_held_out_with_its_fold(monkeypatch):
    monkeypatch.setattr(padim, "FOLDS", 2)
    model = PaDiM(**SMALL).fit(PICTURES)
    features = np.stack([features_of(model, picture) for picture in PICTURES])
    fold_of = np.random.default_rng(0).permutation(6) % 2
    expected = plain_distances(features[fold_of != fold_of[2]], features[2])
    np.testing.assert_allclose(model.held_out_[2].reshape(-1), expected, rtol=1e-3)


def test_one_picture_has_the_ridge_for_a_covariance():
    model = PaDiM(**SMALL).fit(PICTURES[:1])
    expected = np.linalg.norm(features_of(model, DEFECTIVE) - features_of(model, PICTURES[0]), axis=1) / 0.1
    found = model._judge(next(iter(model._see_each([DEFECTIVE])))).distances
    np.testing.assert_allclose(found.reshape(-1), expected, rtol=1e-4)
    assert model.threshold_.value is None


def test_the_features_are_not_kept(tmp_path):
    model = PaDiM(**SMALL).fit(PICTURES, path=tmp_path / "m.spade")
    kept = {"means", "whitenings", "held_out", "held_out_sizes", "normal_scores", "normal_peaks"}
    assert set(model.folder_.header["arrays"]) == kept
    assert not list((tmp_path / "m.spade").glob("features*"))


def test_the_paper_s_settings():
    paper = PaDiM.paper()
    assert (paper.channels, paper.grid_stride, paper.crop, paper.smoothing) == (550, 4, 224, 4.0)
    assert paper.backbone == "timm:wide_resnet50_2.tv_in1k"


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("channels", 0, "channels must be at least 1"),
        ("channels", 449, "channels must be at most 448"),
        ("upsampling", "cubic", "upsampling must be one of"),
        ("smoothing", 65, "smoothing must be at most 64"),
        ("crop", 65, "crop 65 does not fit"),
    ],
)
def test_bad_settings_are_refused_by_name(setting, value, told):
    with pytest.raises(InputError, match=told):
        PaDiM(**{**SMALL, setting: value}).fit(PICTURES)


def test_another_image_size_after_fit_is_refused():
    model = PaDiM(**SMALL).fit(PICTURES[:2])
    model.image_size = 96
    with pytest.raises(InputError, match="have a grid of"):
        model.predict(DEFECTIVE)
