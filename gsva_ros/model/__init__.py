"""GSVA in PyTorch: configuration, prompt, towers, language model, losses and checkpoints."""

import logging

# Where torchao is installed, transformers imports it, and it tells of each GPU's library that this machine
# cannot load.
for name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(name).setLevel(logging.ERROR)
