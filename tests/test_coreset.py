"""The greedy coreset: the plain choice, whatever the data; and its radius."""

from __future__ import annotations

import numpy as np
import pytest
from builders import rng_of

from spadework import coreset
from spadework.kernels import pruned

DATA = {
    "one row": lambda rng: rng.normal(size=(1, 5)),
    "smooth": lambda rng: rng.normal(size=(1500, 40)) / np.arange(1, 41),
    "noise": lambda rng: rng.normal(size=(600, 200)),
    "few numbers": lambda rng: rng.normal(size=(3000, 2)),
    "far from zero": lambda rng: 1e6 + rng.normal(size=(500, 30)),
    "tiny": lambda rng: 1e-30 * rng.normal(size=(500, 30)),
    "huge": lambda rng: 1e14 * rng.normal(size=(500, 30)),
    "one far out": lambda rng: np.vstack([rng.normal(size=(800, 20)), np.full((1, 20), 1e9)]),
}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("name", DATA)
def test_the_choice_is_the_plain_one(name, share):
    rows = DATA[name](rng_of("coreset", name)).astype(np.float32)
    count = max(1, round(share * len(rows)))
    found, expected = coreset.greedy(rows, count), coreset.plain(rows, count, coreset._farthest_from_mean(rows))
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.radius == pytest.approx(expected.radius, rel=1e-12)


def test_the_radius_is_that_of_brute_force():
    rows = DATA["smooth"](rng_of("radius")).astype(np.float32)
    found = coreset.greedy(rows, 150)
    away = rows[:, None].astype(np.float64) - rows[found.indices]
    nearest = np.sqrt((away**2).sum(axis=2)).min(axis=1)
    assert found.radius == pytest.approx(nearest.max(), rel=1e-12)
    chosen = np.sqrt(((rows[found.indices][:, None].astype(np.float64) - rows[found.indices]) ** 2).sum(axis=2))
    assert (
        chosen[~np.eye(150, dtype=bool)].min() >= found.radius
    )  # what makes it at most twice the best radius there is


def test_ties_go_to_the_lower_row_and_copies_are_not_chosen():
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(8)), axis=-1).reshape(-1, 2).astype(np.float32)
    rows = np.concatenate([grid, grid])
    found = coreset.greedy(rows, 100)
    assert sorted(found.indices.tolist()) == list(range(64))
    assert found.radius == 0
    assert found.indices[:4].tolist() == [0, 63, 7, 56]  # corners, all as far from the mean


def test_the_order_of_rows_does_not_matter():
    rows = DATA["smooth"](rng_of("order")).astype(np.float32)
    turned = coreset.greedy(rows[::-1], 100)
    assert (len(rows) - 1 - turned.indices).tolist() == coreset.greedy(rows, 100).indices.tolist()


def test_rows_may_be_a_map_that_cannot_be_written(tmp_path):
    rows = DATA["smooth"](rng_of("map")).astype(np.float32)
    rows.tofile(tmp_path / "rows.bin")
    mapped = np.memmap(tmp_path / "rows.bin", np.float32, "r", shape=rows.shape)
    assert coreset.greedy(mapped, 50).indices.tolist() == coreset.greedy(rows, 50).indices.tolist()


def test_without_numba_the_plain_choice_is_made(monkeypatch):
    rows = DATA["smooth"](rng_of("plain")).astype(np.float32)
    expected = coreset.greedy(rows, 50)
    monkeypatch.setattr(pruned, "is_usable", lambda: False)
    assert coreset.greedy(rows, 50).indices.tolist() == expected.indices.tolist()


def test_few_pairs_are_compared_where_there_is_structure():
    """By time it would be noise: by the sketches' own bounds, at the end, for the last row chosen."""
    rows = DATA["smooth"](rng_of("structure")).astype(np.float32)
    found = coreset.greedy(rows, 300)
    sketch = coreset.Sketch.learn(rows).extend(lambda start, stop: rows[start:stop], len(rows))
    own = np.sqrt(((rows[:, None] - rows[found.indices[:-1]]) ** 2).sum(axis=2).min(axis=1)) / sketch.unit
    assert (sketch.bounds(rows[found.indices[-1]])[0] < own).mean() < 0.05
