"""Measuring a model: metrics and held-out scenes."""
