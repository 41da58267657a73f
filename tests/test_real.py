"""Real pictures: the whole job on two public data sets. Bounds come from what the method must reach, with room for noise."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from spadework import Spade, evaluate, open_dataset

pytestmark = [pytest.mark.real, pytest.mark.slow]


def real_data(name: str) -> Path:
    """A folder of the real data, from SPADEWORK_DATA or beside the repository."""
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    root = Path(os.environ.get("SPADEWORK_DATA", beside))
    if not (root / name).is_dir():
        pytest.skip(f"no {name} in {root}; SPADEWORK_DATA names the folder of the real data sets")
    return root / name


def test_hazelnut():
    (category,) = open_dataset(real_data("hazelnut_reduced")).categories
    assert (len(category.train), len(category.test)) == (50, 10)
    model = Spade(calibration_images=20).fit([sample.path for sample in category.train])
    row = evaluate(model, category).row
    assert row["reasons"] == {}
    assert row["pixel_auroc"] > 0.98
    assert row["pro"] > 0.9
    assert row["image_auroc"] >= 0.8
    bad = next(sample for sample in category.test if sample.is_anomalous)
    found = model.predict(bad.path)
    mask = bad.read_mask(found[0].size)
    assert mask[np.unravel_index(np.argmax(found.score_map), mask.shape)]  # the peak lies in the defect


def test_magnetic_tile_of_many_sizes():
    (category,) = open_dataset(real_data("magnetic_tile")).categories
    assert (len(category.train), len(category.test)) == (240, 195)
    model = Spade(calibration_images=20, image_size=128, gallery_k=20).fit(
        [sample.path for sample in category.train[:80]]
    )
    few = [sample for sample in category.test if sample.kind in {"good", "blowhole"}][::4]
    found = model.predict([sample.path for sample in few])
    for prediction in found:
        assert prediction.score_map.shape == prediction.size
    assert len({prediction.size for prediction in found}) > 5
