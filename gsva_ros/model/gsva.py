"""GSVA: a Llama that generates [SEG] and [REJ], a CLIP vision tower, and SAM for the masks.

Source: "GSVA: Generalized Segmentation via Multimodal Large Language Models", CVPR 2024, and its
official implementation (LeapLabTHU/GSVA). Modules keep the official weight names.

Tensors in, tensors out: pixels are prepared in `clip` and `sam`, words in `prompt`, and what a slot's
logits mean is decided in the engine.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from .clip import ClipVisionTower
from .config import GSVAConfig
from .projector import projector
from .refiner import Refiner
from .sam import VisualModel
from .stems import share_backbone


class GSVAModel(LlamaModel):
    """LlamaModel with GSVA's other modules as attributes, named as in the official state dict."""

    def __init__(self, config: GSVAConfig) -> None:
        llama = LlamaConfig(**config.llm.model_dump())
        llama._attn_implementation = "sdpa"
        super().__init__(llama)
        channels, width = config.clip.hidden_size, config.hidden_size
        self.vision_tower = ClipVisionTower(config.clip, config.select_layer)
        self.mm_projector = projector(config.projector, channels, width)
        self.mm_norm = nn.LayerNorm(channels) if config.image_token_norm else None
        self.mm_position = None
        if config.image_token_position:
            self.mm_position = nn.Embedding(config.image_tokens, width)
            nn.init.normal_(self.mm_position.weight, std=0.02)
        self.visual_model = VisualModel(config.sam)
        mask_channels = config.sam.prompt_embed_dim
        fcs = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, mask_channels), nn.Dropout(0.0)
        )
        self.text_hidden_fcs = nn.ModuleList([fcs])
        share_backbone(self)


class GSVA(nn.Module):
    """The whole model. Shapes: B images or sequences, T positions, D hidden_size, K slots."""

    def __init__(self, config: GSVAConfig) -> None:
        super().__init__()
        self.config = config
        self.model = GSVAModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.llm.vocab_size, bias=False)
        nn.init.normal_(self.lm_head.weight, std=self.model.config.initializer_range)
        self.refiner = Refiner(config.refiner) if config.refiner else None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.lm_head.weight.dtype

    def make_buffers(self) -> None:
        """Compute the buffers that checkpoints omit, for a model created on the meta device."""
        self.model.rotary_emb = LlamaRotaryEmbedding(self.model.config)
        embeddings = self.model.vision_tower.vision_tower.vision_model.embeddings
        embeddings.position_ids = torch.arange(embeddings.num_positions)[None]

    def encode_clip(self, pixel_values: Tensor) -> Tensor:
        """pixel_values [B, 3, S, S] to clip_tokens [B, N, Cv]."""
        return self.model.vision_tower(pixel_values)

    def project(self, clip_tokens: Tensor, places: bool = True) -> Tensor:
        """clip_tokens [B, N, Cv] to image_tokens [B, N, D], in the language model's space.

        Args:
            places: add the image tokens' position embeddings, if the model has them.
        """
        if self.model.mm_norm is not None:
            clip_tokens = self.model.mm_norm(clip_tokens)
        image_tokens: Tensor = self.model.mm_projector(clip_tokens)
        if places and self.model.mm_position is not None:
            image_tokens = image_tokens + self.model.mm_position.weight
        return image_tokens

    def encode_sam(self, sam_pixel_values: Tensor) -> Tensor:
        """sam_pixel_values [B, 3, S, S] to image_embeddings [B, C, h, w]."""
        return self.model.visual_model.image_encoder(sam_pixel_values)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token ids int64 [..., T] to embeddings [..., T, D]."""
        return self.model.embed_tokens(input_ids)

    def language(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """The language model's hidden states [B, T, D], after the final norm.

        Args:
            inputs_embeds: [B, T, D].
            attention_mask: None (causal), bool [B, T] (False marks padding; also causal), or
                additive float [B, 1, T, T], the complete mask.
            position_ids: int64 [B, T]; None: 0, 1, 2, ...
        """
        return self.model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=False,
        ).last_hidden_state

    def mask_prompts(self, hidden: Tensor) -> Tensor:
        """Hidden states of slots [K, D] to mask_prompts [K, C]."""
        return self.model.text_hidden_fcs[0](hidden)

    def decode_masks(self, image_embeddings: Tensor, mask_prompts: Tensor) -> tuple[Tensor, Tensor]:
        """image_embeddings [1 or K, C, h, w], mask_prompts [K, C] to masks [K, 4h, 4w], IoU [K]."""
        return self.model.visual_model.decode(image_embeddings, mask_prompts)
