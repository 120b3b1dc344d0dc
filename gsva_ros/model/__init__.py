"""GSVA in PyTorch: configuration, prompt, towers, language model, losses and checkpoints.

What to read to understand or change the model:

- `gsva`: the whole network, and the shapes between its parts; `clip` and `sam`: the vision towers and the
  mask decoder. Departures of gsva-mini: `stems`, `backbone`, `refiner`, `mask_parts`.
- `prompt`, `families`, `tokenizer`: what the language model reads and writes.
- `config`, `schema`, `checkpoint`, `weights`, `bundled`: from files to a model.
- `official`, `losses`: the official forward pass and losses, to compare and to train with.

The rest gives the same results in less time or memory: `reading` is transformers' Llama, and `prefix`,
`continuation`, `writing` and `static` are its cache; `sam_encoder` and `mask_decoder` are the modules of
segment-anything, `mask_pixels` is `sam.postprocess_masks`, `resample` is PIL. Only `quantised` is inexact.
"""

import logging

# If torchao is installed, transformers imports it, and it warns about every GPU library that this machine
# cannot load.
for name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(name).setLevel(logging.ERROR)
