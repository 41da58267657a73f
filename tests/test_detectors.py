"""The contract of detectors, crossed with the registry; and what only SPADE has."""

from __future__ import annotations

import gc
import inspect
import json
import os
import threading
import time
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from builders import (
    TINY,
    answers,
    defective_picture,
    leftovers,
    normal_picture,
    normal_pictures,
    tiny_model,
    write_pictures,
)

from spadework import storage
from spadework.backbones import PAPER
from spadework.backbones.onnx import PASSES
from spadework.detectors import DETECTORS, get_detector, load_detector
from spadework.detectors.base import Judgement
from spadework.detectors.reading import in_background, work_ahead
from spadework.detectors.spade import Spade
from spadework.detectors.trained import TrainedDetector
from spadework.errors import ImageError, InputError, ModelError, SpadeworkError
from spadework.prediction import Failure, Prediction, Predictions
from spadework.storage import HEADER

# Those that train learn for less than a second each, far below their `quick()`; two of six pictures are held out.
TRAINED = {"image_size": 32, "batch_size": 4, "held_out": 0.34, "learning_rate": 1e-3}
AUTOENCODER = {**TRAINED, "width": 4, "latent": 8, "examples": 4, "learning_rate": 0.01, "rotation": 0, "shift": 0}
SETTINGS = {
    "spade": TINY,
    # Six: with fewer it depends on the pictures' order by which ones the scales are weighed.
    "spade-scales": {"image_size": 64, "gallery_k": 5, "calibration_images": 6, "smoothing": 4.0},
    "patchcore": {"image_size": 64, "calibration_images": 5, "coreset": 0.5},
    "padim": {"image_size": 64, "calibration_images": 5},
    "nearest-image": {"image_size": 64, "calibration_images": 5},
    "texture-inspection": {
        "image_size": 64,
        "calibration_images": 5,
        "training_patches": 500,
        "components": 3,
        "levels": 2,
    },
    "variation-model": {"image_size": 64, "calibration_images": 5},
    "cnn-dictionary": {  # as few patches, each a pass of the network, as tell a defect well: 64 a picture
        "image_size": 48,
        "calibration_images": 5,
        "patch": 8,
        "stride": 6,
        "smoothing": 3.0,
        "training_patches": 120,
    },
    "ae-l2": {**AUTOENCODER, "epochs": 20, "image_score": "map"},
    "ae-ssim": {
        **AUTOENCODER,
        "epochs": 40,
        "smoothing": 3,
    },  # windows of 11 pixels: the rim of a defect stands out most
    "anogan": {
        **TRAINED,
        "width": 4,
        "latent": 8,
        "examples": 8,
        "rotation": 0,
        "shift": 0,
        "epochs": 12,
        "learning_rate": 0.005,
        "search_steps": 20,
        "search_rate": 0.1,
        "image_score": "map",
    },
    "ganomaly": {
        **TRAINED,
        "width": 4,
        "latent": 8,
        "epochs": 25,
        "learning_rate": 0.005,
        "code_weight": 20,
        "adversarial_weight": 0.1,
    },
    "geom": {**TRAINED, "image_size": 16, "widen": 1, "epochs": 1, "batch_size": 32},
    "itae": {**TRAINED, "width": 4, "epochs": 40, "learning_rate": 0.2, "image_score": "map"},
    "cavga-ru": {
        **TRAINED,
        "image_size": 64,
        "width": 4,
        "latent": 8,
        "stages": 2,
        "epochs": 8,
        "attention_weight": 1.0,
    },
}  # small ones, for those that are slow with their own

NORMAL = normal_pictures(6)
FRESH = normal_pictures(3, start=50)
DEFECTIVE, MASK = defective_picture()
PALE = defective_picture(colour=(250, 250, 250))[0]
COLOUR_BLIND = {"ae-ssim"}  # the other defect is as bright as what is around it
# Nothing in its training makes attention lower at a defect than elsewhere; what it reaches on rendered parts stands in docs/detectors.md.
PROMISES_NOTHING = {"cavga-ru"}


# Those that take seconds to fit, or whose contract does in all; the rest keep the suite that runs while one works short.
SLOW = {
    "cnn-dictionary",
    "texture-inspection",
    "variation-model",
    *(key for key in DETECTORS if issubclass(get_detector(key), TrainedDetector)),
}


