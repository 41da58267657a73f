"""Let timm and torchvision be imported beside a torch that their compiled operators were not built for.

A CPU build of torch next to the CUDA build of torchvision has no `torchvision::nms`, and torchvision's import fails on
registering a shape function for it. Nothing that a backbone computes uses these operators, so for the tests it is
enough to declare them. The package itself does not do this: it tells its user to install matching releases.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_KEPT: list[Any] = []  # a library's declarations go when it does


def make_importable() -> None:
    """Import torchvision, declaring its missing operators first where that is what its import fails on.

    Without torchvision nothing happens: the tests that need it are skipped by themselves.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        _declare_missing()
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        importlib.import_module("torchvision")


def _declare_missing() -> None:
    torch = importlib.import_module("torch")
    library = torch.library.Library("torchvision", "FRAGMENT")
    _KEPT.append(library)
    for schema in SCHEMAS:
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            library.define(schema)
