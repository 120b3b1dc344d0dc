"""gsva-mini's training from beginning to end."""

from __future__ import annotations

from pathlib import Path

import sentencepiece
import torch

from ..model.checkpoint import save_pretrained
from ..model.gsva import GSVA
from ..model.prompt import Prompt
from ..scenes import SceneSet
from .frames import Frames
from .grounding import Grounding, give_places
from .joint import train_joint
from .language import FeatureCache, LanguageLoss, reading_modules, train_language
from .prompts import SymbolicPrompt
from .recipe import Recipe, mini_config, pick_device
from .text import INSTRUCTIONS, JOINERS, UNSEEN, Branches, train_tokenizer
from .vision import pretrain_clip, pretrain_sam


class MiniTraining:
    """The stages of gsva-mini over one folder of train scenes; `out` holds all checkpoints.

    Raises:
        ValueError: the scenes are not of the train split.
    """

    def __init__(self, data: Path, out: Path, device: str, limit: int | None = None) -> None:
        self.scenes = SceneSet(data, "train", limit)
        self.out, self.device, self.recipe = out, pick_device(device), Recipe()
        out.mkdir(parents=True, exist_ok=True)
        tokenizer = out / "tokenizer.model"
        if not tokenizer.exists():
            train_tokenizer(self._texts(), tokenizer)
        torch.manual_seed(0)
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
        self.config = mini_config(pieces.vocab_size())
        self.model = GSVA(self.config).to(self.device)
        assert self.model.model.mm_position is not None
        clip = self.config.clip
        give_places(self.model.model.mm_position, clip["image_size"] // clip["patch_size"])
        self.prompt = Prompt.load(tokenizer, self.config)
        self.frames = Frames(self.scenes, self.config)
        counts = len(self.scenes.kinds), len(self.scenes.colours), len(self.scenes.sizes)
        self.symbolic = SymbolicPrompt(*counts, self.config.sam["prompt_embed_dim"]).to(self.device)
        self.grounding = Grounding(self.model, self.scenes).to(self.device)

    def _texts(self) -> list[str]:
        """What the tokenizer is made for: every training phrase and the words around it."""
        texts = [
            f"\nSegment {e.text}, {e.text}. ASSISTANT: Sure,{e.text}:"
            for expressions in self.scenes.expressions[:4000]
            for e in expressions
        ]
        return texts + ["USER:", *INSTRUCTIONS, *UNSEEN, *JOINERS] * 200

    def run(self, stage: str, steps: int | None) -> None:
        """Run one of the stages "clip", "sam", "language", "joint"; `steps` replaces the recipe's."""
        recipe, path = self.recipe, self.out / f"{stage}.pt"
        if stage == "clip":
            pretrain_clip(
                self.model, self.scenes, self.frames, steps or recipe.clip_steps, path, self.device
            )
        elif stage == "sam":
            steps = steps or recipe.sam_steps
            pretrain_sam(
                self.model, self.scenes, self.frames, self.symbolic, steps, path, self.device
            )
        elif stage == "language":
            self._load("clip", tower=self.model.model.vision_tower)
            features = self.out / "clip_tokens.npy"
            cache = FeatureCache(self.model, self.frames, features, self.device)
            train_language(self._loss(), cache, steps or recipe.language_steps, path)
        else:
            inner = self.model.model
            self._load("clip", tower=inner.vision_tower)
            self._load("sam", visual=inner.visual_model, symbolic=self.symbolic)
            reading = torch.nn.ModuleList(reading_modules(self.model))
            self._load("language", reading=reading, grounding=self.grounding)
            steps = steps or recipe.joint_steps
            train_joint(self._loss(), self.symbolic, self.frames, steps, path)
            self._export()

    def _loss(self) -> LanguageLoss:
        branches = Branches(self.prompt)
        return LanguageLoss(self.model, self.scenes, branches, self.grounding, self.device)

    def _load(self, stage: str, **modules: torch.nn.Module) -> None:
        path = self.out / f"{stage}.pt"
        if not path.exists():
            raise FileNotFoundError(f"{path}: run the stage {stage!r} first")
        state = torch.load(path, weights_only=True, map_location=self.device)["modules"]
        for name, module in modules.items():
            module.load_state_dict(state[name])

    def _export(self) -> None:
        """Write the model as the engine loads it."""
        save_pretrained(self.model, self.prompt.tokenizer, self.out / "gsva-mini")
