"""Networks of timm and torchvision: exported, compared with the framework's own outputs, and refused where they do not fit.

The comparison is made here again, against hooks on the framework's own network, so that a mistake in the module that is
exported (a wrong stage, a missing normalisation) shows as well. Differences are relative to the largest value of each output.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torchvision_shim
from builders import TINY, normal_pictures

from spadework.backbones import PAPER, Backbone, cache, export, list_backbones, networks, open_backbone, weights
from spadework.detectors.spade import Spade
from spadework.errors import BackboneError

torch = pytest.importorskip("torch", reason="exporting needs the extra timm: torch is not installed")
pytest.importorskip("onnxscript", reason="exporting needs the extra timm: onnxscript is not installed")
safetensors = pytest.importorskip("safetensors.torch", reason="exporting needs the extra timm: no safetensors")

torchvision_shim.make_importable()
timm = pytest.importorskip("timm", reason="exporting needs the extra timm: timm is not installed")
torchvision = pytest.importorskip("torchvision", reason="exporting needs the extra timm: no torchvision")

pytestmark = pytest.mark.slow  # training and exporting: its packages alone take seconds to import

SMALL = "test_resnet"  # timm's own network for tests: 4 stages as in a ResNet, 0.4 million weights
LAYERS = ("layer1", "layer2", "layer3")


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    redirect(monkeypatch, tmp_path)
    return tmp_path


def redirect(monkeypatch, folder: Path) -> None:
    """No test reads or writes the user's own folders."""
    monkeypatch.setenv("SPADEWORK_CACHE", str(folder / "cache"))
    monkeypatch.setenv("HF_HOME", str(folder / "hub"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))


@pytest.fixture(scope="module")
def small():
    """The small network with random weights, its running statistics too: as new, a mean of 0 would hide mistakes."""
    torch.manual_seed(3)
    net = timm.create_model(SMALL, pretrained=False, num_classes=7)
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return net.eval()


def framework_outputs(net, images: np.ndarray, mean, std) -> list[np.ndarray]:
    """What the layers give inside a plain forward pass: three maps and the mean of the fourth."""
    kept = {}
    hooks = [
        getattr(net, name).register_forward_hook(lambda module, given, out, name=name: kept.__setitem__(name, out))
        for name in (*LAYERS, "layer4")
    ]
    values = (images / 255.0 - np.asarray(mean)) / np.asarray(std)
    with torch.no_grad():
        net(torch.from_numpy(values.astype(np.float32).transpose(0, 3, 1, 2).copy()))
    for hook in hooks:
        hook.remove()
    return [*(kept[name].numpy() for name in LAYERS), kept["layer4"].mean(dim=(2, 3)).numpy()]


def difference(backbone: Backbone, net, size: tuple[int, int], count: int = 2) -> float:
    images = np.random.default_rng(1).integers(0, 256, (count, *size, 3), np.uint8)
    levels, vectors = backbone(images)
    expected = framework_outputs(net, images, backbone.mean, backbone.std)
    pairs = list(zip([*levels, vectors], expected, strict=True))
    assert [ours.shape for ours, _ in pairs] == [theirs.shape for _, theirs in pairs]
    return max(float(np.abs(ours - theirs).max() / np.abs(theirs).max()) for ours, theirs in pairs)


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------- one small network, exported for real


