"""The embedded network, ONNX files by path, the list of names and the cache; nothing here imports torch."""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

import spadework
from spadework import backbones
from spadework.backbones import EMBEDDED, PAPER, Backbone, cache, list_backbones, onnx, open_backbone, weights
from spadework.errors import BackboneError, InputError, MissingExtraError, OutputError

pytest.importorskip("onnx", reason="the tests make small networks with the package onnx")
from tiny_onnx import CHANNELS, MEAN, STD, STRIDES, expected_outputs, make_tiny_onnx

INSTALL = r"pip install 'spadework\[timm\]'"


def pictures(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width + count).integers(0, 256, (count, height, width, 3), np.uint8)


def relative(ours, theirs) -> float:
    """Largest difference of any output, relative to the largest value of that output."""
    pairs = zip([*ours[0], ours[1]], [*theirs[0], theirs[1]], strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads or writes the user's own folders."""
    monkeypatch.setenv("SPADEWORK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def embedded() -> Backbone:
    return open_backbone()


@pytest.fixture
def tiny(tmp_path) -> Path:
    return make_tiny_onnx(tmp_path / "tiny.onnx")


# ---------------------------------------------------------------- the embedded network


def test_the_embedded_network_says_what_it_is(embedded):
    assert (embedded.name, embedded.strides, embedded.channels) == ("embedded", (4, 8, 16), (64, 128, 256))
    assert (embedded.global_dim, embedded.multiple, embedded.fixed_size, embedded.notes) == (1024, 16, None, ())
    assert embedded.mean == (0.485, 0.456, 0.406) and embedded.std == (0.229, 0.224, 0.225)
    assert "embedded" in repr(embedded) and embedded.hash[:12] in repr(embedded)


def test_the_embedded_hash_is_that_of_the_file(embedded):
    content = backbones.EMBEDDED_FILE.read_bytes()
    assert hashlib.sha256(content).hexdigest() == embedded.hash == backbones.EMBEDDED_SHA256
    assert open_backbone(EMBEDDED, sha256=embedded.hash).hash == embedded.hash
    assert len(content) < 13e6


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (32, 96), (112, 48), (256, 256)])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_shapes_follow_the_picture(embedded, size, count):
    if count == 3 and size == (256, 256):
        count = 2
    levels, vectors = embedded(pictures(count, *size))
    expected = [(count, c, size[0] // s, size[1] // s) for c, s in zip((64, 128, 256), (4, 8, 16), strict=True)]
    assert [level.shape for level in levels] == expected
    assert vectors.shape == (count, 1024)
    assert {values.dtype for values in [*levels, vectors]} == {np.dtype(np.float32)}
    assert all(np.isfinite(values).all() for values in [*levels, vectors])


def test_a_picture_gives_the_same_alone_and_in_a_batch(embedded):
    batch = pictures(4, 48, 64)
    before = batch.copy()
    batch.flags.writeable = False
    together, vectors = embedded(batch)
    for index in range(4):
        alone, vector = embedded(batch[index : index + 1])
        for ours, theirs in zip(alone, together, strict=True):
            np.testing.assert_array_equal(ours[0], theirs[index])
        np.testing.assert_array_equal(vector[0], vectors[index])
    np.testing.assert_array_equal(batch, before)


def test_views_give_what_their_copies_give(embedded):
    batch = pictures(2, 64, 64)[:, ::2, ::-2]
    assert relative(embedded(batch), embedded(np.ascontiguousarray(batch))) == 0


def test_the_number_of_threads_changes_next_to_nothing(embedded):
    batch = pictures(2, 64, 96)
    assert relative(open_backbone(threads=1)(batch), open_backbone(threads=3)(batch)) < 1e-5


def test_different_pictures_give_different_features(embedded):
    levels, vectors = embedded(pictures(2, 64, 64))
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    assert all(np.abs(level[0] - level[1]).max() > 1e-3 for level in levels)


@pytest.mark.parametrize(
    ("height", "width", "near"), [(100, 100, "96 x 96"), (64, 65, "64 x 64"), (8, 64, "16 x 64"), (0, 16, "16 x 16")]
)
def test_sizes_that_the_strides_do_not_divide_are_refused(embedded, height, width, near):
    with pytest.raises(InputError, match=f"multiples of 16, not {height} x {width}: resize to {near}"):
        embedded(np.zeros((1, height, width, 3), np.uint8))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 32, 32, 3), np.float32), "uint8 array, not float32"),
        ([[1]], "uint8 array, not list"),
        (np.zeros((32, 32, 3), np.uint8), r"shape \(n, H, W, 3\), not \(32, 32, 3\)"),
        (np.zeros((1, 3, 32, 32), np.uint8), r"not \(1, 3, 32, 32\)"),
        (np.zeros((1, 32, 32, 4), np.uint8), r"not \(1, 32, 32, 4\)"),
    ],
)
def test_arrays_of_another_kind_are_refused(embedded, images, message):
    with pytest.raises(InputError, match=message):
        embedded(images)


