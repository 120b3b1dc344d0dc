"""GSVA in PyTorch: configuration, prompt, towers, language model, losses and checkpoints."""

import logging

# If torchao is installed, transformers imports it, and it warns about every GPU library that this machine
# cannot load.
for name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(name).setLevel(logging.ERROR)
