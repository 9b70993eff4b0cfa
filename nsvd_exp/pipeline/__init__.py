"""The stages of a cell: calibrate, compress, evaluate; and the similarity of activations."""