def test_an_embedded_file_that_was_changed_is_refused(tmp_path, monkeypatch):
    copy = tmp_path / "embedded.onnx"
    monkeypatch.setattr(backbones, "EMBEDDED_FILE", copy)
    with pytest.raises(BackboneError, match="missing from the installation"):
        open_backbone()
    assert not list_backbones()[0].available
    make_tiny_onnx(copy)
    with pytest.raises(BackboneError, match=f"reinstall spadework .*it should be {backbones.EMBEDDED_SHA256}"):
        open_backbone()


# ---------------------------------------------------------------- names and options


@pytest.mark.parametrize("name", ["resnet50", "Embedded", "", "keras:vgg16"])
def test_an_unknown_name_is_refused_with_the_names_there_are(name):
    with pytest.raises(
        BackboneError, match=f"'{name}' is not a backbone: give embedded, .*timm:NAME, torchvision:NAME"
    ):
        open_backbone(name)


@pytest.mark.parametrize("name", ["timm", "timm:", "timm:../../etc", "torchvision:a b", "timm:x.y.z"])
def test_a_framework_name_that_is_none_is_refused_before_anything_is_imported(name):
    with pytest.raises(BackboneError, match="is not of the form"):
        open_backbone(name)


def test_weights_go_with_frameworks_only(tiny, tmp_path):
    for name in (EMBEDDED, str(tiny)):
        with pytest.raises(InputError, match="weights go with timm:NAME and torchvision:NAME only"):
            open_backbone(name, weights=tmp_path / "w.pth")
    with pytest.raises(InputError, match="has random weights by its name"):
        open_backbone("timm:resnet18@random", weights=tmp_path / "w.pth")
    with pytest.raises(BackboneError, match=r"w\.pth does not exist"):
        open_backbone("timm:resnet18", weights=tmp_path / "w.pth")


def test_another_hash_than_asked_for_is_refused(tiny):
    for name in (EMBEDDED, str(tiny)):
        with pytest.raises(BackboneError, match=f"{'0' * 64} is asked for"):
            open_backbone(name, sha256="0" * 64)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_bad_number_of_threads_is_refused(monkeypatch, text):
    monkeypatch.setenv("SPADEWORK_THREADS", text)
    with pytest.raises(InputError, match=f"SPADEWORK_THREADS must be a whole number above 0, not '{text}'"):
        open_backbone()
    with pytest.raises(InputError, match="threads must be"):
        open_backbone(threads=0)


def test_threads_come_from_the_argument_then_the_environment(monkeypatch, tiny):
    used = []
    real = backbones.onnx.onnxruntime.SessionOptions

    def options():
        used.append(real())
        return used[-1]

    monkeypatch.setattr(backbones.onnx.onnxruntime, "SessionOptions", options)
    monkeypatch.setenv("SPADEWORK_THREADS", "3")
    open_backbone(str(tiny))
    open_backbone(str(tiny), threads=1)
    monkeypatch.delenv("SPADEWORK_THREADS")
    open_backbone(str(tiny))
    assert [each.intra_op_num_threads for each in used] == [3, 1, 0]


# ---------------------------------------------------------------- ONNX files by path


def test_a_file_by_path_computes_what_it_says(tiny):
    backbone = open_backbone(str(tiny))
    assert (backbone.name, backbone.strides, backbone.channels) == (str(tiny), STRIDES, CHANNELS)
    assert (backbone.global_dim, backbone.mean, backbone.std, backbone.notes) == (5, MEAN, STD, ())
    assert backbone.hash == hashlib.sha256(tiny.read_bytes()).hexdigest()
    batch = pictures(2, 32, 48)
    levels, vectors = backbone(batch)
    for index, image in enumerate(batch):
        ours = [level[index] for level in levels], vectors[index]
        assert relative(ours, expected_outputs(image)) < 1e-5