@pytest.mark.slow
def test_a_weights_file_is_exported_once_and_computes_what_the_framework_does(small, tmp_path, monkeypatch):
    pth, tensors = tmp_path / "w.pth", tmp_path / "w.safetensors"
    torch.save(small.state_dict(), pth)
    safetensors.save_file(small.state_dict(), tensors)
    backbone = open_backbone(f"timm:{SMALL}", weights=pth)
    assert (backbone.name, backbone.strides, backbone.channels) == (f"timm:{SMALL}", (4, 8, 16), (32, 48, 192))
    assert (backbone.global_dim, backbone.multiple, backbone.notes) == (96, 16, ())
    config = small.pretrained_cfg
    assert (backbone.mean, backbone.std) == (tuple(config["mean"]), tuple(config["std"]))
    assert difference(backbone, small, (80, 48)) < 1e-4

    # the same numbers in another format: another entry of the cache, the same network
    again = open_backbone(f"timm:{SMALL}", weights=tensors)
    assert again.hash == backbone.hash
    assert len(cache.list_records()) == 2
    assert {record.weights for record in cache.list_records()} == {cache.file_hash(pth), cache.file_hash(tensors)}
    assert sum(info.name == f"timm:{SMALL}" for info in list_backbones()) == 2
    assert not any(name.endswith(".tmp") for name in files_of(tmp_path))

    # and never again
    monkeypatch.setattr(networks, "build", lambda *given: pytest.fail("exported twice"))
    assert open_backbone(f"timm:{SMALL}", weights=pth).hash == backbone.hash
    assert open_backbone(f"timm:{SMALL}", sha256=backbone.hash).hash == backbone.hash


# ---------------------------------------------------------------- weights that do not fit


def refusal(name: str, file: Path) -> str:
    with pytest.raises(BackboneError) as caught:
        open_backbone(name, weights=file)
    assert str(file) in str(caught.value)
    assert cache.list_records() == []
    return str(caught.value)


def test_a_wrong_state_dict_is_refused_by_the_keys(small, tmp_path):
    state = small.state_dict()
    lacking = {key: value for key, value in state.items() if key != "layer2.0.conv1.weight"}
    torch.save(lacking, tmp_path / "lacking.pth")
    message = refusal(f"timm:{SMALL}", tmp_path / "lacking.pth")
    assert f"does not fit timm:{SMALL}: 1 weights are missing (first: layer2.0.conv1.weight)" in message

    torch.save({**state, "decoder.weight": torch.zeros(2)}, tmp_path / "more.pth")
    message = refusal(f"timm:{SMALL}", tmp_path / "more.pth")
    assert "1 are not of this network (first: decoder.weight)" in message

    torch.save({**state, "layer2.0.conv1.weight": torch.zeros(2, 2)}, tmp_path / "shape.pth")
    message = refusal(f"timm:{SMALL}", tmp_path / "shape.pth")
    assert "layer2.0.conv1.weight" in message and "give the weights of this very network" in message

    safetensors.save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    assert "weights are missing" in refusal("torchvision:resnet18", tmp_path / "other.safetensors")


