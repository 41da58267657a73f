"""A small ONNX backbone for tests: three strided convolutions and a mean, its weights drawn from a fixed seed.

Every grid cell is a linear function of its own patch of the picture, then a ReLU, so that `expected_outputs` can say in
NumPy what ONNX Runtime must compute.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STRIDES = (4, 8, 16)
CHANNELS = (3, 4, 5)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def tiny_weights(strides: Sequence[int] = STRIDES, channels: Sequence[int] = CHANNELS) -> list[np.ndarray]:
    """One kernel a level: (C_l, C_before, k, k) float32, where k is the step from the stride before."""
    rng = np.random.default_rng(5)
    before = [(3, 1), *zip(channels, strides, strict=True)]
    return [rng.normal(0, 0.3, (c, c0, s // s0, s // s0)).astype(np.float32) for (c0, s0), (c, s) in pairwise(before)]


def make_tiny_onnx(
    path: Path,
    *,
    strides: Sequence[int] = STRIDES,
    channels: Sequence[int] = CHANNELS,
    levels: Sequence[str] | None = None,
    global_name: str | None = "global",
    metadata: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    external: bool = False,
) -> Path:
    """Write the network.

    Args:
        path: the file to write.
        strides: of the levels; each a multiple of the one before.
        channels: of the levels.
        levels: names of the outputs that are level maps; an empty list offers none of them.
        global_name: name of the output with the means of the deepest level; None leaves it out.
        metadata: `spadework.*` entries without the prefix, as JSON; None states mean and std only.
        size: a fixed height and width of the input.
        external: keep the weights in a second file.
    """
    names = [f"level{i}" for i in range(1, len(strides) + 1)] if levels is None else list(levels)
    inner = [f"map{i}" for i in range(len(strides))]
    nodes, initializers, before = [], [], "image"
    for index, kernel in enumerate(tiny_weights(strides, channels)):
        step = kernel.shape[2]
        initializers.append(numpy_helper.from_array(kernel, f"kernel{index}"))
        nodes.append(helper.make_node("Conv", [before, f"kernel{index}"], [f"conv{index}"], strides=[step, step]))
        nodes.append(helper.make_node("Relu", [f"conv{index}"], [inner[index]]))
        before = inner[index]
    nodes += [helper.make_node("Identity", [inner[i]], [name]) for i, name in enumerate(names)]
    float32 = TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info(name, float32, ["n", None, None, None]) for name in names]
    if global_name is not None:
        initializers.append(numpy_helper.from_array(np.array([2, 3], np.int64), "axes"))
        nodes.append(helper.make_node("ReduceMean", [before, "axes"], [global_name], keepdims=0))
        outputs.append(helper.make_tensor_value_info(global_name, float32, ["n", channels[-1]]))
    height, width = size or ("height", "width")
    image = helper.make_tensor_value_info("image", float32, ["n", 3, height, width])
    graph = helper.make_graph(nodes, "tiny", [image], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    stated = {"mean": MEAN, "std": STD} if metadata is None else metadata
    helper.set_model_props(model, {f"spadework.{key}": json.dumps(value) for key, value in stated.items()})
    onnx.save(model, str(path), save_as_external_data=external, location=f"{path.name}.data", size_threshold=0)
    return path


def expected_outputs(image: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """What the default network makes of one picture `(H, W, 3)`: maps `(C_l, H_l, W_l)` and the vector, float64."""
    values = ((image / 255.0 - MEAN) / STD).transpose(2, 0, 1)
    maps = []
    for kernel in tiny_weights():
        step = kernel.shape[2]
        channels, height, width = values.shape
        patches = values.reshape(channels, height // step, step, width // step, step)
        values = np.maximum(np.einsum("cyaxb,ocab->oyx", patches, kernel.astype(np.float64)), 0)
        maps.append(values)
    return maps, values.mean(axis=(1, 2))