def test_backbones_of_one_file_share_a_session_while_any_is_there(tmp_path, tiny):
    one, other, slower = Backbone(tiny), Backbone(tiny), Backbone(tiny, threads=1)
    assert one._session is other._session
    assert one._session is not slower._session
    make_tiny_onnx(tiny, channels=(3, 4, 6))
    changed = Backbone(tiny)
    assert changed._session is not one._session
    assert changed.hash != one.hash
    picture = pictures(1, 64, 64)
    assert changed(picture)[1].shape == (1, 6)
    np.testing.assert_array_equal(other(picture)[1], one(picture)[1])
    left = weakref.ref(slower._session)
    del slower
    gc.collect()
    assert left() is None


def runs_of(backbone: Backbone, monkeypatch) -> list[str]:
    """Which session each pass from now on takes."""
    runs: list[str] = []
    run = type(backbone._session).run

    def noting(session, *given):
        runs.append("single" if session is backbone._single else "own")
        return run(session, *given)

    monkeypatch.setattr(type(backbone._session), "run", noting)
    return runs


def test_many_pictures_take_passes_of_one_thread_that_give_the_same_bytes(tiny, monkeypatch):
    backbone, picture = Backbone(tiny, threads=2), pictures(1, 64, 96)
    levels, vector = backbone(picture)
    with backbone.several(onnx.MANY_PICTURES - 1) as passes:
        assert (passes, backbone._single) == (onnx.PASSES, None)
    with backbone.several(onnx.MANY_PICTURES) as passes:
        assert passes == 3
        runs = runs_of(backbone, monkeypatch)
        many, its_vector = backbone(picture)
        with backbone.several(1000):
            pass
        backbone(picture)
    backbone(picture)
    assert runs == ["single", "single", "own"]
    assert [a.tobytes() for a in levels] == [a.tobytes() for a in many]
    assert vector.tobytes() == its_vector.tobytes()


def test_a_session_that_gives_other_bytes_is_not_taken(tiny, monkeypatch):
    backbone = Backbone(tiny, threads=2)
    outputs = Backbone._outputs
    monkeypatch.setattr(Backbone, "_outputs", lambda self, *given: [outputs(self, *given)[0] + (len(given) > 3)])
    with backbone.several(1000) as passes:
        assert (passes, backbone._single) == (onnx.PASSES, None)


@pytest.mark.parametrize(("threads", "passes"), [(1, 1), (4, 5), (5, onnx.PASSES)])
def test_how_many_passes_are_under_way(tiny, threads, passes):
    with Backbone(tiny, threads=threads).several(1000) as found:
        assert found == passes


def test_the_same_network_has_the_same_hash_and_another_another(tmp_path, tiny):
    again = make_tiny_onnx(tmp_path / "again.onnx")
    other = make_tiny_onnx(tmp_path / "other.onnx", channels=(3, 4, 6))
    assert Backbone(tiny).hash == Backbone(again).hash != Backbone(other).hash


def test_names_of_outputs_are_free_where_nothing_is_stated(tmp_path):
    path = make_tiny_onnx(tmp_path / "free.onnx", levels=["a", "b", "c"], global_name="pooled", metadata={})
    backbone = Backbone(path)
    assert (backbone.strides, backbone.channels, backbone.global_dim) == (STRIDES, CHANNELS, 5)
    assert "free.onnx does not state its normalisation" in backbone.notes[0]
    assert backbone.mean == backbones.onnx.IMAGENET_MEAN


def test_without_a_global_output_the_deepest_level_is_averaged(tmp_path):
    backbone = Backbone(make_tiny_onnx(tmp_path / "maps.onnx", global_name=None))
    levels, vectors = backbone(pictures(2, 32, 32))
    np.testing.assert_allclose(vectors, levels[-1].mean(axis=(2, 3)), rtol=1e-6)


def test_stated_strides_and_channels_are_believed_and_then_held(tmp_path):
    right = {"mean": MEAN, "std": STD, "strides": STRIDES, "channels": CHANNELS, "global_dim": 5}
    batch = pictures(1, 32, 32)
    backbone = Backbone(make_tiny_onnx(tmp_path / "right.onnx", metadata=right))
    assert relative(backbone(batch), Backbone(make_tiny_onnx(tmp_path / "found.onnx"))(batch)) == 0
    for key, value in (("strides", (4, 8, 8)), ("channels", (3, 4, 6)), ("global_dim", 7)):
        wrong = Backbone(make_tiny_onnx(tmp_path / "wrong.onnx", metadata=right | {key: value}))
        with pytest.raises(
            BackboneError, match=r"wrong\.onnx: an output has shape .*correct its spadework\.\* metadata"
        ):
            wrong(batch)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"mean": [0.5, 0.5], "std": STD}, "must be 3 numbers"),
        ({"mean": MEAN, "std": [1, 0, 1]}, "std above 0"),
        ({"mean": MEAN}, "spadework.std must be a JSON list of numbers, not 'null'"),
        ({"mean": "gray", "std": STD}, "spadework.mean must be a JSON list of numbers"),
        ({"strides": [4, 8], "channels": CHANNELS, "global_dim": 5}, r"3 levels but spadework.strides \(4, 8\)"),
    ],
)
def test_metadata_that_contradicts_itself_is_refused(tmp_path, metadata, message):
    with pytest.raises(BackboneError, match=message):
        Backbone(make_tiny_onnx(tmp_path / "stated.onnx", metadata=metadata))


