"""GSVA in PyTorch: configuration, prompt, towers, language model, losses and checkpoints."""
