"""Training: batches, steps, the averaged weights, a checkpoint after every epoch.

All randomness follows from (seed, epoch, step), and no layer draws any of its own: a run that was stopped and goes on from its last checkpoint makes the
same weights, bit by bit, as one that was not (same machine, same threads).
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress, TextColumn
from torch import nn
from torch.nn import functional

from backbone_training import augmentation, statistics
from backbone_training.data import Pictures
from backbone_training.losses import Objective
from backbone_training.network import Pyramid
from backbone_training.recipe import Recipe

CHECKPOINT, LOG, RECIPE = "checkpoint.pt", "log.jsonl", "recipe.json"
# Few numbers that everything hangs on: at the full rate they swing, and the loss with them.
SLOW = ("steepness", "border", "level_weights")
TELL = 25  # steps between lines in the log


class Trainer(nn.Module):
    """The network and what it is judged by, as one module with one set of weights."""

    def __init__(self, recipe: Recipe, classes: int) -> None:
        super().__init__()
        self.pyramid = Pyramid(recipe.widths, recipe.depths)
        self.objective = Objective(recipe, classes)


def batch_randomness(seed: int, epoch: int, step: int) -> torch.Generator:
    """The source of everything random in one step."""
    state = np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of pictures in one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def pictures_a_step(recipe: Recipe) -> int:
    """How many pictures one batch takes."""
    unique = recipe.canvases - recipe.pairs
    large = round(unique * recipe.large)
    return 4 * (unique - large) + large


def rate_at(recipe: Recipe, done: float) -> float:
    """The learning rate after the share `done` of all steps: up along a line, down along a cosine."""
    if done < recipe.warm_up:
        return recipe.rate * (0.02 + 0.98 * done / recipe.warm_up)
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * (done - recipe.warm_up) / (1 - recipe.warm_up))) + 1e-5


class Threads:
    """Finds out, now and then, whether one thread fewer is faster: on a machine that others use, each barrier waits for the thread that was put off."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.times: dict[int, list[float]] = {}
        self.steps = 0
        self.trying: list[int] = []

    def before(self) -> None:
        """Choose the threads of the next step."""
        if self.most < 2:
            return
        if self.steps % 60 == 0:
            self.times = {most: [] for most in (self.most, self.most - 1)}
            self.trying = [self.most] * 3 + [self.most - 1] * 3
        if self.trying:
            torch.set_num_threads(self.trying.pop(0))
        elif self.steps % 60 == 6:
            torch.set_num_threads(min(self.times, key=lambda n: min(self.times[n])))
        self.steps += 1

    def after(self, seconds: float) -> None:
        """Note what the step took."""
        if self.most > 1:
            self.times[torch.get_num_threads()].append(seconds)


