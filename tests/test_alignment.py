"""Alignment: known turns and shifts are found again; what shows nothing stays where it is."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest
from builders import rng_of

from spadework.alignment import STILL, Aligner, Motion, correlation
from spadework.datasets.synthetic import gear_pose, render


def part(size=(120, 120)):
    """A plate with holes and a few marks on a plain ground, unlike at every angle."""
    picture = np.full(size, 60, np.float32)
    height, width = size
    cv2.rectangle(picture, (width * 3 // 10, height // 4), (width * 7 // 10, height * 3 // 4), 170, -1)
    cv2.circle(picture, (width * 2 // 5, height * 2 // 5), 6, 40, -1)
    cv2.circle(picture, (width * 3 // 5, height * 3 // 5), 3, 90, -1)
    cv2.rectangle(picture, (width // 2, height * 3 // 10), (width * 13 // 20, height * 7 // 20), 230, -1)
    return cv2.GaussianBlur(picture, (0, 0), 1.0)


def moved(picture, angle, dx, dy):
    """The part of a picture turned about its middle, then shifted, and the matrix that did it."""
    height, width = picture.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -angle, 1.0)  # OpenCV turns the other way
    matrix[:, 2] += (dx, dy)
    return cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), matrix


@pytest.mark.parametrize("size", [(120, 120), (150, 110), (60, 64)])
@pytest.mark.parametrize(
    ("angle", "dx", "dy"), [(0, 0, 0), (4.4, -3.2, 5.7), (90, 6, 0), (181.3, 2.5, -4), (-107, 5, 5)]
)
def test_a_known_turn_and_shift_are_found(size, angle, dx, dy):
    reference = part(size)
    picture, matrix = moved(reference, angle, dx, dy)
    noise = rng_of("noise", angle).normal(0, 4, size).astype(np.float32)
    found = Aligner(reference).find(picture + noise)
    assert abs((found.angle - angle + 180) % 360 - 180) < 0.5
    middle = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2, 1])
    np.testing.assert_allclose(found.matrix @ middle, matrix @ middle, atol=0.3)
    assert found.agreement > 0.98


def test_there_and_back_is_the_same_place():
    picture, matrix = moved(part(), 30, 4, -7)
    motion = Motion(matrix, 1.0)
    inner = (slice(30, 90), slice(30, 90))
    assert abs(motion.to_reference(picture)[inner] - part()[inner]).mean() < 2  # two interpolations blur the edges
    assert abs(picture[inner] - part()[inner]).mean() > 20
    np.testing.assert_allclose(motion.to_picture(part())[inner], picture[inner], atol=1e-3)
    assert motion.seen((120, 120))[60, 60]
    assert not motion.seen((120, 120)).all()
    assert not motion.known((120, 120))[0, 0]
    np.testing.assert_array_equal(STILL.to_reference(picture), picture)
    assert STILL.seen((120, 120)).all()


def test_two_rendered_gears_lie_as_they_were_put():
    """Teeth repeat every 18 degrees: up to that the angle is the one they were rendered with."""
    first, second = (cv2.cvtColor(render("gear", index=i)[0], cv2.COLOR_RGB2GRAY).astype(np.float32) for i in (0, 2))
    turned = gear_pose(index=2)[2] - gear_pose(index=0)[2]
    found = Aligner(first).find(second)
    assert abs((found.angle - turned + 9) % 18 - 9) < 2
    assert found.agreement > 0.85 > correlation(first, second)


def test_a_defect_is_not_moved_out_of_sight():
    """Stripes agree with themselves a period farther on: perfectly, where that pushes a bright square over the border."""
    y, x = np.mgrid[:64, :64]
    stripes = (110 + 40 * np.sin((x + 0.3 * y) / 4)).astype(np.float32)
    picture = stripes.copy()
    picture[8:24, 40:56] = 240
    found = Aligner(stripes).find(picture)  # along the stripes it may lie anywhere
    assert abs(found.angle) < 10
    assert found.known((64, 64))[8:24, 40:56].mean() > 0.7


@pytest.mark.parametrize("value", [0.0, 255.0])
def test_a_picture_that_shows_nothing_is_no_error(value):
    plain = np.full((120, 120), value, np.float32)
    assert abs(Aligner(part()).find(plain).agreement) < 1e-6
    found = Aligner(plain).find(part())
    assert np.isfinite(found.matrix).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (10, 1000), (1000, 10)])
def test_small_and_narrow_pictures_are_no_error(size):
    """Of a strip the coarse picture is one pixel wide: all of it lies on the inscribed ellipse."""
    ramp = np.linspace(0, 200, size[0] * size[1], dtype=np.float32).reshape(size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Aligner(ramp).find(ramp)
    np.testing.assert_allclose(found.matrix, STILL.matrix, atol=1e-3)


def test_correlation_is_pearsons():
    one, two = rng_of("one").normal(size=50), rng_of("two").normal(size=50)
    assert correlation(one, two) == pytest.approx(np.corrcoef(one, two)[0, 1])
    assert correlation(one, np.ones(50)) == 0