@pytest.fixture(
    params=[pytest.param(key, marks=[pytest.mark.slow] if key in SLOW else []) for key in sorted(DETECTORS)]
)
def name(request):
    return request.param


@pytest.fixture(autouse=True)
def _one_thread(request, monkeypatch):
    """For those that train: their answers are the same to the byte for the same number of threads, and alone one waits for no other."""
    if "name" in request.fixturenames and issubclass(get_detector(request.getfixturevalue("name")), TrainedDetector):
        monkeypatch.setenv("SPADEWORK_THREADS", "1")


@pytest.fixture(scope="module")
def models():
    """One fitted model of each, made when first asked for; only to be read."""
    return {}


@pytest.fixture
def fitted(name, models):
    if name not in models:
        models[name] = make(name).fit(NORMAL)
    return models[name]


def make(name, **changes):
    if name in DETECTORS and issubclass(get_detector(name), TrainedDetector):
        pytest.importorskip("torch", reason="training needs the extra torch: torch is not installed")
    return get_detector(name)(**{**SETTINGS.get(name, {}), **changes})


def another_camera(name, size):
    """The same defective part in a picture of another size, and its mask."""
    tall_wide = size[::-1]
    picture = cv2.resize(defective(name), tall_wide, interpolation=cv2.INTER_AREA)
    return picture, cv2.resize(MASK.astype(np.uint8), tall_wide, interpolation=cv2.INTER_NEAREST) > 0


def defective(name):
    return PALE if name in COLOUR_BLIND else DEFECTIVE


def told(model, pictures=None):
    """Scores and maps to the byte."""
    found = model.predict([*FRESH, DEFECTIVE] if pictures is None else pictures)
    return [(p.score, b"" if p.score_map is None else p.score_map.tobytes()) for p in found]


# ---------------------------------------------------------------- the constructor and its settings


def test_the_constructor_only_stores(name):
    model = make(name)
    assert set(vars(model)) == set(model.setting_names())
    assert not [key for key in vars(model) if key.endswith("_")]
    signature = inspect.signature(type(model).__init__).parameters
    assert not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in signature.values())  # no typo is swallowed
    strange = object()
    for setting in model.setting_names():
        assert getattr(make(name, **{setting: strange}), setting) is strange  # nothing is checked or changed yet


def test_settings_make_the_same_detector_again(name):
    model = make(name)
    assert type(model)(**model.settings()).settings() == model.settings()
    json.dumps(model.settings())
    assert repr(model).startswith(type(model).__name__)


def test_names_and_texts_of_the_registry(name):
    found = get_detector(name)
    assert found.name == name
    assert found.needs in {"pyramid", "pixels"}
    assert found.summary
    assert found.source


def test_an_unknown_detector_is_refused():
    with pytest.raises(InputError, match="detector must be one of .*spade.*, not 'magic'"):
        get_detector("magic")


@pytest.mark.parametrize(
    "use", ["predict", "save", "threshold_", "n_normal_", "model_hash", "verify", "set_max_false_alarms"]
)
def test_before_fit_everything_says_so(name, use, tmp_path):
    model = make(name)
    arguments = {"predict": (FRESH,), "save": (tmp_path / "m",), "set_max_false_alarms": (0.1,)}.get(use, ())
    with pytest.raises(ModelError, match=r"is not fitted: call fit\(normal_images\) or load\(path\) first"):
        found = getattr(model, use)
        found(*arguments)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- fitting


def test_fit_returns_self_and_learns(name):
    model = make(name)
    assert model.fit(NORMAL) is model
    assert model.n_normal_ == 6
    assert model.failures_ == ()
    assert model.fit_seconds_ > 0


def test_a_second_fit_is_a_fresh_fit(name, fitted):
    model = make(name).fit([DEFECTIVE, *FRESH])
    assert told(model.fit(NORMAL)) == told(fitted)
    assert model.threshold_ == fitted.threshold_


def test_equal_seeds_give_equal_models(name, fitted):
    again = make(name).fit(NORMAL)
    assert told(again) == told(fitted)
    assert again.model_hash() == fitted.model_hash()
    np.testing.assert_array_equal(again.normal_scores_, fitted.normal_scores_)