class Loop:
    """One run in one folder."""

    def __init__(
        self,
        recipe: Recipe,
        train: Pictures,
        val: Pictures,
        out: Path,
        *,
        device: str = "cpu",
        share: bool = False,
        start: Path | None = None,
    ) -> None:
        self.recipe, self.train, self.val, self.out, self.device = recipe, train, val, out, device
        torch.manual_seed(recipe.seed)
        self.model = Trainer(recipe, train.classes).to(device, memory_format=torch.channels_last)
        self.average = Trainer(recipe, train.classes).to(device, memory_format=torch.channels_last)
        self.average.load_state_dict(self.model.state_dict())
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        slow = [p for name, p in self.model.objective.named_parameters() if name in SLOW]
        vectors = [p for p in self.model.parameters() if p.ndim <= 1 and all(p is not other for other in slow)]
        self.optimiser = torch.optim.SGD(
            [{"params": matrices, "weight_decay": recipe.decay}, {"params": vectors, "weight_decay": 0.0}, {"params": slow, "weight_decay": 0.0, "share": 0.1}],
            lr=recipe.rate, momentum=recipe.momentum, nesterov=True,
        )  # fmt: skip
        self.steps = len(train) // pictures_a_step(recipe)
        self.epoch = 0
        self.threads = Threads(torch.get_num_threads() if share else 1)
        self.out.mkdir(parents=True, exist_ok=True)
        if (self.out / CHECKPOINT).is_file():
            self._resume()
        elif start:
            self._begin_with(start)
        else:
            (self.out / LOG).write_text("")
        (self.out / RECIPE).write_text(json.dumps(asdict(recipe), indent=1) + "\n")

    def run(self, *, until: int | None = None) -> None:
        """Train to the end, or to the end of epoch `until`; the rate follows the whole schedule in either case."""
        last = self.recipe.epochs if until is None else until
        with Progress(
            *Progress.get_default_columns(), TextColumn("{task.fields[loss]}"), refresh_per_second=1
        ) as progress:
            total, done = self.steps * self.recipe.epochs, self.steps * self.epoch
            task = progress.add_task("training", total=total, completed=done, loss="")
            while self.epoch < last:
                self._run_epoch(lambda loss: progress.update(task, advance=1, loss=f"loss {loss:.3f}"))
                self.epoch += 1
                self._log({"epoch": self.epoch, **self.judge()})
                self._save()

    def _run_epoch(self, advance: Callable[[float], None]) -> None:
        self.model.train()
        order = epoch_order(self.recipe.seed, self.epoch, len(self.train))
        each = pictures_a_step(self.recipe)
        sums: dict[str, float] = {}
        since = time.perf_counter()
        for step in range(self.steps):
            self.threads.before()
            start = time.perf_counter()
            parts = self._step(order[step * each : (step + 1) * each], step)
            self.threads.after(time.perf_counter() - start)
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value
            advance(parts["total"])
            if (step + 1) % TELL == 0:
                pace = TELL * each / (time.perf_counter() - since)
                line = {name: round(value / TELL, 4) for name, value in sums.items()}
                self._log(
                    {
                        "epoch": self.epoch,
                        "step": step + 1,
                        **line,
                        "pictures_a_second": round(pace),
                        "threads": torch.get_num_threads(),
                    }
                )
                sums, since = {}, time.perf_counter()

    def _step(self, rows: np.ndarray, step: int) -> dict[str, float]:
        done = (self.epoch * self.steps + step) / (self.recipe.epochs * self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(self.recipe, done) * group.get("share", 1.0)
        rng = batch_randomness(self.recipe.seed, self.epoch, step)
        rows = np.sort(rows)
        pictures = torch.from_numpy(self.train.pictures[rows]).to(self.device)
        labels = torch.from_numpy(self.train.labels[rows])
        batch = augmentation.make_batch(pictures, labels, self.recipe, rng)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16):
            maps = self.model.pyramid(batch.canvases)
        loss, parts = self.model.objective(maps, batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimiser.step()
        self._follow(self.epoch * self.steps + step)
        return {"total": loss.item(), **parts}

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Draw the averaged weights towards the present ones; faster in the beginning."""
        keep = min(self.recipe.average, (1 + step) / (10 + step))
        ours = [t for t in self.average.state_dict().values() if t.is_floating_point()]
        theirs = [t for t in self.model.state_dict().values() if t.is_floating_point()]
        torch._foreach_lerp_(ours, theirs, 1 - keep)

    @torch.no_grad()
    def judge(self) -> dict[str, float]:
        """Top-1 of the averaged weights on the held-out pictures, as they are and enlarged twofold."""
        self.average.eval()
        right = {1: 0, 2: 0}
        count = len(self.val)
        for start in range(0, count, 500):
            pictures = torch.from_numpy(self.val.pictures[start : start + 500]).to(self.device).permute(0, 3, 1, 2)
            labels = torch.from_numpy(self.val.labels[start : start + 500]).to(self.device)
            for factor in right:
                if factor == 2 and start >= 2000:
                    continue  # four times the work: a fifth of the pictures
                scaled = pictures.float() / 255
                if factor > 1:
                    scaled = functional.interpolate(scaled, scale_factor=factor, mode="bilinear")
                with torch.autocast(torch.device(self.device).type, torch.bfloat16):
                    maps = self.average.pyramid(augmentation.normalise(scaled))
                right[factor] += int((self.average.objective.classify(maps) == labels).sum())
        return {"top1": right[1] / count, "top1_enlarged": right[2] / min(count, 2000)}

    def _save(self) -> None:
        state = {
            "recipe": asdict(self.recipe), "epoch": self.epoch, "model": self.model.state_dict(),
            "average": self.average.state_dict(), "optimiser": self.optimiser.state_dict(),
            "statistics": statistics.measure(self.average.pyramid.eval(), self.train.pictures, self.device),
            "log": (self.out / LOG).stat().st_size,
        }  # fmt: skip
        part = self.out / f"{CHECKPOINT}.part"
        torch.save(state, part)
        part.replace(self.out / CHECKPOINT)

    def _resume(self) -> None:
        state = torch.load(self.out / CHECKPOINT, weights_only=True, map_location=self.device)
        ours = asdict(self.recipe)
        if other := {name for name, value in state["recipe"].items() if ours.get(name) != value}:
            raise SystemExit(f"{self.out}: a run with other {', '.join(sorted(other))} was begun here; see {RECIPE}")
        os.truncate(self.out / LOG, state["log"])  # the lines of an epoch that was not finished
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch = state["epoch"]

    def _begin_with(self, start: Path) -> None:
        """Take the weights of another run, but for parts that it has not."""
        weights = torch.load(start, weights_only=True, map_location=self.device)["average"]
        self.model.load_state_dict(weights, strict=False)
        self.average.load_state_dict(self.model.state_dict())

    def _log(self, line: dict[str, Any]) -> None:
        with (self.out / LOG).open("a") as log:
            log.write(json.dumps(line) + "\n")