class Harmful:
    """Pickled, it would make a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_file_with_code_is_refused_and_not_run(tmp_path):
    made = tmp_path / "made"
    torch.save({"conv1.weight": Harmful(made)}, tmp_path / "code.pth")
    assert "cannot be read as weights" in refusal(f"timm:{SMALL}", tmp_path / "code.pth")
    assert not made.exists()


def test_files_that_are_no_weights_are_refused(small, tmp_path):
    (tmp_path / "text.pth").write_text("not weights\n" * 5)
    assert "cannot be read as weights" in refusal(f"timm:{SMALL}", tmp_path / "text.pth")
    (tmp_path / "text.safetensors").write_text("not weights\n" * 5)
    assert "cannot be read as weights" in refusal(f"timm:{SMALL}", tmp_path / "text.safetensors")
    (tmp_path / "text.txt").write_text("not weights\n" * 5)
    assert "must be a weights file ending in .safetensors, .pth" in refusal(f"timm:{SMALL}", tmp_path / "text.txt")
    (tmp_path / "empty.pth").touch()
    assert "is empty" in refusal(f"timm:{SMALL}", tmp_path / "empty.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    assert "holds no state dict" in refusal(f"timm:{SMALL}", tmp_path / "list.pth")
    torch.save(small.state_dict(), tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "torn.pth").write_bytes(content[: len(content) // 2])
    assert "cannot be read as weights" in refusal(f"timm:{SMALL}", tmp_path / "torn.pth")


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_training_checkpoints_are_unwrapped(small, tmp_path, key):
    wrapped = {f"module.{name}": value for name, value in small.state_dict().items()}
    torch.save({key: wrapped, "epoch": 3}, tmp_path / "checkpoint.pth")
    read = weights.read_state(tmp_path / "checkpoint.pth")
    assert read.keys() == small.state_dict().keys()


# ---------------------------------------------------------------- names, and weights that are not here


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet18", "has several sets of weights; name one: timm:resnet18."),
        ("timm:no_such_network", "no_such_network"),
        ("timm:resnet18.no_such_tag", "no_such_tag"),
        ("torchvision:no_such_network", "torchvision has no model 'no_such_network'"),
        ("torchvision:resnet18.IMAGENET1K_V9", "has no weights IMAGENET1K_V9; it has IMAGENET1K_V1"),
        ("torchvision:shufflenet_v2_x0_5@random", "is not built as stages that follow each other; use a ResNet"),
        ("torchvision:squeezenet1_1@random", "torchvision:squeezenet1_1: its map at stride 4 has a grid of 7 x 11"),
    ],
)
def test_names_that_cannot_be_used_are_refused_with_a_way_out(name, message, tmp_path):
    with pytest.raises(BackboneError, match=message):
        open_backbone(name)
    assert files_of(tmp_path) == []


@pytest.fixture
def no_network(monkeypatch):
    import huggingface_hub

    def fail(*given, **options):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)


def test_without_network_the_file_and_its_place_are_told(no_network, tmp_path):
    place = tmp_path / "cache" / "weights"
    for name, file, origin in (
        (PAPER, "wide_resnet50_2.tv_in1k.safetensors", "of the hub repository timm/wide_resnet50_2.tv_in1k is missing"),
        ("torchvision:wide_resnet50_2", "wide_resnet50_2-95faca4d.pth", "the file wide_resnet50_2-95faca4d.pth"),
    ):
        with pytest.raises(BackboneError) as caught:
            open_backbone(name)
        message = str(caught.value)
        assert origin in message and f"put it here as {place / file}" in message and "--weights FILE" in message


def test_the_list_says_where_the_papers_weights_go(tmp_path):
    info = next(info for info in list_backbones() if info.name == PAPER)
    assert not info.available
    place = tmp_path / "cache" / "weights" / "wide_resnet50_2.tv_in1k.safetensors"
    assert str(place) in info.why
    place.parent.mkdir(parents=True)
    place.touch()
    assert next(info for info in list_backbones() if info.name == PAPER).available


def test_an_export_that_computes_something_else_is_not_kept(small, monkeypatch, tmp_path):
    """A network that draws random numbers stands for a wrong export; the exporter itself is left out for speed."""
    from tiny_onnx import make_tiny_onnx

    path = make_tiny_onnx(tmp_path / "tiny.onnx")

    class Other(torch.nn.Module):
        def forward(self, image):
            sizes = [(c, image.shape[2] // s, image.shape[3] // s) for c, s in ((3, 4), (4, 8), (5, 16))]
            return (*(torch.ones(1, *size) for size in sizes), torch.ones(1, 5))

    with pytest.raises(BackboneError, match=r"differs from the framework's own by .* nothing was kept"):
        export.check_export(Other(), path, multiple=16)


def test_a_download_is_compared_with_the_hash_in_its_name(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, target, **given: seen.update(given))
    where = networks.published("torchvision", "wide_resnet50_2")
    target = weights.fetch("torchvision", "wide_resnet50_2", where)
    assert target == tmp_path / "torch" / "hub" / "checkpoints" / "wide_resnet50_2-95faca4d.pth"
    assert seen["hash_prefix"] == "95faca4d"


# ---------------------------------------------------------------- the paper's network, and other kinds


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Wide-ResNet-50-2 with random weights, and the file of them; 1 GB of files in all, gone afterwards."""
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    net = torchvision.models.get_model("wide_resnet50_2", weights=None).eval()
    torch.save(net.state_dict(), folder / "wide.pth")
    with pytest.MonkeyPatch.context() as patch:
        redirect(patch, folder)
        yield net, folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["timm", "torchvision"])
