"""The training loop: batches, losses, optimiser steps, and checkpoints from which a killed run resumes.

accelerate runs it on one CPU, one GPU or several (configured there: DDP, FSDP, DeepSpeed). The loop is
independent of what is trained on which data (`Task`) and of how it is evaluated (`Evaluate`).
"""

from __future__ import annotations

import filecmp
import io
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import RNG_STATE_NAME, load
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..errors import InputError, one_line
from ..files import only_writer, write_whole
from ..model.config import CALIBRATION_NAME, CONFIG_NAME
from ..processes import processes
from .config import Config
from .movable import Movable

STATE, MODEL, BEST = "state", "model", "best"
#: The file whose lock a run holds.
LOCK = "lock"
#: accelerate's name of the `Progress` in a state.
_PROGRESS = "custom_checkpoint_0.pkl"
#: What a run writes and later removes; it never touches other files in its folder.
_STATES = re.compile(rf"{STATE}-(\d{{6,}})")
_REMOVED = re.compile(rf"{STATE}-\d{{6,}}(\.partial)?|{MODEL}-\d{{6,}}-\w{{8}}")

#: Computes metrics of a model directory, such as gIoU.
Evaluate = Callable[[Path], Mapping[str, float]]


@dataclass(frozen=True)
class Task:
    """What is trained, and on which data.

    Attributes:
        module: called with a batch, returns the loss and metrics.
        groups: AdamW's parameter groups, each with "name" and "peak", its peak learning rate.
        batches: an endless data set, batch n at index n.
        export: writes the module's state to a folder that `gsva_ros.load` can load.
        base: identifies the weights that training starts from; "": they depend on the config alone.
    """

    module: nn.Module
    groups: list[dict[str, Any]]
    batches: Dataset[Any]  # of `Movable` or tensors
    export: Callable[[dict[str, Tensor], Path], None]
    base: str = ""