def test_a_file_of_one_size_takes_that_size(tmp_path):
    backbone = Backbone(make_tiny_onnx(tmp_path / "fixed.onnx", size=(32, 64)))
    assert backbone.fixed_size == (32, 64)
    assert backbone(pictures(2, 32, 64))[0][0].shape == (2, 3, 8, 16)
    with pytest.raises(InputError, match="takes pictures of 32 x 64 only, not 64 x 64"):
        backbone(pictures(1, 64, 64))


def test_files_that_are_no_backbone_are_refused_by_name(tmp_path, tiny):
    content = tiny.read_bytes()
    (tmp_path / "torn.onnx").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.onnx").write_text("not a network\n" * 9)
    (tmp_path / "text.txt").write_text("not a network\n" * 9)
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "folder.onnx").mkdir()
    for name, message in (
        ("torn.onnx", "is not an ONNX network that can run here.*docs/backbones.md"),
        ("text.onnx", "is not an ONNX network that can run here"),
        ("text.txt", "is not an ONNX network that can run here"),
        ("empty.onnx", "is empty"),
        ("missing.onnx", "does not exist"),
        ("folder.onnx", "cannot be read"),
    ):
        with pytest.raises(BackboneError, match=message) as caught:
            open_backbone(str(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": []}, r"no float32 4-D output to take as a level: global \(1, 5\)\. A backbone takes"),
        ({"levels": [], "global_name": "level1"}, r"no float32 4-D output"),
        ({"strides": (5, 10, 20)}, "grid of 44 x 44 for a picture of 224 x 224; a level needs one whole stride"),
    ],
)
def test_a_network_without_level_maps_is_refused(tmp_path, options, message):
    with pytest.raises(BackboneError, match=rf"odd\.onnx.*{message}"):
        open_backbone(str(make_tiny_onnx(tmp_path / "odd.onnx", **options)))


def test_weights_in_a_second_file_are_refused(tmp_path):
    """They could change without changing the hash."""
    path = make_tiny_onnx(tmp_path / "split.onnx", external=True)
    assert path.with_name("split.onnx.data").is_file()
    with pytest.raises(BackboneError, match=r"split\.onnx keeps its weights in another file.*save it as one file"):
        open_backbone(str(path))


def test_a_network_with_other_inputs_is_refused(tmp_path, tiny):
    import onnx

    model = onnx.load(str(tiny))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, str(tmp_path / "gray.onnx"))
    with pytest.raises(BackboneError, match=r"gray\.onnx"):
        open_backbone(str(tmp_path / "gray.onnx"))
    model = onnx.load(str(tiny))
    model.graph.input.append(onnx.helper.make_tensor_value_info("extra", onnx.TensorProto.FLOAT, [1]))
    onnx.save(model, str(tmp_path / "two.onnx"))
    with pytest.raises(BackboneError, match=r"two\.onnx has 2 inputs \(image, extra\)"):
        open_backbone(str(tmp_path / "two.onnx"))


# ---------------------------------------------------------------- storing weights in half the room


def test_float16_weights_change_little_and_halve_the_file(tmp_path):
    from spadework.backbones.shrink import store_float16

    source = make_tiny_onnx(tmp_path / "full.onnx", channels=(32, 64, 96))
    store_float16(source, tmp_path / "half.onnx", metadata={"mean": MEAN, "std": STD})
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * source.stat().st_size
    batch = pictures(1, 64, 64)
    assert 0 < relative(Backbone(tmp_path / "half.onnx")(batch), Backbone(source)(batch)) < 1e-3


# ---------------------------------------------------------------- without the extra, the weights, the network


