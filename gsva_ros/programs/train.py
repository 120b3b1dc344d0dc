"""`gsva train CONFIG.yaml`: runs training with the base model, sources and evaluation named in the file."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsva_ros.arguments import count
from gsva_ros.errors import InputError

if TYPE_CHECKING:
    from gsva_ros.model.checkpoint import Checkpoint
    from gsva_ros.train.config import Config, Official
    from gsva_ros.train.trainer import Evaluate, Task


def register(subparsers: Any) -> None:
    """Add the `train` command to argparse's subparsers."""
    parser = subparsers.add_parser(
        "train",
        help="train a model on labelled bags, rendered scenes or research data",
        description="Run the training that each file describes, one after another; a run that was stopped "
        "resumes where it was. Under `accelerate launch` it uses several GPUs. See docs/training.md.",
    )
    parser.add_argument(
        "configs", type=Path, nargs="+", metavar="CONFIG", help="YAML file of a run"
    )
    parser.add_argument("--threads", type=count, help="CPU threads")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the training of each file in turn; all files are read before the first run begins."""
    import torch

    from gsva_ros.model.host_memory import keep_freed
    from gsva_ros.train.config import read_config

    if not torch.cuda.is_available():
        keep_freed(whole=True)
    if args.threads:
        torch.set_num_threads(args.threads)
    for config in [read_config(path) for path in args.configs]:
        train(config)
    return 0


def train(config: Config) -> None:
    """Run one training, from its base model to the finished model in the run's folder.

    If it had ended before, only the model is written again; what was done is printed.
    """
    from gsva_ros.model.memory import memory_errors
    from gsva_ros.processes import processes
    from gsva_ros.train.trainer import MODEL, Trainer

    evaluate = evaluation(config)  # its cases are checked before the first step
    task = _task(config)
    with memory_errors("lower `batch` and raise `accumulation` as much, or train fewer `parts`"):
        trainer = Trainer(config, task, evaluate)
        trained = trainer.run()
    if processes().is_main_process:
        model, step = config.out / MODEL, f"step {trainer.progress.step} of {config.steps}"
        if not trained:
            print(f"already at {step}: nothing was trained; for other data choose another `out`")
        done = "trained" if trained else "exported again"
        print(f"{done}: {model}  (gsva_ros.load({str(model)!r}))")


def _task(config: Config) -> Task:
    """What the objective minimises: GSVA's losses, or those of a stage."""
    from gsva_ros.model.bundled import model_directory
    from gsva_ros.train import mini, stages, teach
    from gsva_ros.train.config import Official

    if config.objective == "gsva":
        return teach.task(config, base(config))
    if config.objective not in stages.STAGES:
        raise NotImplementedError(
            f"objective {config.objective}: no task is made for it: give it a row in stages.STAGES, or a "
            "branch in programs/train._task"
        )
    if config.model == mini.NEW:
        return stages.task(config, mini.new_mini(config), None)
    folder = None if isinstance(config.model, Official) else model_directory(config.model)
    return stages.task(config, base(config), folder)


def base(config: Config) -> Checkpoint:
    """The model that training starts from, at the size it is trained at."""
    from gsva_ros.train.enlarge import enlarged

    checkpoint = _read(config.model, config.export)
    return enlarged(checkpoint, config.side) if config.side else checkpoint


def _read(model: str | Official, export: str) -> Checkpoint:
    from gsva_ros.model.bundled import model_directory
    from gsva_ros.model.checkpoint import load_converted, load_official
    from gsva_ros.model.weights import adapter
    from gsva_ros.train.config import Official

    directory = model.weights if isinstance(model, Official) else model_directory(model)
    if export == "adapter" and adapter(directory):
        raise InputError(
            f"export: {directory} is an adapter itself, and adapters cannot be stacked: use export: merged"
        )
    if not isinstance(model, Official):
        return load_converted(directory)
    return load_official(
        model.llava,
        model.weights,
        vision_tower=model.vision_tower,
        conversation=model.conversation,
        lora_alpha=model.lora_alpha,
    )


def evaluation(config: Config) -> Evaluate | None:
    """A function that scores a model directory on the config's cases, as `gsva eval` would."""
    if config.evaluation is None:
        return None
    args = _cases(config.evaluation.cases)

    def evaluate(model: Path) -> Mapping[str, float]:
        import gsva_ros
        from gsva_ros.eval.metrics import Scoring
        from gsva_ros.eval.run import evaluate
        from gsva_ros.eval.summary import Slots

        engine = gsva_ros.load(model)
        with args.gather(args) as gathered:
            # As `gsva eval` does with --skip; without it, such a case ends the run.
            how = Scoring(rules=gathered.rules)
            records = evaluate(
                engine, gathered.cases, how, label="evaluation", problems=gathered.left_out
            )
        slots = Slots.of(records)
        return slots.figures(~slots.kept, how)

    with args.gather(args):
        return evaluate


def _cases(text: str) -> argparse.Namespace:
    from gsva_ros.eval.sources import bag, dataset, scenes

    parser = _Parser(prog="evaluation.cases", add_help=False)
    commands = parser.add_subparsers(required=True, parser_class=_Parser)
    for source, options in ((scenes, ("val",)), (bag, ()), (dataset, ())):
        command = commands.add_parser(source.__name__.rpartition(".")[2], add_help=False)
        source.add_arguments(command, *options)
        command.set_defaults(gather=source.gather)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"evaluation.cases: {text}: {error}") from error
    return parser.parse_args(words)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        """Raise an error about the run's file instead of the command line."""
        raise InputError(f"{self.prog}: {message}")
