"""Evaluation of models: data sources, metrics, reports, comparison and calibration."""
