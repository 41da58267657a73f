"""The training loop: seeds, progress, checkpoints, and an end with an explanation when the loss is no number.

In: a `Course`, what a method trains and how it learns from one batch. Out: its networks, trained, and the mean losses of each epoch.
All that is drawn is drawn anew from (seed, epoch) and (seed, step), never from a generator that runs on, and a learning rate follows from the
step alone. So a training that was interrupted after some step goes on from a checkpoint exactly as it would have gone on.
On a CPU the same seed and number of threads give the same weights; on a GPU, the same but for rounding.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spadework import check
from spadework.bill import duration
from spadework.detectors.reading import Progress
from spadework.detectors.weights import Checkpoint
from spadework.errors import InputError, MissingExtraError, TrainingError

CHECKPOINT_SECONDS = 60.0  # between two of them: what an interruption costs at most
Losses = Mapping[str, Any]  # by name; numbers or tensors of one number


def import_torch(what: str) -> Any:
    """Return PyTorch.

    Raises:
        MissingExtraError: it is not installed; the message holds the install line.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(what, "torch") from error
    return torch


def check_device(device: object, torch: Any) -> None:
    """Raise InputError unless `device` is "cpu" or a CUDA device that is there."""
    if not isinstance(device, str) or not (device in ("cpu", "cuda") or device.startswith("cuda:")):
        raise InputError(f'device must be "cpu", "cuda" or "cuda:NUMBER", not {device!r}.')
    if device != "cpu" and not torch.cuda.is_available():
        raise InputError(f'device is "{device}", but PyTorch sees no CUDA device here. Use "cpu".')


@contextlib.contextmanager
def settled(threads: int | None) -> Iterator[Any]:
    """Run PyTorch with so many threads, gradients on and its generators free to be seeded; then all is as it was before."""
    import torch

    wanted, before = check.thread_count(threads), torch.get_num_threads()
    if wanted is not None:
        torch.set_num_threads(wanted)
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            yield torch
    finally:
        if wanted is not None:
            torch.set_num_threads(before)


@dataclass
class Course:
    """What is trained, and how it learns from one batch.

    networks: by name; all that a checkpoint must hold. optimisers: theirs; the loop sets nothing but their learning rates.
    examples: of one epoch, counted from 0. learn: takes the numbers of a batch's examples and a generator of this step alone, learns from
    them, returns its losses. rate: what the learning rates are multiplied with, from the share of the training that is done; None for 1.
    """

    networks: Mapping[str, Any]
    optimisers: Sequence[Any]
    examples: int
    learn: Callable[[np.ndarray, np.random.Generator], Losses]
    rate: Callable[[float], float] | None = None


@dataclass
class _Record:
    """Losses of the epochs so far, and of the one under way."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, losses: Mapping[str, float]) -> None:
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def close(self, steps: int) -> None:
        self.epochs.append({name: value / steps for name, value in self.sums.items()})
        self.sums = {}


def train(
    course: Course,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
    seconds: float | None = None,
) -> list[dict[str, float]]:
    """Train, or go on where the checkpoint ends.

    Args:
        course: what is trained.
        epochs: times that all examples are seen.
        batch_size: examples a step. They are dealt evenly into `examples // batch_size` batches, at least one, so that none is small.
        seed: of the order of examples and of all that is drawn.
        checkpoint: where the state is kept; None for nowhere.
        progress: called after each step with ("training · losses · time left", steps done, steps in all).
        seconds: end after the first step but one that ends later than this, for the first takes longer; None for all steps.

    Returns:
        The mean losses of each epoch.

    Raises:
        TrainingError: a loss is NaN or infinite; the message names epoch and step.
    """
    in_epoch = max(1, course.examples // batch_size)
    total, record = epochs * in_epoch, _Record()
    first = _resume(course, checkpoint, record)
    rates = [[group["lr"] for group in optimiser.param_groups] for optimiser in course.optimisers]
    for network in course.networks.values():
        network.train()
    started = saved = time.monotonic()
    for step in range(first, total):
        epoch, place = divmod(step, in_epoch)
        _set_rates(course, rates, step / total)
        order = np.random.default_rng([seed, epoch]).permutation(course.examples)
        losses = _learn(course, np.array_split(order, in_epoch)[place], [seed, epoch, place])
        _check_losses(losses, epoch, step, in_epoch, checkpoint)
        record.add(losses)
        if place + 1 == in_epoch:
            record.close(in_epoch)
        if checkpoint and (time.monotonic() - saved >= CHECKPOINT_SECONDS or step + 1 == total):
            state = {"step": step + 1, "steps": total, "epochs": record.epochs, "sums": record.sums}
            checkpoint.save(course.networks, course.optimisers, state)
            saved = time.monotonic()
        if progress:
            left = (time.monotonic() - started) / (step + 1 - first) * (total - step - 1)
            progress(f"training · {_told(losses)} · {duration(left)} left", step + 1, total)
        if seconds is not None and step > first and time.monotonic() - started > seconds:
            break
    for network in course.networks.values():
        network.eval()
    return record.epochs


def _resume(course: Course, checkpoint: Checkpoint | None, record: _Record) -> int:
    state = checkpoint.restore(course.networks, course.optimisers) if checkpoint else None
    if state is None:
        return 0
    record.epochs, record.sums = state["epochs"], state["sums"]
    return int(state["step"])


def _learn(course: Course, batch: np.ndarray, key: list[int]) -> dict[str, float]:
    import torch

    rng = np.random.default_rng(key)
    torch.manual_seed(int(rng.integers(2**62)))
    return {name: float(value) for name, value in course.learn(batch, rng).items()}


def _set_rates(course: Course, rates: list[list[float]], share: float) -> None:
    """Set each learning rate for a share of the training that is done."""
    factor = 1.0 if course.rate is None else course.rate(share)
    for optimiser, own in zip(course.optimisers, rates, strict=True):
        for group, rate in zip(optimiser.param_groups, own, strict=True):
            group["lr"] = rate * factor


def _check_losses(
    losses: Mapping[str, float], epoch: int, step: int, in_epoch: int, checkpoint: Checkpoint | None
) -> None:
    wrong = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
    if wrong:
        kept = f" Delete {checkpoint.path}, which belongs to this training." if checkpoint else ""
        raise TrainingError(
            f"training stopped in epoch {epoch + 1}, step {step % in_epoch + 1} of {in_epoch}: {', '.join(wrong)}. "
            f"Lower learning_rate, e.g. to a tenth, or try another seed.{kept}"
        )


def _told(losses: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
