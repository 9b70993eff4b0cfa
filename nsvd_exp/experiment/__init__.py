"""Cells and similarity records: what they are, what they share, how they are done."""
