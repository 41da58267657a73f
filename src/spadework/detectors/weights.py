"""Numbers of networks and optimisers as raw arrays: in a model, or in a checkpoint. No pickle.

In: modules and optimisers of PyTorch. Out: for each one flat float32 array in the folder, and in its header what lies where: [name, shape] in order.
Whole numbers in a state are left out: batch normalisation counts its batches and never reads the count.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spadework.errors import ModelError
from spadework.storage import HEADER, ModelFolder, draft_path, publish

Layout = list[list[Any]]  # [name, shape] of each tensor, in the order of the flat array


def pack(tensors: Mapping[str, Any]) -> tuple[np.ndarray, Layout]:
    """Return tensors as one flat float32 array, and what lies where."""
    kept = {name: tensor.detach().cpu() for name, tensor in tensors.items() if tensor.is_floating_point()}
    layout = [[name, list(tensor.shape)] for name, tensor in kept.items()]
    flat = [tensor.numpy().astype(np.float32, copy=False).reshape(-1) for tensor in kept.values()]
    return np.concatenate([*flat, np.empty(0, np.float32)]), layout


def unpack(array: np.ndarray, layout: Layout) -> dict[str, Any]:
    """Return the tensors of a flat array by name."""
    import torch

    sizes = [int(np.prod(shape)) for _, shape in layout]
    parts = np.split(np.array(array, np.float32), np.cumsum(sizes))
    return {name: torch.from_numpy(part.reshape(shape)) for (name, shape), part in zip(layout, parts, strict=False)}


def keep_networks(folder: ModelFolder, networks: Mapping[str, Any]) -> None:
    """Write networks to a model folder; they count from its next `commit`."""
    for name, network in networks.items():
        array, layout = pack(network.state_dict())
        folder.replace(f"network_{name}", array)
        folder.header.setdefault("networks", {})[name] = layout


def fill_network(network: Any, array: np.ndarray, layout: Layout) -> None:
    """Put kept numbers into a network of the same build.

    Raises:
        ModelError: they are those of another build.
    """
    found = unpack(array, layout)
    state = {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    if {name: list(t.shape) for name, t in state.items()} != {name: list(t.shape) for name, t in found.items()}:
        raise ModelError("the network in the model has another build than its settings say. Fit again.")
    network.load_state_dict(found, strict=False)


class Checkpoint:
    """A training under way, in a folder of its own; what is written replaces what stood there in one step.

    Its name holds a fingerprint of settings and pictures, so another training never takes it up.
    """

    def __init__(self, folder: Path, name: str, fingerprint: str) -> None:
        self.path = folder / f"{name}-{fingerprint[:12]}.checkpoint"

    def save(self, networks: Mapping[str, Any], optimisers: Sequence[Any], state: dict[str, Any]) -> None:
        """Write networks, optimisers and a JSON `state`.

        Raises:
            OutputError: no room or no permission; what stood there before still does.
        """
        if (self.path / HEADER).exists():
            folder = ModelFolder.open(self.path)
            with folder.writing():
                self._fill(folder, networks, optimisers, state)
            return
        draft = ModelFolder.create(draft_path(self.path), {"detector": None})
        try:
            self._fill(draft, networks, optimisers, state)
            publish(draft, self.path)
        except BaseException:
            shutil.rmtree(draft.path, ignore_errors=True)
            raise

    def _fill(
        self, folder: ModelFolder, networks: Mapping[str, Any], optimisers: Sequence[Any], state: dict[str, Any]
    ) -> None:
        keep_networks(folder, networks)
        layouts = []
        for number, optimiser in enumerate(optimisers):
            array, layout = pack(_tensors_of(optimiser))
            folder.replace(f"optimiser_{number}", array)
            layouts.append(layout)
        folder.header["optimisers"] = layouts
        folder.header["training"] = state
        folder.commit()

    def restore(self, networks: Mapping[str, Any], optimisers: Sequence[Any]) -> dict[str, Any] | None:
        """Fill networks and optimisers, and return the `state`; None where nothing was saved.

        Raises:
            ModelError: it is damaged; delete it to begin anew.
        """
        if not (self.path / HEADER).exists():
            return None
        try:
            folder = ModelFolder.open(self.path)
            for name, network in networks.items():
                fill_network(network, folder.read(f"network_{name}"), folder.header["networks"][name])
        except (ModelError, KeyError) as error:
            raise ModelError(f"{self.path}: cannot be taken up ({error}). Delete it to train anew.") from error
        for number, optimiser in enumerate(optimisers):
            found = unpack(folder.read(f"optimiser_{number}"), folder.header["optimisers"][number])
            _fill_optimiser(optimiser, found)
        state: dict[str, Any] = folder.header["training"]
        return state


def _tensors_of(optimiser: Any) -> dict[str, Any]:
    """The tensors an optimiser remembers, by "parameter.name"."""
    state = optimiser.state_dict()["state"]
    return {
        f"{index}.{key}": value
        for index, remembered in sorted(state.items())
        for key, value in sorted(remembered.items())
        if hasattr(value, "is_floating_point")
    }


def _fill_optimiser(optimiser: Any, tensors: Mapping[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
