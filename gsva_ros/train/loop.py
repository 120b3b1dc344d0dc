"""What every training stage shares: schedule, clipping per group, checkpoints, resuming, progress."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm


def cosine(step: int, steps: int, warmup: int = 100, floor: float = 0.02) -> float:
    """Learning-rate factor: linear warm-up, then half a cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def decayed(modules: list[nn.Module], lr: float, weight_decay: float = 0.02) -> dict[str, object]:
    """One optimiser group: the trainable parameters of `modules` at one peak learning rate."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    return {"params": parameters, "lr": lr, "peak": lr, "weight_decay": weight_decay}


class Stage:
    """A resumable run of `steps` optimiser steps over the parameters of some modules.

    The checkpoint holds modules, optimiser, step and the random state, so a killed run goes on where
    it stopped. Gradients are clipped for each group by itself: one group's burst cannot starve another.
    """

    def __init__(
        self,
        name: str,
        modules: dict[str, nn.Module],
        groups: list[dict[str, object]],
        steps: int,
        path: Path,
        save_every_s: float = 120.0,
    ) -> None:
        self.name, self.modules, self.steps, self.path = name, modules, steps, path
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        self.save_every_s = save_every_s
        self.step = 0
        if path.exists():
            state = torch.load(path, weights_only=True, map_location="cpu")
            for key, module in modules.items():
                module.load_state_dict(state["modules"][key])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = state["step"]

    def save(self) -> None:
        """Write the checkpoint atomically: a kill leaves the previous one whole."""
        partial = self.path.with_suffix(".partial")
        state = {
            "modules": {key: module.state_dict() for key, module in self.modules.items()},
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        torch.save(state, partial)
        os.replace(partial, self.path)

    def run(
        self, loss_of: Callable[[int], tuple[Tensor, dict[str, float]]], report_every: int = 100
    ) -> None:
        """Call `loss_of(step)`, which returns the loss and figures to show, until all steps are done."""
        saved = time.monotonic()
        sums: dict[str, float] = {}
        counted = 0
        for step in self._progress():
            factor = cosine(step, self.steps)
            for group in self.optimiser.param_groups:
                group["lr"] = group["peak"] * factor
            loss, figures = loss_of(step)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            for group in self.optimiser.param_groups:
                nn.utils.clip_grad_norm_(group["params"], 1.0)
            self.optimiser.step()
            self.step = step + 1
            for key, value in figures.items():
                sums[key] = sums.get(key, 0.0) + value
            counted += 1
            if self.step % report_every == 0 or self.step == self.steps:
                means = "  ".join(f"{k} {v / counted:.4f}" for k, v in sums.items())
                tqdm.write(f"{self.name} step {self.step}/{self.steps}  {means}")
                sums, counted = {}, 0
            if time.monotonic() - saved > self.save_every_s:
                self.save()
                saved = time.monotonic()
        self.save()

    def _progress(self) -> Iterator[int]:
        bar = tqdm(
            range(self.step, self.steps),
            initial=self.step,
            total=self.steps,
            desc=self.name,
            mininterval=5.0,
        )
        yield from bar
