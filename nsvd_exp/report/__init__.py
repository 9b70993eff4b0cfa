"""The paper's tables and figures, and what goes beyond them, from stored results.

`model` holds what a report says and `render` how it looks; `model` imports nothing from `render`.
Nothing here imports torch.
"""
