"""A SAM 3 of a few thousand parameters with random weights, as saved by transformers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import CLIPTokenizer, Sam3Config, Sam3Model

SIDE = 56


def tiny_directory(folder: Path) -> Path:
    """A SAM 3 as saved by transformers, with a tokenizer that splits words into letters."""
    torch.manual_seed(0)
    width = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48}
    vit = width | {"num_hidden_layers": 2, "image_size": SIDE, "patch_size": 14}
    vit |= {
        "model_type": "sam3_vit_model",
        "window_size": 2,
        "global_attn_indexes": [1],
        "pretrain_image_size": SIDE,
    }
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    text = width | {"num_hidden_layers": 2, "vocab_size": len(words), "projection_dim": 32}
    text |= {"max_position_embeddings": 64, "eos_token_id": 1, "bos_token_id": 0}
    config = Sam3Config(
        vision_config={
            "backbone_config": vit,
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config=text,
        geometry_encoder_config=width | {"num_layers": 1},
        detr_encoder_config=width | {"num_layers": 1},
        detr_decoder_config=width | {"num_layers": 1, "num_queries": 5},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    model = Sam3Model(config)
    # Presence is certain, and instances lie on both sides of the minimum score.
    with torch.no_grad():
        model.detr_decoder.presence_head.layer3.bias.fill_(3.0)
        model.detr_decoder.query_embed.weight.mul_(40.0)
        model.dot_product_scoring.query_proj.weight.mul_(1000.0)
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({w: n for n, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.save_pretrained(folder)
    preprocessor = {"size": {"height": SIDE, "width": SIDE}}
    preprocessor |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder
