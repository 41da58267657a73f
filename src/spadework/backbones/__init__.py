"""Networks by name: the embedded one, any ONNX file, and published ones from timm and torchvision.

`open_backbone` turns a name into a `Backbone`; `list_backbones` says what names there are and what each needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from spadework.backbones import cache, export, weights
from spadework.backbones.onnx import Backbone
from spadework.errors import BackboneError, InputError

__all__ = ["EMBEDDED", "PAPER", "Backbone", "BackboneInfo", "list_backbones", "open_backbone"]

EMBEDDED = "embedded"
PAPER = "timm:wide_resnet50_2.tv_in1k"

EMBEDDED_FILE = Path(__file__).with_name("embedded.onnx")
EMBEDDED_SHA256 = "f9828a2bd08b35253a6f6eafb4af6659ada2000d9b0698445906a861c208815e"

_REINSTALL = "embedded.onnx is missing from the installation or damaged: reinstall spadework"
_EXTRA = "the extra 'timm': pip install 'spadework[timm]' (in a clone: pip install -e '.[timm]')"


@dataclass(frozen=True)
class BackboneInfo:
    """One line of `spadework backbones`.

    Attributes:
        name: what `open_backbone` takes; capitals stand for what is to be filled in.
        description: one sentence.
        strides, channels: of the levels, empty where they depend on the network.
        needs: what must be there, "nothing" for the embedded network.
        available: whether it would open now.
        why: what is missing, empty if nothing is.
    """

    name: str
    description: str
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    needs: str
    available: bool
    why: str


def open_backbone(
    name: str = EMBEDDED, *, weights: Path | str | None = None, threads: int | None = None, sha256: str | None = None
) -> Backbone:
    """Open a network.

    Args:
        name: `embedded`, the path of an ONNX file, `timm:NAME`, `torchvision:NAME`; `@random` behind the last two
            takes random weights.
        weights: a local weights file (`.pth`, `.pt`, `.bin`, `.safetensors`) for the last two.
        threads: threads of the forward pass; None takes SPADEWORK_THREADS, else one for each physical core.
        sha256: the hash that the network must have, as a model or a result states it.

    Raises:
        BackboneError: the name, the file or the weights do not give a backbone, or not the one of this hash.
        InputError: `weights` or `threads` does not go with the name.
        MissingExtraError: the network must be exported first and the extra is not installed.

    >>> open_backbone().channels
    (64, 128, 256)
    """
    kind, _, rest = name.partition(":")
    if kind not in export.KINDS and weights is not None:
        raise InputError(f"weights go with timm:NAME and torchvision:NAME only, not with {name!r}: leave them out")
    if kind in export.KINDS:
        file = None if weights is None else Path(weights)
        found = export.exported(kind, rest, file=file, sha256=sha256)
        backbone = Backbone(found.path, name=name, threads=threads, sha256=found.record.sha256)
    elif name == EMBEDDED:
        backbone = _open_embedded(threads)
    else:
        backbone = _open_path(name, threads)
    if sha256 not in (None, backbone.hash):
        raise BackboneError(
            f"backbone {name} has the hash {backbone.hash}, but {sha256} is asked for: it is another network, or other "
            "weights; give the one that was used then"
        )
    return backbone


def list_backbones() -> list[BackboneInfo]:
    """What can be opened, what each needs, and whether it is there. Imports no framework."""
    missing = [module for module in weights.FRAMEWORKS if find_spec(module) is None]
    why = f"not installed: {', '.join(missing)}" if missing else ""
    needs = f"{_EXTRA}; the weights"
    seen = [_exported_info(record) for record in cache.list_records()]
    names = {info.name for info in seen}
    return [
        _embedded_info(),
        *([] if PAPER in names else [_paper_info(why)]),
        *seen,
        BackboneInfo("FILE.onnx", "any ONNX file that offers level maps", (), (), "the file", True, ""),
        BackboneInfo("timm:NAME", "a network of timm, exported once", (), (), needs, not missing, why),
        BackboneInfo("torchvision:NAME", "a network of torchvision, exported once", (), (), needs, not missing, why),
    ]


def _embedded_info() -> BackboneInfo:
    there = EMBEDDED_FILE.is_file()
    text = "small residual network trained on Tiny ImageNet, inside the package"
    return BackboneInfo(EMBEDDED, text, (4, 8, 16), (64, 128, 256), "nothing", there, "" if there else _REINSTALL)


def _paper_info(why: str) -> BackboneInfo:
    kind, _, model = PAPER.partition(":")
    if not why and weights.find_local(kind, model) is None:
        why = f"weights not here: fetched from the hub, or put as {cache.weights_folder() / model}.safetensors"
    needs = f"{_EXTRA}; the file model.safetensors of the hub repository timm/{model}"
    text = "Wide-ResNet-50-2 pre-trained on ImageNet, the paper's network"
    return BackboneInfo(PAPER, text, (4, 8, 16), (256, 512, 1024), needs, not why, why)


def _exported_info(record: cache.Record) -> BackboneInfo:
    name = f"{record.kind}:{record.model}" + (export.RANDOM if record.source == "random" else "")
    given = record.source == "file"
    text = f"exported before with {record.made_with}" + (", from a weights file" if given else "")
    needs = "the weights file, or a model made with it" if given else "nothing more"
    return BackboneInfo(name, text, record.strides, record.channels, needs, True, "")


def _open_embedded(threads: int | None) -> Backbone:
    if not EMBEDDED_FILE.is_file():
        raise BackboneError(_REINSTALL)
    backbone = Backbone(EMBEDDED_FILE, name=EMBEDDED, threads=threads)
    if backbone.hash != EMBEDDED_SHA256:
        raise BackboneError(f"{_REINSTALL} (its hash is {backbone.hash}, it should be {EMBEDDED_SHA256})")
    return backbone


def _open_path(name: str, threads: int | None) -> Backbone:
    path = Path(name).expanduser()
    if path.suffix.lower() != ".onnx" and not path.is_file():
        known = f"{EMBEDDED}, the path of an ONNX file, {', '.join(f'{kind}:NAME' for kind in export.KINDS)}"
        raise BackboneError(f"{name!r} is not a backbone: give {known}")
    return Backbone(path, name=name, threads=threads)
