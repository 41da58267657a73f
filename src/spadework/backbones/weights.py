"""Weight files: where a published network's file is looked for, how it is fetched, and how it is read.

Looked for, in this order: the file given by hand; `CACHE/weights`; the hub's own cache on this machine (Hugging Face's
for timm, torch's for torchvision); the network. Only reading and fetching import a framework.
"""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spadework.backbones.cache import weights_folder
from spadework.errors import BackboneError, MissingExtraError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
FRAMEWORKS = ("torch", "timm", "torchvision", "onnx", "onnxscript", "safetensors")  # the extra 'timm'


@dataclass(frozen=True)
class Published:
    """Where a network's weights are published: `file` in the hub's `repository`, or at `url` (torch's hub)."""

    file: str
    repository: str | None = None
    url: str | None = None


def framework(module: str) -> Any:
    """Import a module of the extra `timm`, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in (*FRAMEWORKS, module.split(".")[0]):
            raise BackboneError(f"{module} cannot be imported: {error}; reinstall it") from error
        raise MissingExtraError("exporting a network from timm or torchvision", "timm") from error
    except (ImportError, RuntimeError, OSError) as error:
        # torchvision raises RuntimeError when it was built for another torch.
        raise BackboneError(
            f"{module} is installed but cannot be imported: {error}; install torch and torchvision of one release"
        ) from error


def find_local(kind: str, model: str, published: Published | None = None) -> Path | None:
    """A weights file that is already on this machine, found without importing a framework."""
    names = [f"{model}{suffix}" for suffix in SUFFIXES]
    if published is not None:
        names.append(published.file)
    places = [weights_folder() / name for name in names]
    if kind == "timm":
        places += _hub_snapshots(published.repository if published else f"timm/{model}")
    elif published is not None:
        places.append(_torch_home() / "hub" / "checkpoints" / published.file)
    return next((place for place in places if place.is_file()), None)


def fetch(kind: str, model: str, published: Published) -> Path:
    """The weights file through its hub. Raises BackboneError that says which file to put where."""
    try:
        if published.repository is not None:
            hub = framework("huggingface_hub")
            return Path(hub.hf_hub_download(published.repository, published.file))
        target = _torch_home() / "hub" / "checkpoints" / published.file
        target.parent.mkdir(parents=True, exist_ok=True)
        stated = re.search(r"-([0-9a-f]{8,})\.", published.file)  # torch's hub names a file by the start of its SHA-256
        prefix = stated.group(1) if stated else None
        framework("torch.hub").download_url_to_file(published.url, str(target), hash_prefix=prefix, progress=False)
        return target
    except (MissingExtraError, BackboneError):
        raise
    except Exception as error:  # each hub, and each library below it, has its own network errors
        raise BackboneError(missing_message(kind, model, published)) from error


def missing_message(kind: str, model: str, published: Published) -> str:
    """Which file is missing and the two ways to bring it here."""
    origin = f" of the hub repository {published.repository}" if published.repository else ""
    placed = f"{model}{Path(published.file).suffix}" if published.repository else published.file
    return (
        f"the weights of {kind}:{model} are not on this machine and cannot be downloaded: the file {published.file}"
        f"{origin} is missing. Fetch it on a machine with a network, then either put it here as "
        f"{weights_folder() / placed}, or give its path with --weights FILE (Python: weights=...)"
    )


def read_state(path: Path) -> dict[str, Any]:
    """Read a state dict, name -> tensor, from `.safetensors` or from torch's format without unpickling objects."""
    if path.suffix not in SUFFIXES:
        raise BackboneError(f"{path} must be a weights file ending in {', '.join(SUFFIXES)}, not {path.suffix!r}")
    torch = framework("torch")
    try:
        if path.suffix == ".safetensors":
            state: Any = framework("safetensors.torch").load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (MissingExtraError, BackboneError):
        raise
    except Exception as error:  # unpickling, zip, safetensors and operating system errors alike
        raise BackboneError(
            f"{path} cannot be read as weights: {str(error).splitlines()[0] if str(error) else error!r}; "
            "it must be a state dict saved by torch.save or a safetensors file"
        ) from error
    tensors = _unwrapped(state)
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise BackboneError(f"{path} holds no state dict (parameter name -> tensor); save model.state_dict()")
    return tensors


def load_state(module: Any, path: Path, *, what: str, classifier: tuple[str, ...]) -> None:
    """Put a file's weights into a module; only the classifier's may be superfluous.

    Args:
        module: the network, its classifier removed or not.
        path: the weights file.
        what: name of the network, for the message.
        classifier: names of the layers that are not needed.
    """
    state = read_state(path)
    try:
        result = module.load_state_dict(state, strict=False)
    except RuntimeError as error:  # a shape differs
        detail = str(error).splitlines()[-1].strip()
        raise BackboneError(f"{path} does not fit {what}: {detail}; give the weights of this very network") from error
    spare = tuple(f"{name}." for name in classifier)
    missing = [k for k in result.missing_keys if not k.startswith(spare) and not k.endswith("num_batches_tracked")]
    unknown = [k for k in result.unexpected_keys if not k.startswith(spare)]
    if missing or unknown:
        counts = [
            f"{len(keys)} {text} (first: {keys[0]})"
            for keys, text in ((missing, "weights are missing"), (unknown, "are not of this network"))
            if keys
        ]
        raise BackboneError(f"{path} does not fit {what}: {', '.join(counts)}; give the weights of this very network")


def _unwrapped(state: Any) -> dict[str, Any]:
    """Training checkpoints keep the state dict one level down, and parallel training prefixes its names."""
    if not isinstance(state, dict):
        return {}
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(state.get(key), dict):
            state = state[key]
            break
    if state and all(str(key).startswith("module.") for key in state):
        return {str(key).removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def _hub_snapshots(repository: str | None) -> list[Path]:
    """The places of Hugging Face's cache where a repository's weights lie."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    if repository is None:
        return []
    snapshots = cache / f"models--{repository.replace('/', '--')}" / "snapshots"
    return sorted(snapshots.glob("*/model.safetensors")) + sorted(snapshots.glob("*/pytorch_model.bin"))


def _torch_home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch").expanduser()
