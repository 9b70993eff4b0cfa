"""A compressed model as a folder that transformers loads: saved, loaded again, pushed to the hub."""

from nsvd_exp.models.checkpoint.card import About, Perplexity, license_of
from nsvd_exp.models.checkpoint.reading import load
from nsvd_exp.models.checkpoint.upload import push
from nsvd_exp.models.checkpoint.writing import save

__all__ = ["About", "Perplexity", "license_of", "load", "push", "save"]
