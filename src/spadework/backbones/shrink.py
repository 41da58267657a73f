"""Store a network's weights in half the room: float16 in the file, float32 in every computation.

Each large float32 weight becomes a float16 one followed by a Cast, which the runtime folds away when it opens the file,
so that the forward pass costs the same. The embedded network was made with this from a 25.2 MB file; what it changes
is written in docs/backbones.md.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spadework.errors import BackboneError, MissingExtraError

# Smaller ones (biases, mostly) are left alone: no room to win.
_SMALLEST = 1024


def store_float16(source: Path, target: Path, *, metadata: Mapping[str, Any]) -> None:
    """Write `source` to `target` with its large weights in float16.

    Args:
        source: an ONNX file.
        target: the file to write.
        metadata: what the file shall state about itself: `mean`, `std`, ... without the prefix `spadework.`.

    Raises:
        BackboneError: a weight is too large for float16.
        MissingExtraError: the package `onnx` is missing.
    """
    try:
        onnx: Any = importlib.import_module("onnx")
    except ModuleNotFoundError as error:
        raise MissingExtraError("rewriting an ONNX file", "timm") from error
    model = onnx.load(str(source))
    weights = model.graph.initializer
    for index, weight in enumerate(weights):
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < _SMALLEST:
            continue
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise BackboneError(f"{source}: weight {weight.name} is too large for float16; keep the file as it is")
        cast = onnx.helper.make_node("Cast", [f"{weight.name}_half"], [weight.name], to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
        weights[index].CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{weight.name}_half"))
    stated = {f"spadework.{key}": json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(model, stated)
    onnx.save(model, str(target))
