"""gsva-mini's sizes. Where they depart from GSVA, a comment says why."""

from __future__ import annotations

from ..model.config import GSVAConfig


def mini_config(text_vocabulary: int) -> GSVAConfig:
    """A GSVA of about six million parameters for 4:3 frames of 192 x 144 pixels.

    The four special tokens follow the tokenizer's `text_vocabulary` pieces.
    """
    return GSVAConfig(
        llm={
            "vocab_size": text_vocabulary + 4,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 1024,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
        },
        # A convolutional stem learns edges and colours from thousands of scenes; a 16 x 16 patch
        # projection needs millions.
        clip={
            "image_size": 160,
            "patch_size": 16,
            "hidden_size": 160,
            "intermediate_size": 480,
            "num_hidden_layers": 4,
            "num_attention_heads": 5,
            "stem": "conv",
        },
        sam={
            "image_size": 192,
            "patch_size": 8,
            "embed_dim": 128,
            "depth": 4,
            "num_heads": 2,
            "global_attn_indexes": [3],
            "window_size": 6,
            "prompt_embed_dim": 128,
            "decoder_mlp_dim": 256,
            "decoder_heads": 4,
            "mask_in_chans": 16,
            "mlp_ratio": 3,
            "stem": "conv",
        },
        conversation="gsva_mini",
        # Trained from nothing, so there is no contrastive last layer to step back from.
        select_layer=-1,
        image_token_norm=True,
        image_token_position=True,
        # The whole frame, squashed: a centre crop would hide its sides from the language model.
        preprocessor={
            "do_resize": True,
            "size": {"height": 160, "width": 160},
            "resample": 3,
            "do_center_crop": False,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "do_convert_rgb": True,
        },
        seg_token_id=text_vocabulary,
        rej_token_id=text_vocabulary + 1,
        im_start_token_id=text_vocabulary + 2,
        im_end_token_id=text_vocabulary + 3,
        use_im_start_end=False,
    )
