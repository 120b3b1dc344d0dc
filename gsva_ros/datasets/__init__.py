"""Readers of research data sets in the official code's folder layout, shared by evaluation and training."""