def test_the_order_of_normal_pictures_does_not_matter(name, fitted):
    again = make(name).fit(NORMAL[::-1])
    np.testing.assert_allclose([score for score, _ in told(again)], [score for score, _ in told(fitted)], rtol=1e-6)
    assert again.threshold_.value == pytest.approx(fitted.threshold_.value, rel=0.5)  # other images may be left out


def test_paths_and_arrays_give_the_same(name, fitted, tmp_path):
    write_pictures(tmp_path / "good", NORMAL)
    model = make(name).fit(tmp_path / "good")
    assert told(model) == told(fitted)
    assert told(model, tmp_path / "good") == told(fitted, NORMAL)
    assert [Path(p.path).name for p in model.predict(tmp_path / "good")] == [f"{i:03d}.png" for i in range(6)]


@pytest.mark.parametrize(
    "interrupted_at", [pytest.param(1, marks=pytest.mark.slow), 4, pytest.param(7, marks=pytest.mark.slow)]
)
def test_an_interrupted_fit_leaves_nothing_and_changes_nothing(name, temporary, interrupted_at):
    target = temporary.parent / "part.spade"
    model = make(name).fit(NORMAL, path=target)
    before, threshold, files = told(model), model.threshold_, sorted(p.name for p in target.iterdir())

    count_of_places = len(list(temporary.iterdir()))
    for path in (target, temporary.parent / "other.spade", None):
        steps = []

        def interrupt(*step, steps=steps):
            steps.append(step)
            if len(steps) == interrupted_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            model.fit(FRESH * 2, path=path, progress=interrupt)
        assert told(model) == before  # what was learnt before still is
        assert model.threshold_ == threshold
        assert told(load_detector(target)) == before
        assert sorted(p.name for p in target.iterdir() if p.name != "lock") == [f for f in files if f != "lock"]
        assert leftovers(temporary.parent) == []
        assert not (temporary.parent / "other.spade").exists()
        assert len(list(temporary.iterdir())) == count_of_places


def test_progress_is_told_to_the_end(name):
    steps = []
    model = make(name).fit(NORMAL, progress=lambda *step: steps.append(step))
    assert [step[1:] for step in steps if step[0] == "reading normal images"] == [(i, 6) for i in range(1, 7)]
    steps.clear()
    model.predict(FRESH, progress=lambda *step: steps.append(step))
    assert steps == [("inspecting", i, 3) for i in range(1, 4)]


# ---------------------------------------------------------------- predicting


def test_one_return_type(name, fitted, tmp_path):
    path = write_pictures(tmp_path, [DEFECTIVE])[0]
    for images in (DEFECTIVE, [DEFECTIVE], path, str(path), [path], tmp_path, DEFECTIVE[None]):
        found = fitted.predict(images)
        assert isinstance(found, Predictions)
        assert isinstance(found[0], Prediction)
        assert found.score == found[0].score == found.scores[0]
    several = fitted.predict(FRESH)
    assert (len(several), len(several[:2]), type(several[:2])) == (3, 2, Predictions)
    with pytest.raises(InputError, match="there are 3 predictions, not one"):
        _ = several.score


def test_a_batch_of_one_equals_a_batch_of_many(name, fitted):
    pictures = [*FRESH, DEFECTIVE, *NORMAL]
    assert [told(fitted, [picture])[0] for picture in pictures] == told(fitted, pictures)


def test_the_order_of_a_batch_does_not_matter(name, fitted):
    pictures = [*FRESH, DEFECTIVE]
    assert told(fitted, pictures[::-1])[::-1] == told(fitted, pictures)


def test_predicting_changes_nothing(name, fitted):
    before = fitted.model_hash(), set(vars(fitted)), fitted.threshold_
    first = told(fitted)
    assert told(fitted) == first
    assert (fitted.model_hash(), set(vars(fitted)), fitted.threshold_) == before


