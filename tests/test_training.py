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
augmentation, changes, export, loop, losses, network, statistics, vector = (
    pytest.importorskip(f"backbone_training.{name}")
    for name in ("augmentation", "changes", "export", "loop", "losses", "network", "statistics", "vector")
)

pytestmark = pytest.mark.slow  # training and exporting: its packages alone take seconds to import

TOOLS = Path(__file__).parents[1] / "tools"
TINY = Recipe(widths=(8, 8, 16), depths=(1, 1, 1), canvases=6, epochs=2, pairs=2, search=1.0, rate=0.05)


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


def pair_batch(changed):
    count = 2 * len(changed)
    quarters = torch.zeros(count, 4, dtype=torch.int64)
    return augmentation.Batch(torch.zeros(count, 3, 1, 1), quarters, torch.zeros(count, dtype=torch.bool), changed)


def test_cells_near_a_change_are_left_open():
    changed = torch.zeros(1, 1, 128, 128, dtype=torch.bool)
    changed[0, 0, 40:44, 40:44] = True  # a quarter of the cell (5, 5) of 8 pixels
    other, same = losses._labels(changed, torch.Size((16, 16)))
    assert other.nonzero().tolist() == [[0, 5, 5]]
    assert not same[0, 4:7, 4:7].any()
    assert same.sum() == 256 - 9


def test_the_search_loss_wants_changed_places_far_and_the_others_near():
    recipe = replace(TINY, canvases=2, pairs=1, search=1.0)
    changed = torch.zeros(1, 1, 128, 128, dtype=torch.bool)
    changed[0, 0, 40:48, 40:48] = True
    objective = losses.Objective(recipe, 3)
    rng = torch.Generator().manual_seed(0)
    first = [torch.randn(1, c, 128 // s, 128 // s, generator=rng) for c, s in ((8, 4), (8, 8), (16, 16))]

    def loss(second):
        maps = [torch.cat(each) for each in zip(first, second, strict=True)]
        return objective._search_loss(maps, pair_batch(changed)).item()

    shown = [level.clone() for level in first]
    shown[1][0, :, 5, 5] += 30
    wrong = [level.clone() for level in first]
    wrong[1][0, :, 12, 12] += 30
    assert loss(shown) < loss(first) < loss(wrong)
    assert loss([shown[0].roll(4, 3), shown[1].roll(2, 3), shown[2].roll(1, 3)]) > loss(
        shown
    )  # the change is elsewhere now


def test_level_statistics_are_those_of_all_places(pictures):
    torch.manual_seed(0)
    pyramid = network.Pyramid((8, 8, 16), (1, 1, 1), calm=False).eval()
    found = statistics.measure(pyramid, pictures.pictures)
    shown = torch.from_numpy(pictures.pictures).permute(0, 3, 1, 2).float() / 255
    large = torch.nn.functional.interpolate(shown, scale_factor=2, mode="bilinear")
    with torch.no_grad():
        levels = pyramid(augmentation.normalise(large))
    for index in (1, 2):
        assert found["spread"][index] == pytest.approx(
            float(levels[index].var((0, 2, 3), correction=0).sum()), rel=1e-4
        )
    assert torch.allclose(found["mean"], levels[1].mean((0, 2, 3)), atol=1e-4)


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (32, 32), (33, 20)])
def test_the_global_vector_tells_places_apart_at_any_size(size):
    made = vector.Vector(torch.zeros(16), torch.eye(16))
    level = torch.randn(1, 16, *size, generator=torch.Generator().manual_seed(0))
    found = made(level)
    assert found.shape == (1, vector.FIELDS**2 * vector.AXES)
    assert torch.isfinite(found).all()
    assert torch.allclose(
        made(torch.ones(1, 16, *size)).view(vector.AXES, -1).std(1), torch.zeros(vector.AXES), atol=1e-5
    )
    if size == (32, 32):
        fields = found.view(vector.AXES, 8, 8)
        turned = made(level.flip((2, 3))).view(vector.AXES, 8, 8)
        assert torch.allclose(fields.flip((1, 2)), turned, atol=1e-5)


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


@pytest.mark.slow
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
