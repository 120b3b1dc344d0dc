"""Training: dense pre-training of both vision encoders, then the language model and the mask decoder."""
