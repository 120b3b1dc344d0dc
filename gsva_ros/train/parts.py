"""Which parameters are trained: whole parts by name, and LoRA factors on frozen weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from ..errors import InputError
from ..model.bundled import bundled
from ..model.checkpoint import Checkpoint, write_model
from ..model.gsva import GSVA
from ..model.weights import ADAPTER_FILES, PEFT_PREFIX, SHA256, merge_lora, write_state
from .config import Config, Lora, Official, Part

ADAPTER = "default"


def part(model: GSVA, name: Part) -> list[nn.Module]:
    """The modules of a part."""
    inner = model.model
    modules: dict[Part, list[nn.Module | None]] = {
        "language_model": [inner.layers, inner.norm],
        "embed_tokens": [inner.embed_tokens],
        "lm_head": [model.lm_head],
        "projector": [inner.mm_projector, inner.mm_norm, inner.mm_position],
        "text_hidden_fcs": [inner.text_hidden_fcs],
        "mask_decoder": [inner.visual_model.mask_decoder],
        "image_encoder": [inner.visual_model.image_encoder],
        "vision_tower": [inner.vision_tower],
        "refiner": [model.refiner],
    }
    return [module for module in modules[name] if module is not None]


def select(model: GSVA, config: Config) -> list[dict[str, Any]]:
    """Freeze all but the chosen parts and LoRA factors; returns one optimiser group per part.

    Frozen weights are stored in the run's precision, trained ones in float32.

    Raises:
        InputError: nothing is trained, LoRA is combined with a fully trained language model, or its rank
            exceeds the model's width.
    """
    if config.lora and "language_model" in config.parts:
        raise InputError("parts: language_model is fully trained, so lora adds nothing: remove one")
    if config.lora and config.lora.rank > model.config.hidden_size:
        raise InputError(
            f"lora.rank: {config.lora.rank} is more than the width of the model, "
            f"{model.config.hidden_size}: choose a lower one, such as 8"
        )
    model.requires_grad_(False)
    if config.lora:
        inject_adapter_in_model(_lora_config(config.lora), model, ADAPTER)
    groups = [
        group(name, [p for module in part(model, name) for p in module.parameters()], lr)
        for name, lr in config.parts.items()
    ]
    if config.lora:
        factors = [p for name, p in model.named_parameters() if ".lora_" in name]
        groups.append(group("lora", factors, config.lora.lr))
    if not groups:
        raise InputError("parts and lora are empty: nothing would be trained")
    for each in groups:
        for parameter in each["params"]:
            parameter.requires_grad_(True)
    stored = getattr(torch, config.precision)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else stored)
    return groups


def partway(model: GSVA, share: float) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """A function that interpolates a trained state: `share` of the way from the current weights to it.

    Call it after `select`, which determines what is trained. LoRA factors start with no contribution, so
    theirs is multiplied by `share`. Source: Wortsman et al., CVPR 2022, equation 2.
    """
    if share == 1.0:
        return lambda state: state
    began = {
        name: parameter.detach().cpu().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and ".lora_" not in name
    }

    def blended(name: str, value: Tensor) -> Tensor:
        if name in began:
            return began[name].to(value.dtype).lerp(value.cpu(), share)
        return value * share if ".lora_B." in name else value

    return lambda state: {name: blended(name, value) for name, value in state.items()}


def base_of(checkpoint: Checkpoint) -> str:
    """Identifies the weights that training starts from: those of the file, at the size of its frames."""
    side = checkpoint.model.config.sam.image_size  # `side` interpolates position embeddings
    return f"{checkpoint.weights_hash} at {side}"


def divided(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A task's state dict as that of its `model`, and the rest: heads that only training needs."""
    prefix = "model."
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return own, {k: v for k, v in state.items() if not k.startswith(prefix)}


def export(checkpoint: Checkpoint, state: dict[str, Tensor], config: Config, to: Path) -> None:
    """Write a directory for `gsva_ros.load`: a whole model with LoRA merged, or an adapter on its base.

    Args:
        state: the model's state dict in training.
    """
    state = {name: value.detach().cpu() for name, value in state.items()}
    if config.export == "adapter":
        _export_adapter(checkpoint, state, config, to)
        return
    whole = {name.replace(".base_layer.", "."): value for name, value in state.items()}
    if config.lora:
        whole = merge_lora(whole, config.lora.alpha)
    write_model(checkpoint.model.config, checkpoint.prompt.tokenizer, whole, to)


def _export_adapter(
    checkpoint: Checkpoint, state: dict[str, Tensor], config: Config, to: Path
) -> None:
    """Write peft's two files: adapter_config.json, and the trained weights under peft's names."""
    trained = {name for name, p in checkpoint.model.named_parameters() if p.requires_grad}
    kept = {f"{PEFT_PREFIX}{name}": state[name] for name in trained}
    adapter = _lora_config(config.lora) if config.lora else LoraConfig(r=1, target_modules=[])
    adapter.base_model_name_or_path = _base_name(config.model)
    adapter.revision = f"{SHA256}{checkpoint.weights_hash}"
    adapter.modules_to_save = sorted(config.parts)
    adapter.save_pretrained(str(to))
    named = {n.replace(f".{ADAPTER}.", "."): v for n, v in kept.items()}
    write_state(named, to / ADAPTER_FILES[0])


def _base_name(model: str | Official) -> str:
    """An adapter's base, named as it can be found from any working directory."""
    if isinstance(model, str) and model in bundled():
        return model
    path = model.weights if isinstance(model, Official) else Path(model)
    # Not resolved: another run's `model` is a link to what it may remove.
    return str(path.absolute())


def _lora_config(lora: Lora) -> LoraConfig:
    projections = "|".join(lora.modules)
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a fraction serves as well
        lora_dropout=lora.dropout,
        target_modules=rf"model\.layers\.\d+\.self_attn\.({projections})",
    )


def group(name: str, parameters: list[nn.Parameter], lr: float) -> dict[str, Any]:
    """A group of the optimiser; lr: its peak learning rate."""
    return {"name": name, "params": parameters, "lr": lr, "peak": lr}


def memory(groups: list[dict[str, Any]], model: nn.Module) -> int:
    """Lower bound of the bytes for weights, gradients and AdamW's moments, without activations."""
    trained = {id(p) for group in groups for p in group["params"]}
    sizes = ((p, 16 if id(p) in trained else p.element_size()) for p in model.parameters())
    return sum(p.numel() * size for p, size in sizes)