@dataclass
class Progress:
    """A run's progress; saved with its state.

    trained: names of the trained parameters, in the optimiser's order. base: that of the `Task`. evaluated:
    the last step that was evaluated. measure: the evaluation's metric and cases; values of another one are
    not comparable with `best`.
    """

    trained: list[str]
    base: str = ""
    measure: tuple[str, ...] = ()
    step: int = 0
    best: float = -math.inf
    misses: int = 0
    evaluated: int = 0

    def state_dict(self) -> dict[str, Any]:
        """The state that accelerate saves."""
        return vars(self).copy()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that accelerate loads; what was evaluated by another measure starts anew.

        Raises:
            ValueError: that run trained other parameters, or started from another base model.
        """
        if state.get("trained", self.trained) != self.trained:
            raise ValueError("its `parts` or `lora` were different, or in another order")
        # A state holds only what is trained: all other weights come from the base model.
        if state.get("base", self.base) != self.base:
            raise ValueError("it started from other weights: `model`, its files or `side` differed")
        # Without the fields, a state was saved after its step was evaluated, by the same measure.
        state = {"evaluated": state["step"], "measure": self.measure} | state
        if self.measure and state["measure"] != self.measure:
            state |= {"best": -math.inf, "misses": 0, "evaluated": 0, "measure": self.measure}
        vars(self).update(state)


class _Told(Dataset[Movable | InputError]):
    """The batches; if one cannot be made, the error itself as an item.

    An exception raised in a `DataLoader` worker would have the traceback in its message.
    """

    def __init__(self, batches: Dataset[Movable]) -> None:
        self._batches = batches

    def __getitem__(self, number: int) -> Movable | InputError:
        try:
            return self._batches[number]
        except InputError as error:
            return error


class Trainer:
    """Runs a task for the configured number of steps, resuming where an earlier run stopped."""

    def __init__(self, config: Config, task: Task, evaluate: Evaluate | None = None) -> None:
        self.config, self.task, self.evaluate = config, task, evaluate
        names = {id(p): name for name, p in task.module.named_parameters()}
        trained = [names[id(p)] for group in task.groups for p in group["params"]]
        how = config.evaluation
        measure = (how.metric, how.cases) if how else ()
        self.progress = Progress(trained, task.base, measure)
        processes()
        # accelerate keeps one precision per process, and an earlier run may have used another.
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(
            mixed_precision="bf16" if config.precision == "bfloat16" else "no",
            gradient_accumulation_steps=config.accumulation,
            log_with="tensorboard",
            project_dir=config.out,
            step_scheduler_with_optimizer=False,
            # Batches of text alone leave the mask decoder without gradients.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        optimizer = torch.optim.AdamW(
            task.groups, betas=config.betas, weight_decay=config.weight_decay
        )
        self.module, self.optimizer = self.accelerator.prepare(task.module, optimizer)
        self.accelerator.register_for_checkpointing(self.progress)
        self.accelerator.register_save_state_pre_hook(self._without_frozen)

    def run(self) -> int:
        """Train to the end, or until the evaluation has not improved for long enough.

        Returns:
            the number of steps of this call; 0 if the run had ended before: then the model is only exported
            again, with the `blend` and `export` of the current config, and evaluated if that had failed.

        Raises:
            InputError: another process is training in this folder, or the run cannot go on.
        """
        with ExitStack() as held:
            if self.accelerator.is_main_process:
                with self._writing():
                    held.enter_context(only_writer(self.config.out / LOCK))
            return self._run()

    def _run(self) -> int:
        config, here = self.config, self.accelerator
        self._resume()
        with self._writing():
            here.init_trackers("curves")
        if self._ended() or self._due():
            with self._writing():
                self._export()  # the model of the loaded state, as the config says now
            if here.is_main_process:
                self._tidy()
            self._evaluate()
        first, began = self.progress.step, time.monotonic()
        bar = tqdm(
            total=config.steps,
            initial=first,
            desc=config.out.name,
            mininterval=5.0,
            disable=not here.is_main_process,
        )
        batches = iter(self._loader())
        self.module.train()
        while not self._ended():
            figures = self._step(batches)
            self.progress.step += 1
            with self._writing():
                here.log(figures, step=self.progress.step)
            done, seconds = self.progress.step - first, time.monotonic() - began
            pictures = config.batch * config.accumulation * here.num_processes * done / seconds
            shown = {"loss": f"{figures['loss']:.3f}", "images/s": f"{pictures:.1f}"}
            bar.set_postfix(shown, refresh=False)
            bar.update()
            self._look()
        bar.close()
        here.end_training()
        return self.progress.step - first

    def _loader(self) -> DataLoader[Movable | InputError]:
        config, here = self.config, self.accelerator
        each = config.accumulation * here.num_processes  # batches of a step
        first, end = self.progress.step * each, config.steps * each
        return DataLoader(
            _Told(self.task.batches),
            batch_size=None,
            # One of `num_processes` batches in a row is this process's.
            sampler=range(first + here.process_index, end, here.num_processes),
            num_workers=config.workers,
            pin_memory=here.device.type == "cuda",
            # A generator of its own: a loader draws from it at its start, which a resumed run repeats.
            generator=torch.Generator(),
        )

    def _step(self, batches: Any) -> dict[str, float]:
        """One optimiser step; returns the metrics' means over its forward passes."""
        here, factor = self.accelerator, self._factor()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        passes = []
        for _ in range(self.config.accumulation):
            batch = next(batches)
            if isinstance(batch, InputError):
                raise batch
            batch = batch.to(here.device)
            with here.accumulate(self.module):
                loss, figures = self.module(batch)
                if not loss.isfinite():
                    raise self._diverged(f"the loss is {loss.item()}")
                here.backward(loss)
                if here.sync_gradients and not self._clip():
                    raise self._diverged("the gradient is infinite or not a number")
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
            passes.append({name: float(value) for name, value in figures.items()})
        # A pass may lack some metrics, such as those of relations.
        names = dict.fromkeys(name for figures in passes for name in figures)
        means = {name: _mean([p[name] for p in passes if name in p]) for name in names}
        return means | {"lr": factor}

    def _diverged(self, what: str) -> InputError:
        return InputError(
            f"step {self.progress.step + 1}: {what}: lower the learning rates in `parts` and `lora`, or "
            f"train in float32; {self.config.out / STATE}* holds the last good state"
        )

    def _clip(self) -> bool:
        """Clip the gradients; whether they are finite, as far as accelerate tells (DeepSpeed does not)."""
        groups = [group["params"] for group in self.optimizer.param_groups]
        if not self.config.clip_parts:
            groups = [[p for group in groups for p in group]]
        norms = [self.accelerator.clip_grad_norm_(group, self.config.clip) for group in groups]
        return all(math.isfinite(norm) for norm in norms if norm is not None)

    def _factor(self) -> float:
        """The factor of the peak learning rates at this step."""
        step, config = self.progress.step, self.config
        if step < config.warmup:
            return (step + 1) / config.warmup
        left = 1.0 - (step - config.warmup) / max(1, config.steps - config.warmup)
        return left if config.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)

    # Evaluation and checkpoints

    def _look(self) -> None:
        """Save and evaluate if this step is due."""
        step, config = self.progress.step, self.config
        if self._due() or step == config.steps or step % config.save_every == 0:
            with self._writing():
                self._export()
                self._save()  # before the evaluation, which may fail: no step is lost then
        self._evaluate()

    def _due(self) -> bool:
        """Whether this step is to be evaluated, and has not been."""
        how, step = self.config.evaluation, self.progress.step
        if not how or not self.evaluate or step == self.progress.evaluated:
            return False
        return step == self.config.steps or step % how.every == 0

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn write errors into InputError; torch and safetensors report a full disk as various types."""
        try:
            yield
        except (OSError, SafetensorError, RuntimeError) as error:
            whole = states(self.config.out)
            goes_on = f"from {whole[-1]}" if whole else "from the beginning"
            raise InputError(
                f"step {self.progress.step}: {self.config.out} cannot be written: {one_line(error)}; once "
                f"that is fixed, the same command continues {goes_on}"
            ) from error

    def _evaluate(self) -> None:
        """Evaluate the exported model if that is due."""
        if not self._due():
            return
        how, here = self.config.evaluation, self.accelerator
        assert how
        assert self.evaluate
        # The state was saved before: what is drawn here must not change the steps after it.
        with torch.random.fork_rng([here.device] if here.device.type == "cuda" else []):
            figures = dict(self.evaluate(self.config.out / MODEL))
        here.log(
            {f"evaluation/{name}": value for name, value in figures.items()}, self.progress.step
        )
        if math.isnan(figures[how.metric]):
            raise InputError(
                f"evaluation.metric: {how.metric} is undefined on {how.cases!r}: choose another metric, or "
                "cases with absent expressions for N_acc and with present ones for the others"
            )
        better = self._judge(figures[how.metric])
        if here.is_main_process:
            shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
            tqdm.write(f"step {self.progress.step}: {shown}{'  (best so far)' if better else ''}")

    def _judge(self, value: float) -> bool:
        """Whether this value is the best so far: then `best` is that model. Saves the progress."""
        progress, out = self.progress, self.config.out
        better = value > progress.best
        progress.best = max(value, progress.best)
        progress.misses = 0 if better else progress.misses + 1
        progress.evaluated = progress.step
        if self.accelerator.is_main_process:
            if better:
                _point(out / BEST, (out / MODEL).resolve())
            with self._writing():
                self._save_progress()
            self._tidy()
        return better

    def _ended(self) -> bool:
        """Whether all steps are done, or the evaluation has not improved for long enough."""
        how, progress = self.config.evaluation, self.progress
        tired = bool(how and how.patience and progress.misses >= how.patience)
        return tired or progress.step >= self.config.steps

    def _export(self) -> None:
        """Write the model; `model` in the run's folder is complete at any moment."""
        here, out = self.accelerator, self.config.out
        state = here.get_state_dict(self.module)
        if here.is_main_process:
            # If the run is killed after this, the resumed run may write the same step again.
            fresh = Path(tempfile.mkdtemp(prefix=f"{MODEL}-{self.progress.step:06d}-", dir=out))
            fresh.chmod(0o755)
            self.task.export(state, fresh)
            _replace(out / MODEL, fresh)
        here.wait_for_everyone()

    def _save(self) -> None:
        """Write the state to resume from; if the run is killed meanwhile, the previous one stays intact."""
        here, out = self.accelerator, self.config.out
        name = f"{STATE}-{self.progress.step:06d}"
        here.save_state(str(out / f"{name}.partial"))
        here.wait_for_everyone()
        if here.is_main_process:
            shutil.rmtree(out / name, ignore_errors=True)
            (out / f"{name}.partial").rename(out / name)
            self._tidy()
        here.wait_for_everyone()

    def _save_progress(self) -> None:
        """Replace the progress in the latest state by that after its evaluation."""
        content = io.BytesIO()
        torch.save(self.progress.state_dict(), content)
        write_whole(states(self.config.out)[-1] / _PROGRESS, content.getvalue())

    def _tidy(self) -> None:
        """Remove all but the latest state and the linked models; also what a killed run left."""
        out = self.config.out
        kept = {(out / link).resolve().name for link in (MODEL, BEST)}
        kept |= {state.name for state in states(out)[-1:]}
        for old in out.iterdir() if out.is_dir() else ():
            if _REMOVED.fullmatch(old.name) and old.name not in kept:
                shutil.rmtree(old)

    def _without_frozen(self, _: Any, states: list[dict[str, Tensor]], __: str) -> None:
        """Remove frozen weights from the saved state: they come with the base model."""
        module = self.accelerator.unwrap_model(self.module)
        frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
        for state in states:
            for name in frozen & set(state):
                del state[name]

    def _resume(self) -> None:
        found = states(self.config.out)
        if found:
            self._load(found[-1])
        if self.accelerator.is_main_process:
            self._tidy()

    def _load(self, state: Path) -> None:
        """Load a state; InputError if it does not belong to this run."""
        groups = self.optimizer.param_groups
        rates = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        # The type of NumPy's random state, which accelerate leaves out before NumPy 1.25.
        torch.serialization.add_safe_globals([type(np.dtype(np.uint32))])
        try:
            self.accelerator.load_state(str(state), strict=False)
            self._check_random(state)
        except Exception as error:  # torch and accelerate raise various types if it does not fit
            raise InputError(
                f"{state}: not a state of this run: {one_line(error)}; choose another `out`, or "
                "delete the folder to start over"
            ) from error
        # States are saved between steps; accelerate would go on within one of another `accumulation`.
        self.accelerator.step = 0
        # Learning rates are those of the current config, not of the one that wrote the state.
        for group, own in zip(self.optimizer.param_groups, rates, strict=True):
            group.update(own)

    def _check_random(self, state: Path) -> None:
        """Check that the random states were restored: accelerate passes over those that it cannot read."""
        here = self.accelerator
        files = [state / f"{RNG_STATE_NAME}_{n}.pkl" for n in range(here.num_processes)]
        if sorted(state.glob(f"{RNG_STATE_NAME}_*.pkl")) != sorted(files):
            raise ValueError(
                f"it is not of {here.num_processes} processes: start as many as before"
            )
        file = files[here.process_index]
        try:
            restored = torch.equal(load(file)["torch_manual_seed"], torch.get_rng_state())
        except Exception:  # of a damaged file, torch raises any type
            restored = False
        if not restored:
            raise ValueError(f"{file.name} is damaged")


def states(out: Path) -> list[Path]:
    """The complete states in a run's folder, the latest last."""
    found = {path: _STATES.fullmatch(path.name) for path in out.glob(f"{STATE}-*")}
    steps = {path: int(match[1]) for path, match in found.items() if match}
    return sorted(steps, key=lambda path: steps[path])


def _replace(model: Path, fresh: Path) -> None:
    """Point `model` to a fresh export, unless it is the same one and has been calibrated since."""
    if (model / CALIBRATION_NAME).exists():
        names = {path.name for path in fresh.iterdir()} - {CONFIG_NAME}
        _, *others = filecmp.cmpfiles(fresh, model, names, shallow=False)
        if not any(others):
            shutil.rmtree(fresh)
            return
        tqdm.write(
            f"{model}: its calibration does not apply to other weights: run `gsva calibrate`"
        )
    _point(model, fresh)


def _point(link: Path, target: Path) -> None:
    """Atomically point a symlink to a folder next to it."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.name)
    os.replace(fresh, link)


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