def test_wide_resnet_is_exported_exactly(wide, kind, monkeypatch):
    net, folder = wide
    redirect(monkeypatch, folder)
    backbone = open_backbone(f"{kind}:wide_resnet50_2", weights=folder / "wide.pth")
    assert (backbone.strides, backbone.channels, backbone.global_dim) == ((4, 8, 16), (256, 512, 1024), 2048)
    assert backbone.mean == (0.485, 0.456, 0.406) and backbone.std == (0.229, 0.224, 0.225)
    worst = max(difference(backbone, net, size, 1) for size in ((224, 224), (96, 160)))
    print(f"{kind}:wide_resnet50_2 differs from the framework by {worst:.1e} of the largest output")
    assert worst < 1e-4


@pytest.mark.slow
def test_published_weights_are_taken_from_the_hubs_cache(small, tmp_path, no_network, monkeypatch):
    """As on a machine that downloaded them once: no network, no --weights."""
    model = f"{SMALL}.r160_in1k"
    place = tmp_path / "hub" / "hub" / f"models--timm--{model}" / "snapshots" / "abc" / "model.safetensors"
    place.parent.mkdir(parents=True)
    safetensors.save_file(small.state_dict(), place)
    backbone = open_backbone(f"timm:{model}")
    assert difference(backbone, small, (48, 64)) < 1e-4
    assert cache.list_records()[0].source == "hub"
    place.unlink()
    monkeypatch.setattr(networks, "published", lambda *given: pytest.fail("looked up though it is exported"))
    assert open_backbone(f"timm:{model}").hash == backbone.hash


@pytest.mark.slow
def test_random_weights_are_the_same_each_time(tmp_path, monkeypatch):
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    first = open_backbone(f"timm:{SMALL}@random")
    assert torch.equal(torch.random.get_rng_state(), before)
    monkeypatch.setenv("SPADEWORK_CACHE", str(tmp_path / "another"))
    torch.manual_seed(12)
    assert open_backbone(f"timm:{SMALL}@random").hash == first.hash
    assert [record.source for record in cache.list_records()] == ["random"]
    assert list_backbones()[2].name == f"timm:{SMALL}@random"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("timm:test_vit@random", (16,)),
        ("timm:test_convnext@random", (4, 8, 16)),
        ("timm:test_efficientnet@random", (4, 8, 16)),
        ("torchvision:mobilenet_v3_small@random", (4, 8, 16)),
        ("torchvision:regnet_y_400mf@random", (4, 8, 16)),
    ],
)
def test_networks_of_other_kinds_can_be_exported(name, strides):
    """The export compares itself with the framework; here its shapes on yet another size."""
    backbone = open_backbone(name)
    assert backbone.strides == strides
    side = 2 * backbone.multiple
    levels, vectors = backbone(np.zeros((1, side, 2 * side, 3), np.uint8))
    assert [level.shape[2:] for level in levels] == [(side // s, 2 * side // s) for s in strides]
    assert vectors.shape == (1, backbone.global_dim)


@pytest.mark.slow
def test_a_model_goes_on_without_the_weights_file_while_its_export_is_kept(small, tmp_path):
    file = tmp_path / "mine.pth"
    torch.save(small.state_dict(), file)
    settings = {**TINY, "image_size": 64, "grid_stride": 4}
    Spade(f"timm:{SMALL}", weights=file, **settings).fit(normal_pictures(3), path=tmp_path / "a.spade")
    file.unlink()
    assert Spade.load(tmp_path / "a.spade").predict(normal_pictures(1, start=9)[0]).score > 0
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(BackboneError):
        Spade.load(tmp_path / "a.spade").predict(normal_pictures(1, start=9)[0])
