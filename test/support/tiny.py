"""A GSVA of a few thousand parameters with random weights, and a tokenizer trained on demand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import sentencepiece
import torch

from gsva_ros.model.checkpoint import Checkpoint, save_pretrained
from gsva_ros.model.config import GSVAConfig
from gsva_ros.model.gsva import GSVA
from gsva_ros.model.prompt import Prompt
from gsva_ros.model.tokenizer import Tokenizer

SENTENCES = [
    "USER: Segment the red mug, all green boxes, the can left of the ball. ASSISTANT: "
    "Sure,the mug:",
    "What are the two balls in this image? Please output segmentation masks.",
]


def tiny_tokenizer_model() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=330,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def tiny_config(text_vocabulary: int, **changes: Any) -> GSVAConfig:
    fields: dict[str, Any] = {
        "llm": {
            "vocab_size": text_vocabulary + 4,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            # Far from uniform, so that different words give clearly different answers.
            "initializer_range": 0.3,
        },
        "clip": {
            "image_size": 32,
            "patch_size": 8,
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "stem": "conv",
        },
        "sam": {
            "image_size": 64,
            "patch_size": 8,
            "embed_dim": 16,
            "depth": 2,
            "num_heads": 2,
            "global_attn_indexes": [1],
            "window_size": 4,
            "prompt_embed_dim": 32,
            "decoder_mlp_dim": 32,
            "decoder_heads": 2,
            "mask_in_chans": 4,
            "mlp_ratio": 2,
            "stem": "conv",
        },
        "seg_token_id": text_vocabulary,
        "rej_token_id": text_vocabulary + 1,
        "im_start_token_id": text_vocabulary + 2,
        "im_end_token_id": text_vocabulary + 3,
        "conversation": "gsva_mini",
        "use_im_start_end": False,
        "image_token_norm": True,
        "image_token_position": True,
        "preprocessor": {
            "size": {"height": 32, "width": 32},
            "do_center_crop": False,
            "rescale_factor": 1 / 255,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.25, 0.25, 0.25],
        },
    }
    return GSVAConfig(**fields | changes)


def tiny_checkpoint(**changes: Any) -> Checkpoint:
    model = tiny_tokenizer_model()
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    config = tiny_config(pieces.vocab_size(), **changes)
    torch.manual_seed(0)
    prompt = Prompt(Tokenizer(model, config), config)
    return Checkpoint(GSVA(config).eval(), prompt, weights_hash="tiny")


def tiny_gsva(folder: Path) -> Path:
    """Save a `tiny_checkpoint`; returns the folder."""
    checkpoint = tiny_checkpoint()
    save_pretrained(checkpoint.model, checkpoint.prompt.tokenizer, folder)
    return folder


def tiny_lisa(folder: Path, sees: bool) -> Path:
    """Save a LISA with random weights whose masks all cover the whole frame, or are all empty."""
    checkpoint = tiny_checkpoint(family="lisa", rej_token_id=None, conversation="llava_v1")
    decoder: Any = checkpoint.model.model.visual_model.mask_decoder
    with torch.no_grad():
        decoder.output_upscaling[-2].weight.zero_()
        decoder.output_upscaling[-2].bias.fill_(1.0)
        for head in decoder.output_hypernetworks_mlps:
            head.layers[-1].weight.zero_()
            head.layers[-1].bias.fill_(1.0 if sees else -1.0)
    save_pretrained(checkpoint.model, checkpoint.prompt.tokenizer, folder)
    return folder
