"""Evaluation and calibration text: where its rows come from, one text of them, its tokens."""
