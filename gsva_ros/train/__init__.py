"""Training: dense pre-training of the two vision encoders, then the language model and the mask decoder."""