def test_inputs_stay_as_they_were_and_may_be_read_only(name, fitted):
    gray = DEFECTIVE[..., 0] / 255.0
    pictures = [*NORMAL, *FRESH, gray]
    for picture in pictures:
        picture.setflags(write=False)
    copies = [picture.copy() for picture in pictures]
    make(name).fit(pictures)
    assert told(fitted, pictures) == told(fitted, copies)
    for picture, copy in zip(pictures, copies, strict=True):
        np.testing.assert_array_equal(picture, copy)
    assert told(fitted, [DEFECTIVE[::-1]]) == told(fitted, [DEFECTIVE[::-1].copy()])  # any memory layout


def test_kinds_of_arrays_give_the_same_answer(name, fitted):
    opaque = np.dstack([DEFECTIVE, np.full(DEFECTIVE.shape[:2], 255, np.uint8)])
    kinds = [
        DEFECTIVE,
        opaque,
        DEFECTIVE / 255.0,
        DEFECTIVE.astype(np.float32) / 255,
        DEFECTIVE.astype(np.uint16) * 257,
    ]
    found = told(fitted, kinds)
    assert found == [found[0]] * len(kinds)


@pytest.mark.parametrize(
    "array", [np.full((8, 8), np.nan), np.zeros((0, 8, 3), np.uint8), np.zeros((2, 2, 7), np.uint8)]
)
def test_bad_arrays_are_refused_by_name(name, fitted, array):
    with pytest.raises(ImageError, match="array 1"):
        fitted.predict([FRESH[0], array])
    with pytest.raises(ImageError, match="array 0"):
        make(name).fit([array])


def test_bad_files_do_not_end_a_batch(name, fitted, tmp_path):
    good = write_pictures(tmp_path, FRESH[:2])
    (tmp_path / "000-bad.png").write_text("no picture")
    items = list(fitted.predict_each(tmp_path))
    assert [type(item) for item in items] == [Failure, Prediction, Prediction]  # "000-bad" sorts before "000."
    assert (Path(items[0].path).name, type(items[0].error)) == ("000-bad.png", ImageError)
    assert [item.score for item in items[1:]] == [score for score, _ in told(fitted, good)]


def test_a_defect_scores_higher_and_the_map_peaks_in_it(name, fitted):
    if name in PROMISES_NOTHING:
        pytest.skip("the method does not promise it")
    found = fitted.predict([*FRESH, defective(name)])
    normal = [p.score for p in found[:3]]
    if fitted.localises:
        assert found[3].score > 2 * max(normal)
    else:  # of codes or likelihoods: their zero means nothing, how far normal pictures lie apart does
        assert found[3].score > max(normal) + 2 * (max(normal) - min(normal))
    assert found[3].is_anomalous
    if not fitted.localises:
        return
    assert np.unravel_index(found[3].score_map.argmax(), MASK.shape) in set(zip(*np.nonzero(MASK), strict=True))
    assert MASK[found[3].regions[0].peak]
    inside, outside = found[3].score_map[MASK].mean(), found[3].score_map[~MASK].mean()
    assert inside > 3 * outside


@pytest.mark.parametrize("size", [(64, 64), (50, 90), (200, 130), (130, 130), (16, 16)])
def test_maps_have_the_size_of_the_picture(name, fitted, size):
    picture, mask = another_camera(name, size)  # not stripes of another width: those would be another part
    found = fitted.predict(picture).only
    assert found.size == size
    if fitted.localises:
        assert (found.score_map.shape, found.score_map.dtype) == (size, np.float32)
        assert np.isfinite(found.score_map).all()
        if name in PROMISES_NOTHING or (fitted.needs == "pyramid" and size[0] != size[1]):
            return  # who keeps a picture's aspect sees another part where the pixels were not square
        peak = np.unravel_index(np.nanargmax(found.score_map), size)
        rows, columns = np.nonzero(mask)
        assert rows.min() - 2 <= peak[0] <= rows.max() + 2
        assert columns.min() - 2 <= peak[1] <= columns.max() + 2


def test_answers_are_plain_json(name, fitted):
    found = json.loads(json.dumps(fitted.predict(defective(name)).only.to_json(), allow_nan=False))
    assert found["verdict"] in ({"anomalous", "normal"} if name in PROMISES_NOTHING else {"anomalous"})
    assert found["size"] == [64, 64]