@pytest.fixture
def without_extra(monkeypatch):
    """As on a machine with the base installation only."""
    real_import, real_find = importlib.import_module, backbones.find_spec

    def import_module(name, package=None):
        if name.split(".")[0] in weights.FRAMEWORKS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])
        return real_import(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    monkeypatch.setattr(backbones, "find_spec", lambda name: None if name in weights.FRAMEWORKS else real_find(name))


@pytest.mark.parametrize("name", [PAPER, "timm:resnet18@random", "torchvision:resnet18", "torchvision:resnet18@random"])
def test_without_the_extra_the_install_line_is_told(without_extra, name):
    with pytest.raises(
        MissingExtraError, match=rf"needs the extra 'timm': install it with  {INSTALL}  \(in a clone of the repository"
    ):
        open_backbone(name)


def test_without_the_extra_the_list_says_so(without_extra):
    found = {info.name: info for info in list_backbones()}
    assert found["embedded"].available and found["FILE.onnx"].available
    for name in (PAPER, "timm:NAME", "torchvision:NAME"):
        assert not found[name].available
        assert found[name].why == f"not installed: {', '.join(weights.FRAMEWORKS)}"
        assert "pip install 'spadework[timm]'" in found[name].needs


def test_a_half_installed_extra_is_told_as_a_missing_one(monkeypatch):
    def without_torch(name):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(importlib, "import_module", without_torch)
    with pytest.raises(MissingExtraError, match=INSTALL):
        weights.framework("timm")


def test_frameworks_that_do_not_fit_together_are_told(monkeypatch):
    def mismatched(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", mismatched)
    with pytest.raises(BackboneError, match="timm is installed but cannot be imported: operator torchvision::nms"):
        weights.framework("timm")


def test_weights_are_found_where_the_docs_say(own_cache, tmp_path):
    kind, _, model = PAPER.partition(":")
    assert weights.find_local(kind, model) is None
    hub = tmp_path / "hub" / "hub" / f"models--timm--{model}" / "snapshots" / "abc" / "model.safetensors"
    ours = own_cache / "weights" / f"{model}.safetensors"
    for place in (hub, ours):  # the second goes before the first
        place.parent.mkdir(parents=True)
        place.touch()
        assert weights.find_local(kind, model) == place
    published = weights.Published("net-0123abcd.pth", url="https://example.org/net-0123abcd.pth")
    checkpoint = tmp_path / "torch" / "hub" / "checkpoints" / "net-0123abcd.pth"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert weights.find_local("torchvision", "net", published) == checkpoint


def test_the_message_for_missing_weights_names_file_and_place(own_cache):
    published = weights.Published("model.safetensors", repository="timm/net.tag")
    text = weights.missing_message("timm", "net.tag", published)
    assert "model.safetensors of the hub repository timm/net.tag is missing" in text
    assert f"put it here as {own_cache / 'weights' / 'net.tag.safetensors'}, or give its path with --weights" in text
    published = weights.Published("net-0123abcd.pth", url="https://example.org/net-0123abcd.pth")
    assert str(own_cache / "weights" / "net-0123abcd.pth") in weights.missing_message("torchvision", "net", published)


# ---------------------------------------------------------------- the list


def test_the_list_names_everything():
    names = [info.name for info in list_backbones()]
    assert names == ["embedded", PAPER, "FILE.onnx", "timm:NAME", "torchvision:NAME"]
    first = list_backbones()[0]
    assert (first.available, first.why, first.strides, first.channels) == (True, "", (4, 8, 16), (64, 128, 256))
    assert all(info.available or info.why for info in list_backbones())


def test_the_list_and_the_embedded_network_import_no_framework():
    code = """
        import sys
        import numpy as np
        from spadework.backbones import list_backbones, open_backbone
        list_backbones()
        open_backbone()(np.zeros((1, 16, 16, 3), np.uint8))
        print(sorted({"torch", "torchvision", "timm", "onnx", "onnxscript", "safetensors"} & set(sys.modules)))
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(spadework.__file__).parents[1])}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- the cache


def put(model: str = "net", weights_hash: str = "a" * 64, *, source: str = "file", **options) -> cache.Exported:
    """Keep a tiny network in the cache as an export would."""

    def write(target: Path) -> cache.Record:
        make_tiny_onnx(target, **options)
        digest = cache.file_hash(target)
        return cache.Record("timm", model, weights_hash, source, digest, STRIDES, CHANNELS, "a test")

    return cache.store(write, cache.entry_path("timm", model, weights_hash))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_key_contains_all_that_matters(monkeypatch):
    seen = {cache.entry_path("timm", "net", "a" * 64)}
    seen |= {cache.entry_path("torchvision", "net", "a" * 64), cache.entry_path("timm", "net2", "a" * 64)}
    seen.add(cache.entry_path("timm", "net", "b" * 64))
    monkeypatch.setattr(cache, "EXPORT_VERSION", cache.EXPORT_VERSION + 1)
    seen.add(cache.entry_path("timm", "net", "a" * 64))
    assert len({path.name for path in seen}) == 5


def test_a_kept_network_is_found_by_its_weights_only(own_cache):
    kept = put()
    assert cache.find("timm", "net", "a" * 64) == kept
    assert cache.find("timm", "net", "b" * 64) is None
    assert names_in(own_cache / "backbones") == [kept.path.with_suffix(".json").name, kept.path.name]
    assert cache.list_records() == [kept.record]


def test_a_kept_network_opens_without_the_extra(without_extra, tmp_path):
    put("net", cache.file_hash(make_tiny_onnx(tmp_path / "stands_for_weights.pth")))
    backbone = open_backbone("timm:net", weights=tmp_path / "stands_for_weights.pth")
    assert (backbone.name, backbone.channels) == ("timm:net", CHANNELS)
    again = open_backbone("timm:net", sha256=backbone.hash)  # as a model asks for it, without the weights file
    assert again.hash == backbone.hash
    put("published", source="hub")
    assert open_backbone("timm:published").channels == CHANNELS
    names = [info.name for info in list_backbones()]
    assert {"timm:net", "timm:published"} <= set(names)


def test_torn_and_foreign_entries_are_as_good_as_absent():
    kept = put()
    record_path, content = kept.path.with_suffix(".json"), kept.path.read_bytes()
    record = record_path.read_text()
    kept.path.write_bytes(content[:-9])
    assert cache.find("timm", "net", "a" * 64) is None
    kept.path.write_bytes(content)
    for text in ("", "{", "[]", "null", "{}", record[: len(record) // 2], record.replace("weights", "heights")):
        record_path.write_text(text)
        assert cache.find("timm", "net", "a" * 64) is None, text
        assert cache.list_records() == []
    record_path.unlink()
    assert cache.find("timm", "net", "a" * 64) is None
    record_path.write_text(record)
    kept.path.unlink()
    assert cache.find("timm", "net", "a" * 64) is None
    assert cache.list_records() == []
    assert put() == kept  # and it can be made again
    assert cache.find("timm", "net", "a" * 64) == kept


def test_records_of_other_export_code_are_not_taken():
    kept = put()
    path = kept.path.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "export_version": 0}))
    assert cache.list_records() == []
    assert cache.find_by("timm", "net", lambda record: True) is None


def test_a_damaged_entry_does_not_hide_another_one():
    entries = [put("net", letter * 64) for letter in "ab"]
    for damaged, good in (entries, entries[::-1]):
        content = damaged.path.read_bytes()
        damaged.path.write_bytes(content[:50])
        assert cache.find_by("timm", "net", lambda record: True) == good
        damaged.path.write_bytes(content)


def test_a_failed_export_leaves_nothing(own_cache):
    def write(target: Path) -> cache.Record:
        target.write_bytes(b"half")
        raise BackboneError("the check failed")

    with pytest.raises(BackboneError, match="the check failed"):
        cache.store(write, cache.entry_path("timm", "net", "a"))
    assert names_in(own_cache / "backbones") == []


def test_a_cache_that_cannot_be_written_is_told(own_cache):
    own_cache.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="cannot be kept in .*set SPADEWORK_CACHE"):
        put()


def test_two_that_export_the_same_do_not_clash(own_cache):
    """Both are in the middle of writing at once: each under its own name, and what is found afterwards is whole."""
    barrier, errors, found = threading.Barrier(2, timeout=20), [], []

    def export() -> None:
        def write(target: Path) -> cache.Record:
            make_tiny_onnx(target)
            barrier.wait()
            return cache.Record("timm", "net", "a" * 64, "file", cache.file_hash(target), STRIDES, CHANNELS, "a test")

        try:
            found.append(cache.store(write, cache.entry_path("timm", "net", "a" * 64)))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=export) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert cache.find("timm", "net", "a" * 64) == found[0] == found[1]
    assert len(names_in(own_cache / "backbones")) == 2


def test_where_the_cache_is(monkeypatch, tmp_path):
    assert cache.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("SPADEWORK_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "spadework"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == Path.home() / ".cache" / "spadework"
