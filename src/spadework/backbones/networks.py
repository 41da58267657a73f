"""Published networks as modules with the outputs of a backbone: timm's and torchvision's, built but not exported.

Levels are the last maps at strides 4, 8 and 16; the global vector is the network's own pooled last stage. For
Wide-ResNet-50-2 these are `layer1` to `layer3` (256, 512, 1024 channels) and the average-pooled `layer4` (2048). A
vision transformer has one grid: its last block, normalised, is the only level, and its pooled token the global vector.
Source: Cohen and Hoshen 2020, section 4.1 (Wide-ResNet-50-2, ends of the first three blocks).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spadework.backbones.onnx import IMAGENET_MEAN, IMAGENET_STD
from spadework.backbones.weights import Published, framework, load_state
from spadework.errors import BackboneError

LEVEL_STRIDES = (4, 8, 16)
RANDOM_SEED = 0

# Imported by name when something is exported: it needs torch.
_MODULES = "spadework.backbones.modules"


@dataclass(frozen=True)
class Network:
    """A torch module `(n, 3, H, W) -> (level1, ..., global)` in evaluation mode, and what the metadata states."""

    module: Any
    strides: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def published(kind: str, model: str) -> Published:
    """Where the weights named `MODEL` are published. Raises BackboneError for names that leave the weights open."""
    return _timm_published(model) if kind == "timm" else _torchvision_published(model)


def build(kind: str, model: str, weights: Path | None) -> Network:
    """Build a network with the weights of a file, or seeded random ones.

    Args:
        kind: "timm" or "torchvision".
        model: the name in that library, with or without the tag of its weights.
        weights: the file; None draws random weights from a fixed seed.
    """
    torch = framework("torch")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(RANDOM_SEED)
        return _build_timm(model, weights) if kind == "timm" else _build_torchvision(model, weights)


def _timm_published(model: str) -> Published:
    config = _timm_config(model)
    if "." not in model and config.tag:
        tags = [name for name in framework("timm").list_pretrained(f"{model}.*") if name.split(".")[0] == model]
        raise BackboneError(f"timm:{model} has several sets of weights; name one: timm:" + ", timm:".join(tags))
    if config.hf_hub_id:
        return Published(config.hf_hub_filename or "model.safetensors", repository=config.hf_hub_id)
    raise BackboneError(f"timm:{model} has no weights on a hub; give a file with --weights FILE (Python: weights=...)")


def _timm_config(model: str) -> Any:
    try:
        config = framework("timm.models").get_pretrained_cfg(model)
    except RuntimeError as error:
        raise BackboneError(f"timm:{model}: {error}; timm.list_pretrained() lists the names") from error
    if config is None:
        raise BackboneError(f"timm has no model {model!r}; timm.list_models() lists the names")
    return config


def _build_timm(model: str, weights: Path | None) -> Network:
    timm = framework("timm")
    config = _timm_config(model)
    try:
        # Transformers must be told to take other sizes than they were trained at; the others do not know the option.
        net = timm.create_model(model, pretrained=False, num_classes=0, dynamic_img_size=True)
    except TypeError:
        net = timm.create_model(model, pretrained=False, num_classes=0)
    if weights is not None:
        layers = config.classifier or ()
        spare = (layers,) if isinstance(layers, str) else tuple(layers)
        load_state(net, weights, what=f"timm:{model}", classifier=spare)
    net.eval()
    indices, strides = _timm_levels(model, net)
    module = framework(_MODULES).TimmLevels(net, indices).eval()
    return Network(module, strides, tuple(config.mean), tuple(config.std))


def _timm_levels(model: str, net: Any) -> tuple[list[int], tuple[int, ...]]:
    """Indices of the intermediate maps to take, and their strides."""
    info = getattr(net, "feature_info", None)
    if not hasattr(net, "forward_intermediates") or not hasattr(net, "forward_head") or not info:
        raise BackboneError(f"timm:{model} does not offer its intermediate maps; choose a network that does")
    reductions = [entry["reduction"] for entry in (info if isinstance(info, list) else info.info)]
    if len(set(reductions)) == 1:
        return [len(reductions) - 1], (reductions[0],)
    last = {stride: index for index, stride in enumerate(reductions)}
    strides = tuple(stride for stride in LEVEL_STRIDES if stride in last)
    if not strides:
        raise BackboneError(f"timm:{model} has maps at strides {reductions}, none of {LEVEL_STRIDES}; choose another")
    return [last[stride] for stride in strides], strides


def _torchvision_published(model: str) -> Published:
    entry = _torchvision_weights(model)
    return Published(file=entry.url.rsplit("/", 1)[-1], url=entry.url)


def _torchvision_weights(model: str) -> Any:
    """`NAME` means its IMAGENET1K_V1 weights, `NAME.IMAGENET1K_V2` others."""
    name, _, tag = model.partition(".")
    try:
        choices = framework("torchvision.models").get_model_weights(name)
    except ValueError as error:
        raise BackboneError(f"torchvision has no model {name!r}; see torchvision.models.list_models()") from error
    names = [choice.name for choice in choices]
    if (tag or "IMAGENET1K_V1") not in names:
        raise BackboneError(f"torchvision:{name} has no weights {tag or 'IMAGENET1K_V1'}; it has {', '.join(names)}")
    return choices[tag or "IMAGENET1K_V1"]


def _build_torchvision(model: str, weights: Path | None) -> Network:
    entry = _torchvision_weights(model)
    net = framework("torchvision.models").get_model(model.partition(".")[0], weights=None)
    if weights is not None:
        load_state(net, weights, what=f"torchvision:{model}", classifier=("fc", "classifier"))
    net.eval()
    preset = entry.transforms()
    mean, std = getattr(preset, "mean", IMAGENET_MEAN), getattr(preset, "std", IMAGENET_STD)
    stages = _torchvision_stages(model, net)
    taken = _stage_strides(stages)
    strides = tuple(stride for stride in LEVEL_STRIDES if stride in taken)
    if not strides:
        raise BackboneError(f"torchvision:{model} has maps at strides {sorted(taken)}, none of {LEVEL_STRIDES}")
    module = framework(_MODULES).StageLevels(stages, [taken[stride] for stride in strides]).eval()
    return Network(module, strides, tuple(mean), tuple(std))


def _torchvision_stages(model: str, net: Any) -> list[Any]:
    """The convolutional part as steps that follow each other."""
    if all(hasattr(net, name) for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer4")):
        return [net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3, net.layer4]
    if hasattr(net, "features") and hasattr(net.features, "children"):
        return list(net.features.children())
    if hasattr(net, "trunk_output"):
        return [net.stem, *net.trunk_output.children()]
    raise BackboneError(
        f"torchvision:{model} is not built as stages that follow each other; use a ResNet, RegNet, ConvNeXt, VGG, "
        "DenseNet, EfficientNet or MobileNet, or a transformer from timm"
    )


def _stage_strides(stages: list[Any]) -> dict[int, int]:
    """Stride -> index of the last stage at that stride, found on one small picture."""
    side = 128
    values = framework("torch").zeros(1, 3, side, side)
    last: dict[int, int] = {}
    for index, stage in enumerate(stages):
        values = stage(values)
        last[side // values.shape[-1]] = index
    return last