@pytest.mark.slow
def test_few_decoded_pictures_are_held_at_a_time(name, fitted):
    """40 pictures of 3 MB each: the generator must not gather them."""

    def pictures_on_disk(folder):
        return write_pictures(folder, [np.zeros((1000, 1000, 3), np.uint8)]) * 40

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        paths = pictures_on_disk(Path(folder))
        tracemalloc.start()
        for _ in fitted.predict_each(paths):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 * 3_000_000 < 40 * 3_000_000


def test_a_loop_left_early_leaves_no_threads(name, fitted):
    for _ in fitted.predict_each(FRESH * 5):
        break
    gc.collect()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("spadework-")]


# ---------------------------------------------------------------- saving


def test_saved_and_loaded_is_the_same(name, fitted, tmp_path):
    path = fitted.save(tmp_path / "m.spade")
    for again in (type(fitted).load(path), load_detector(path), load_detector(str(path))):
        assert type(again) is type(fitted)
        assert told(again) == told(fitted)
        assert (again.threshold_, again.model_hash()) == (fitted.threshold_, fitted.model_hash())
        again.verify()
    moved = path.rename(tmp_path / "moved.spade")
    assert told(load_detector(moved)) == told(fitted)


def test_a_network_is_refused_where_none_is_used(name, fitted, tmp_path):
    path = fitted.save(tmp_path / "m.spade")
    if "backbone" in fitted.setting_names():
        assert told(load_detector(path, backbone="embedded")) == told(fitted)
        return
    for given in ({"backbone": "embedded"}, {"weights": "w.pth"}):
        with pytest.raises(
            InputError, match=rf"{name} uses no network, so it takes no {next(iter(given))}: leave it out"
        ):
            load_detector(path, **given)


def test_fitting_onto_a_path_is_fitting_and_saving(name, fitted, tmp_path):
    model = make(name).fit(NORMAL, path=tmp_path / "deep" / "m.spade")
    assert told(model) == told(fitted) == told(load_detector(tmp_path / "deep" / "m.spade"))
    assert leftovers(tmp_path) == []
    make(name).fit(FRESH, path=tmp_path / "deep" / "m.spade")
    assert load_detector(tmp_path / "deep" / "m.spade").n_normal_ == 3


def test_no_pickle_in_a_model(name, fitted, tmp_path):
    for file in fitted.save(tmp_path / "m.spade").iterdir():
        assert file.suffix in {".json", ".bin", ""}
        assert not file.read_bytes().startswith(b"\x80\x04")


def test_a_model_of_another_network_is_refused(name, fitted, tmp_path):
    if fitted.needs != "pyramid":
        pytest.skip("works on pixels")
    path = fitted.save(tmp_path / "m.spade")
    header = json.loads((path / HEADER).read_text())
    header["backbone"]["hash"] = "0" * 64
    header["checksum"] = storage._checksum(header)
    (path / HEADER).write_text(json.dumps(header))
    with pytest.raises(
        ModelError, match=r"m\.spade: was made with backbone embedded \(000000000000\), but embedded is now"
    ):
        load_detector(path).predict(FRESH)
    with pytest.raises(ModelError, match="was made with backbone"):
        getattr(load_detector(path), "append", load_detector(path).predict)(FRESH)  # not all can append
    assert load_detector(path).n_normal_ == 6


# ---------------------------------------------------------------- SPADE alone


def test_the_paper_s_settings_to_the_letter():
    paper = Spade.paper()
    assert paper.settings() == {
        "backbone": "timm:wide_resnet50_2.tv_in1k",  # Wide-ResNet-50-2, torchvision's V1 weights
        "weights": None,
        "image_size": 256,
        "crop": 224,
        "levels": None,  # the ends of the first three stages: 56, 28, 14
        "level_weights": None,
        "grid_stride": 4,
        "pooling": 1,
        "pyramid": "concatenate",
        "upsampling": "bilinear",
        "image_k": 50,
        "gallery_k": 50,
        "search_radius": None,
        "kappa": 1,
        "image_score": "nearest-images",
        "smoothing": 4.0,
        "wide_smoothing": None,
        "max_false_alarms": 0.01,
        "calibration_images": 100,
        "storage": "float32",
        "kernel": "auto",
        "threads": None,
        "seed": 0,
    }
    assert paper.backbone == PAPER
    view = paper._view()
    assert (view.resize, view.size) == ((256,), (224, 224))
    assert view.resized((500, 1000)) == (256, 512)  # the shorter side, aspect kept
    assert Spade.paper(image_k=5).image_k == 5
    with pytest.raises(TypeError):
        Spade.paper(image_kk=5)


