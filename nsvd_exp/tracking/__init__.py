"""Weights & Biases: one run for each cell and each report. Nothing else here knows of it."""
