"""The recipe of the embedded network, on tiny data: what a batch shows, what a stopped run makes, what is exported."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from backbone_training import data
from backbone_training.recipe import Recipe

torch = pytest.importorskip("torch", reason="training needs the extra torch: torch is not installed")
pytest.importorskip("onnxscript", reason="training needs the extra torch: onnxscript is not installed")
augmentation, changes, export, loop, network = (
    pytest.importorskip(f"backbone_training.{name}")
    for name in ("augmentation", "changes", "export", "loop", "network")
)

TOOLS = Path(__file__).parents[1] / "tools"
TINY = Recipe(widths=(8, 8, 16), depths=(1, 1, 1), canvases=6, epochs=2, pairs=2)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return data.Pictures(rng.integers(0, 256, (40, 64, 64, 3), np.uint8), np.arange(40) % 3)


def run(folder, recipe, pictures, **options):
    made = loop.Loop(recipe, pictures, pictures, folder, **options)
    made.run()
    return made


def weights(folder):
    return torch.load(folder / loop.CHECKPOINT, weights_only=True)


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, pictures):
    run(tmp_path / "whole", TINY, pictures)
    stopped = loop.Loop(TINY, pictures, pictures, tmp_path / "stopped")
    stopped.run(until=1)
    run(tmp_path / "stopped", TINY, pictures)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert whole["epoch"] == resumed["epoch"] == 2
    for part in ("model", "average"):
        for name, values in whole[part].items():
            assert torch.equal(values, resumed[part][name]), name
    other = run(tmp_path / "other", replace(TINY, seed=1), pictures)
    name = "pyramid.stem.0.weight"
    assert not torch.equal(other.model.state_dict()[name], whole["model"][name])


def test_a_run_is_refused_where_another_recipe_was_begun(tmp_path, pictures):
    loop.Loop(TINY, pictures, pictures, tmp_path).run(until=1)
    with pytest.raises(SystemExit, match="epochs"):
        loop.Loop(replace(TINY, epochs=5), pictures, pictures, tmp_path)


def test_the_log_has_a_line_an_epoch_and_no_line_twice(tmp_path, pictures):
    loop.Loop(TINY, pictures, pictures, tmp_path).run(until=1)
    with (tmp_path / loop.LOG).open("a") as log:
        log.write('{"epoch": 1, "step": 3}\n')  # what a run writes that is stopped within an epoch
    run(tmp_path, TINY, pictures)
    lines = [json.loads(line) for line in (tmp_path / loop.LOG).read_text().splitlines()]
    assert [line["epoch"] for line in lines if "top1" in line] == [1, 2]
    assert not any(line.get("step") == 3 for line in lines)


def test_a_mosaic_shows_its_pictures_row_by_row():
    cells = torch.arange(8.0)[:, None, None, None].expand(8, 3, 2, 2)
    made = augmentation.mosaic(cells)
    assert made.shape == (2, 3, 4, 4)
    assert made[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_labels_stay_with_their_pictures():
    recipe = replace(TINY, canvases=8, pairs=3, large=0.25)
    count = loop.pictures_a_step(recipe)
    shades = torch.linspace(10, 245, count)
    plain = shades[:, None, None, None].expand(-1, 64, 64, 3).round().to(torch.uint8)
    still = augmentation.Strength(light=0, contrast=0, tint=0, saturation=0, grey=0, blur=0, noise=0)
    batch = augmentation.make_batch(plain, torch.arange(count), recipe, torch.Generator().manual_seed(5), still)
    shown = (batch.canvases * torch.tensor(augmentation.STD)[:, None, None]) + torch.tensor(augmentation.MEAN)[
        :, None, None
    ]
    middles = torch.stack([shown[:, 0, y, x] for y in (32, 96) for x in (32, 96)], 1)[:5]  # the first views
    assert torch.allclose(middles * 255, shades[batch.labels[:5]], atol=1.5)
    assert batch.labels[5:].equal(batch.labels[:3])
    assert batch.single.sum() >= 1
    assert all(
        len(set(row.tolist())) == (1 if single else 4) for row, single in zip(batch.labels, batch.single, strict=True)
    )


def test_planted_changes_are_where_the_mask_says():
    canvases = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    changed, where = changes.plant(canvases, torch.Generator().manual_seed(1))
    far = (changed - canvases).abs().amax(1, keepdim=True)
    assert torch.equal(where, far > changes.VISIBLE)
    assert 0 < where.float().mean() < 0.3
    again, _ = changes.plant(canvases, torch.Generator().manual_seed(1))
    assert torch.equal(changed, again)


def test_a_cell_lies_where_its_pixels_are():
    """A picture upside down gives the levels upside down: no window is off the middle of its cell."""
    torch.manual_seed(0)
    pyramid = network.Pyramid((8, 8, 16), (1, 1, 1), calm=False).eval()
    for module in pyramid.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = module.weight.data + module.weight.data.flip((2, 3))  # the same from both sides
    picture = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for level, turned in zip(pyramid(picture), pyramid(picture.flip((2, 3))), strict=True):
            assert torch.allclose(level.flip((2, 3)), turned, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["run", "random", "filters"])
def test_an_export_computes_what_the_framework_does(tmp_path, pictures, source):
    from spadework import open_backbone

    if source == "run":
        run(tmp_path / "run", TINY, pictures)
        source = tmp_path / "run"
    made = export.load(source)
    export.write(made, tmp_path / "net.onnx", name="net")
    backbone = open_backbone(str(tmp_path / "net.onnx"))
    assert backbone.strides == (4, 8, 16)
    assert backbone.notes == ()
    levels, _ = backbone(np.zeros((1, 64, 96, 3), np.uint8))
    assert [level.shape[2:] for level in levels] == [(16, 24), (8, 12), (4, 6)]


def test_the_command_says_what_is_missing(tmp_path):
    def command(*words):
        return subprocess.run(
            [sys.executable, TOOLS / "train_backbone.py", *words], capture_output=True, text=True, check=False
        )

    absent = command("train", tmp_path, "--out", tmp_path / "run")
    assert absent.returncode == 1
    assert "train.npz: not found" in absent.stderr
    unknown = command("train", tmp_path, "--out", tmp_path / "run", "--set", "speed=3")
    assert "the recipe has no 'speed'" in unknown.stderr


def test_pictures_are_decoded_once(tmp_path):
    shown = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    files = [cv2.imencode(".png", picture[..., ::-1])[1].ravel() for picture in shown]
    offsets = np.cumsum([0, *map(len, files)])
    np.savez(tmp_path / "val.npz", webp=np.concatenate(files), offsets=offsets, labels=np.array([2, 0, 1], np.int16))
    read = data.load(tmp_path, "val", tmp_path / "cache")
    assert np.array_equal(read.pictures, shown)
    assert read.classes == 3
    assert np.array_equal(data.load(tmp_path, "val", tmp_path / "cache").pictures, shown)
