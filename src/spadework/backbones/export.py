"""Export a published network to ONNX once: `timm:NAME` and `torchvision:NAME`, checked and cached.

`NAME@random` takes seeded random weights instead of published ones, for tests and for timing; the suffix stays in the
name of every model and result. The graph has free batch, height and width. It is kept only when ONNX Runtime gives the
framework's own outputs on two picture sizes. torch is imported only when something must be exported.

The exporter is torch's own (`dynamo=True`): the older one writes Wide-ResNet-50-2 in 4.5 s instead of 8.4 s and the
result runs equally fast (63 ms at 224 x 224), but it is deprecated and cannot write the antialiased resizing that
transformers apply to their position embeddings.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from spadework.backbones import cache, networks, weights
from spadework.backbones.onnx import Backbone, file_hash
from spadework.errors import BackboneError, InputError

KINDS = ("timm", "torchvision")
RANDOM = "@random"
TOLERANCE = 1e-4

_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")


def exported(kind: str, name: str, *, file: Path | None = None, sha256: str | None = None) -> cache.Exported:
    """Find a network in the cache, or export it.

    Args:
        kind: "timm" or "torchvision".
        name: the model's name there, as in `wide_resnet50_2.tv_in1k`; `@random` behind it for random weights.
        file: its weights; None looks for the published ones.
        sha256: the ONNX file that is wanted; without `file`, an export with this hash is taken first.

    Raises:
        BackboneError: unknown name, missing weights, weights of another network, or an export that computes
            something else than the framework.
        MissingExtraError: something must be exported and the extra is not installed.
    """
    model = name.removesuffix(RANDOM)
    if not _NAME.fullmatch(model):
        raise BackboneError(f"{kind}:{name} is not of the form {kind}:MODEL, {kind}:MODEL.TAG or {kind}:MODEL@random")
    if file is not None and name.endswith(RANDOM):
        raise InputError(f"{kind}:{name} has random weights by its name: leave weights out, or leave {RANDOM} out")
    if name.endswith(RANDOM):
        return _find_or_export(kind, model, f"random-{networks.RANDOM_SEED}", "random", None)
    if file is not None:
        return _find_or_export(kind, model, file_hash(file), "file", file)
    known = cache.find_by(kind, model, lambda record: record.sha256 == sha256) if sha256 else None
    return known or _from_published(kind, model)


def _from_published(kind: str, model: str) -> cache.Exported:
    """Published weights: a file on this machine, else an earlier export, else the hub."""
    local = weights.find_local(kind, model)
    if local is None:
        known = cache.find_by(kind, model, lambda record: record.source == "hub")
        if known is not None:
            return known
        where = networks.published(kind, model)
        local = weights.find_local(kind, model, where) or weights.fetch(kind, model, where)
    return _find_or_export(kind, model, file_hash(local), "hub", local)


def _find_or_export(kind: str, model: str, identity: str, source: str, file: Path | None) -> cache.Exported:
    found = cache.find(kind, model, identity)
    if found is not None:
        return found
    network = networks.build(kind, model, file)

    def write(target: Path) -> cache.Record:
        channels = _write(network, target, f"{kind}:{model}")
        check_export(network.module, target, multiple=max(network.strides))
        made_with = ", ".join(f"{lib} {weights.framework(lib).__version__}" for lib in ("torch", kind))
        return cache.Record(kind, model, identity, source, file_hash(target), network.strides, channels, made_with)

    return cache.store(write, cache.entry_path(kind, model, identity))


def _write(network: networks.Network, target: Path, what: str) -> tuple[int, ...]:
    """Write the ONNX file; returns the channels of the levels."""
    torch = weights.framework("torch")
    side = max(network.strides)
    example = torch.zeros(2, 3, 4 * side, 6 * side)  # all different, so that no size is taken for a constant
    with torch.no_grad():
        outputs = network.module(example)
    _check_grids(network.strides, outputs, example.shape[2:], what)
    levels = [f"level{i}" for i in range(1, len(network.strides) + 1)]
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    weights.framework("onnxscript")
    try:
        # The exporter warns about its own internals; what matters, the outputs, is checked afterwards.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network.module, (example,), dynamo=True, opset_version=cache.OPSET, verbose=False,
                input_names=["image"], output_names=[*levels, "global"], dynamic_shapes=(free,),
            )  # fmt: skip
    except Exception as error:  # the exporter's errors share no base of their own
        raise BackboneError(f"{what} cannot be exported to ONNX: {str(error)[:300]}; choose another network") from error
    channels = tuple(int(values.shape[1]) for values in outputs[:-1])
    program.model.metadata_props.update(_metadata(network, what, channels, int(outputs[-1].shape[1])))
    program.save(str(target), external_data=False)
    return channels


def _check_grids(strides: tuple[int, ...], outputs: Any, size: Any, what: str) -> None:
    """Refuse unpadded networks before the exporter takes seconds and fails in its own words."""
    for stride, values in zip(strides, outputs[:-1], strict=True):
        if tuple(values.shape[2:]) != (size[0] // stride, size[1] // stride):
            grid = f"{values.shape[2]} x {values.shape[3]}"
            raise BackboneError(
                f"{what}: its map at stride {stride} has a grid of {grid} for a picture of {size[0]} x {size[1]}; a "
                "level needs one whole stride in both directions (padded convolutions give that): choose another network"
            )


def _metadata(network: networks.Network, what: str, channels: tuple[int, ...], global_dim: int) -> dict[str, str]:
    values: dict[str, Any] = {
        "name": what,
        "mean": network.mean,
        "std": network.std,
        "strides": network.strides,
        "channels": channels,
        "global_dim": global_dim,
    }
    return {f"spadework.{key}": json.dumps(value) for key, value in values.items()}


def check_export(module: Any, path: Path, *, multiple: int) -> float:
    """Compare an ONNX file with the module it was made from, on two sizes that the export did not see.

    Returns:
        The largest absolute difference, relative to the largest absolute value of its output.

    Raises:
        BackboneError: it is above 1e-4.
    """
    torch = weights.framework("torch")
    backbone = Backbone(path)
    worst = 0.0
    for rows, columns in ((3, 5), (7, 4)):
        image = np.random.default_rng(rows).integers(0, 256, (1, rows * multiple, columns * multiple, 3), np.uint8)
        scaled = (image / 255.0 - np.asarray(backbone.mean)) / np.asarray(backbone.std)
        with torch.no_grad():
            expected = module(torch.from_numpy(scaled.astype(np.float32)).permute(0, 3, 1, 2).contiguous())
        levels, vectors = backbone(image)
        for ours, theirs in zip([*levels, vectors], expected, strict=True):
            worst = max(worst, _relative_difference(ours, theirs.numpy()))
    if not worst <= TOLERANCE:
        raise BackboneError(
            f"the exported network differs from the framework's own by {worst:.2g} of the largest output, more than "
            f"{TOLERANCE:g}; nothing was kept. Another release of torch or onnxscript may export it rightly"
        )
    return worst


def _relative_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(float(np.abs(theirs).max()), 1e-30))
