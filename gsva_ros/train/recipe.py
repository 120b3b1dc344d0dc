"""The configuration of gsva-mini. Comments give the reason for each departure from GSVA."""

from __future__ import annotations

from ..model.config import GSVAConfig
from ..model.schema import Clip, Llm, Preprocessor, Sam

#: Side in pixels of the square that both towers see.
SIDE = 256
#: Widths of the refiner, which the edges stage adds to the model.
REFINER = (24, 32, 48)


def mini_config(text_vocabulary: int) -> GSVAConfig:
    """A GSVA of about six million trained parameters, which sees frames squashed to 256 x 256 pixels.

    The four special tokens follow the tokenizer's `text_vocabulary` pieces.
    """
    return GSVAConfig(
        llm=Llm(
            vocab_size=text_vocabulary + 4,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            rms_norm_eps=1e-6,
            # Rotary frequencies far lower than Llama's: what a word attends to in the image must not depend
            # on how many words come between.
            rope_theta=1e6,
            tie_word_embeddings=False,
        ),
        # Both towers use a backbone pre-trained on real images, as GSVA's CLIP and SAM are; a convolutional
        # stem in parallel learns edges and colours from thousands of scenes.
        clip=Clip(
            image_size=SIDE,
            patch_size=16,
            hidden_size=160,
            intermediate_size=480,
            num_hidden_layers=2,
            num_attention_heads=5,
            stem="efficientnet-lite0",
        ),
        sam=Sam(
            image_size=SIDE,
            squash=True,
            patch_size=8,
            embed_dim=128,
            depth=3,
            num_heads=2,
            global_attn_indexes=[2],
            window_size=8,
            prompt_embed_dim=128,
            decoder_mlp_dim=256,
            decoder_heads=4,
            mask_in_chans=16,
            mlp_ratio=3,
            stem="efficientnet-lite0",
        ),
        conversation="gsva_mini",
        # Trained from scratch, so there is no last layer specialised in CLIP's contrastive loss to skip.
        select_layer=-1,
        image_token_norm=True,
        image_token_position=True,
        part_confidence=0.3,  # the small decoder leaves specks on similar things
        # The whole frame, squashed: a centre crop would hide its sides from the language model.
        preprocessor=Preprocessor(
            do_resize=True,
            size={"height": SIDE, "width": SIDE},
            resample=2,
            do_center_crop=False,
            do_rescale=True,
            rescale_factor=1 / 255,
            do_normalize=True,
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
            do_convert_rgb=True,
        ),
        seg_token_id=text_vocabulary,
        rej_token_id=text_vocabulary + 1,
        im_start_token_id=text_vocabulary + 2,
        im_end_token_id=text_vocabulary + 3,
        use_im_start_end=False,
    )