def test_the_image_score_is_the_highest_of_the_smoothed_map(model):
    found = model.predict(DEFECTIVE).only
    assert found.score == found.view_map.max()
    np.testing.assert_array_equal(found.view_map, found.score_map)  # 64 x 64 pictures in a view of 64 x 64


def test_the_image_score_of_the_paper_is_the_mean_of_the_nearest_images():
    model = tiny_model(6, image_score="nearest-images", image_k=3)
    found = model.predict(DEFECTIVE).only
    _, vector = model.backbone_(DEFECTIVE[None])
    distances = np.sort(((model.gallery_.globals.astype(float) - vector[0]) ** 2).sum(1))
    assert found.score == pytest.approx(distances[:3].mean(), rel=1e-9)
    assert [d for _, d in found.nearest_images] == pytest.approx(distances[:5])
    assert len(model.normal_scores_) == 5


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_the_grid_has_the_stride_asked_for(stride):
    found = tiny_model(2, grid_stride=stride).predict(DEFECTIVE).only
    assert found.correspondence.distances.shape == (64 // stride, 64 // stride)


def test_levels_are_counted_from_the_finest():
    channels = {levels: tiny_model(2, levels=levels).gallery_.geometry.channels for levels in ((1,), (2, 3), (1, 2, 3))}
    assert channels == {(1,): 64, (2, 3): 384, (1, 2, 3): 448}


def test_gallery_k_limits_the_search_to_the_nearest_images():
    model = tiny_model(6, gallery_k=2)
    found = model.predict(DEFECTIVE).only
    names = [entry.name for entry in model.gallery_.entries]
    nearest = {names.index(name) for name, _ in found.nearest_images[:2]}
    assert set(found.correspondence.images.ravel().tolist()) <= nearest


def test_kappa_beyond_the_gallery_is_refused():
    with pytest.raises(InputError, match="kappa is 65, but only 64 descriptors are searched"):
        tiny_model(2, kappa=65)  # leaving one of two images out, 64 positions are left


def test_float16_storage_halves_the_room_and_hardly_moves_scores():
    full, half = tiny_model(4), tiny_model(4, storage="float16")
    assert half.gallery_.folder.read("pyramids").nbytes * 2 == full.gallery_.folder.read("pyramids").nbytes
    np.testing.assert_allclose(
        half.predict([*FRESH, DEFECTIVE]).scores, full.predict([*FRESH, DEFECTIVE]).scores, rtol=1e-2
    )


@pytest.mark.parametrize("kernel", ["reference", "blocked"])
def test_kernels_give_the_same_answer(model, kernel):
    other = tiny_model(6, kernel=kernel)
    for one, two in zip(other.predict([*FRESH, DEFECTIVE]), model.predict([*FRESH, DEFECTIVE]), strict=True):
        assert one.score == pytest.approx(two.score, rel=1e-5)
        np.testing.assert_allclose(one.score_map, two.score_map, rtol=1e-5, atol=1e-9)


def test_an_explanation_has_the_stated_distance_and_place(model):
    found = model.predict(DEFECTIVE).only
    explanation = model.explain(found, *found.regions[0].peak)
    gy, gx = (v // 8 for v in found.regions[0].peak)
    assert explanation.distance == found.correspondence.nearest[gy, gx]
    assert explanation.image == found.correspondence.images[gy, gx]
    assert explanation.name == f"array {explanation.image}"
    place = int(found.correspondence.positions[gy, gx])
    own = model._pyramid(DEFECTIVE)
    from spadework.pyramid import descriptors

    query = descriptors(own.levels)[gy * 8 + gx].astype(float)
    match = model.gallery_.descriptors([explanation.image], upsampling="bilinear")[place].astype(float)
    assert explanation.distance == pytest.approx(((query - match) ** 2).sum(), rel=1e-5)
    y0, x0, y1, x1 = explanation.normal_box
    centre = ((place // 8) * 8 + 4, (place % 8) * 8 + 4)
    assert y0 <= centre[0] <= y1
    assert x0 <= centre[1] <= x1
    patch = NORMAL[explanation.image][y0:y1, x0:x1]
    assert explanation.normal_patch.shape == patch.shape
    assert np.abs(explanation.normal_patch.astype(int) - patch).mean() < 8  # a JPEG of it
    json.dumps(explanation.to_json())


def test_an_image_explained_by_itself_shows_the_same_place(model):
    found = model.predict(NORMAL[2]).only
    assert found.score == 0
    for y, x in ((0, 0), (63, 63), (10, 50)):
        explanation = model.explain(found, y, x, patch=16)
        assert (explanation.image, explanation.box) == (2, explanation.normal_box)


def test_places_outside_are_refused(model):
    found = model.predict(DEFECTIVE)
    for y, x in ((-1, 0), (0, 64), (64, 0)):
        with pytest.raises(InputError, match="lies outside the picture of 64 x 64"):
            model.explain(found, y, x)
    cropped = tiny_model(2, image_size=96, crop=64)
    with pytest.raises(InputError, match="was cropped away"):
        cropped.explain(cropped.predict(DEFECTIVE), 0, 0)
    assert cropped.explain(cropped.predict(DEFECTIVE), 32, 32).distance >= 0


def test_a_cropped_model_says_nothing_of_what_it_did_not_see():
    model = tiny_model(3, image_size=96, crop=64)
    found = model.predict(defective_picture(size=(120, 200))[0]).only
    assert found.score_map.shape == (120, 200)
    assert np.isnan(found.score_map[:, 0]).all()
    assert np.isfinite(found.score_map[60, 100])
    assert np.isfinite(found.score)


def test_a_changed_setting_is_taken_up_by_the_next_fit():
    model = tiny_model(3)
    model.smoothing, model.image_size = 0.0, 96
    assert told(model.fit(NORMAL)) == told(Spade(**{**TINY, "smoothing": 0.0, "image_size": 96}).fit(NORMAL))
    model.backbone = "nonsense"
    before = model.predict(FRESH).scores
    with pytest.raises(Exception, match="'nonsense' is not a backbone"):
        model.fit(NORMAL)
    np.testing.assert_array_equal(model.predict(FRESH).scores, before)  # still the model it was


def test_another_image_size_after_fit_is_refused_not_answered_wrongly():
    model = tiny_model(3)
    model.image_size = 96
    with pytest.raises(InputError, match="level maps have shapes"):
        model.predict(FRESH)


def test_threads_change_nothing(model):
    assert answers(tiny_model(6, threads=1)) == answers(model)


@pytest.mark.parametrize(("threads", "passes"), [(2, PASSES), (1, 1)])
def test_several_forward_passes_run_at_a_time_but_not_where_one_thread_is_asked_for(threads, passes, monkeypatch):
    model = tiny_model(threads=threads)
    together, most, real, lock = 0, 0, Spade._pyramid, threading.Lock()

    def pyramid(self, view):
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.05)  # long enough for another to begin
        try:
            return real(self, view)
        finally:
            with lock:
                together -= 1

    monkeypatch.setattr(Spade, "_pyramid", pyramid)
    model.predict(normal_pictures(6, start=50))
    assert most == passes


def test_predictions_hold_their_pictures_only_when_asked_to(model):
    assert model.predict(FRESH)[0].image is None
    kept = list(model.predict_each(FRESH, keep_images=True))
    assert all(found.image.tobytes() == picture.tobytes() for found, picture in zip(kept, FRESH, strict=True))


def test_work_ahead_keeps_the_order_and_begins_nothing_that_nobody_waits_for():
    begun = []

    def work(item):
        begun.append(item)
        time.sleep(0.02 if item % 2 else 0.0)
        if item == 7:
            raise ValueError("seven")
        return item

    found = work_ahead(range(100), work, threads=2)
    assert [next(found) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="seven"):
        next(found)
    assert max(begun) <= 9


def test_in_background_gives_an_error_in_its_place():
    def items():
        yield from (1, 2)
        raise ValueError("third")

    found = in_background(items())
    assert (next(found), next(found)) == (1, 2)
    with pytest.raises(ValueError, match="third"):
        next(found)
    assert list(in_background([])) == []


def test_a_judgement_without_anything_is_an_error(model):
    with pytest.raises(ModelError, match="gave neither a map nor a score"):
        model._scores(Judgement(None))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_inspections(model):
    model.predict(FRESH)
    gc.collect()
    open_files = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(5):
        model.predict(normal_picture(7))
    gc.collect()
    if open_files:
        assert len(os.listdir("/proc/self/fd")) <= open_files + 1


def test_a_picture_counts_once_however_often_it_comes(tmp_path):
    paths = write_pictures(tmp_path / "good", NORMAL)
    copies = write_pictures(tmp_path / "again", NORMAL[:2])
    model = Spade(**TINY).fit([*paths, *copies])
    assert model.n_normal_ == len(NORMAL)
    assert model.repeated_ == tuple(map(str, copies))
    assert told(model) == told(Spade(**TINY).fit(paths))
    assert model.threshold_.value > 0  # a copy left in would be at distance 0 from its own
    model.append([*copies, normal_picture(50)])
    assert (model.n_normal_, model.repeated_) == (len(NORMAL) + 1, tuple(map(str, copies)))
    assert Spade(**TINY).fit([NORMAL[0], NORMAL[0]]).threshold_.value is None  # one picture has no other


@pytest.mark.parametrize(
    "tree", ["train/good test/good test/crack", "good crack", "train/ok test/ok", "part/train/good part/test/good"]
)
def test_a_whole_data_set_is_not_learnt_as_normal(tree, tmp_path):
    for number, folder in enumerate(tree.split()):
        write_pictures(tmp_path / "set" / folder, normal_pictures(2, start=10 * number))
    for learn in (Spade(**TINY).fit, tiny_model(3).append):
        with pytest.raises(InputError, match="laid out as a data set"):
            learn(tmp_path / "set")
        with pytest.raises(InputError, match="laid out as a data set"):
            learn([tmp_path / "set"])


def test_folders_of_folders_of_normal_pictures_are_learnt(tmp_path):
    write_pictures(tmp_path / "alone" / "good", normal_pictures(2))
    write_pictures(tmp_path / "days" / "monday", normal_pictures(2, start=2))
    write_pictures(tmp_path / "days" / "tuesday", normal_pictures(2, start=4))
    assert Spade(**TINY).fit([tmp_path / "alone", tmp_path / "days"]).n_normal_ == 6


def test_features_that_are_no_numbers_are_refused_by_name(model, monkeypatch, tmp_path):
    paths = write_pictures(tmp_path, FRESH)
    sick = tiny_model(3)

    def pyramid(view, healthy=sick._pyramid):
        found = healthy(view)
        found.levels[0][0, 0, 0] = np.nan
        return found

    monkeypatch.setattr(sick, "_pyramid", pyramid)
    with pytest.raises(ImageError, match=r"000\.png: the network's features of it are NaN"):
        sick.predict(paths)
    with pytest.raises(ImageError, match="NaN"):
        sick.append(paths)
    assert sick.n_normal_ == 3


def test_answers_hash_and_files_follow_settings_changed_after_fit(tmp_path):
    model = tiny_model(4)
    before = model.model_hash()
    model.smoothing = 0.0
    assert model.model_hash() != before
    loaded = load_detector(model.save(tmp_path / "a.spade"))
    assert told(loaded) == told(model)
    assert loaded.model_hash() == model.model_hash()
    loaded.smoothing = 2.0
    loaded.save(tmp_path / "a.spade")  # where it lives
    assert load_detector(tmp_path / "a.spade").smoothing == 2.0
    assert load_detector(tmp_path / "a.spade").set_max_false_alarms(0.3).settings()["max_false_alarms"] == 0.3


def test_a_fit_that_finds_no_temporary_folder_changes_nothing(model, monkeypatch, tmp_path):
    fitted = tiny_model(3)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(SpadeworkError, match="Set TMPDIR"):
        fitted.fit(NORMAL)
    assert fitted.n_normal_ == 3
