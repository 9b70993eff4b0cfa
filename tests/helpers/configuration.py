"""Configurations as the command line composes them, and the names that a user can type."""

from __future__ import annotations

import functools
import pickle

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from nsvd_exp.cli.arguments import normalise
from nsvd_exp.config.files import conf_dir, method_files, register
from nsvd_exp.config.schema import Config, typed_config

EIGHT = ["wikitext2", "ptb", "c4", "snips", "alpaca_eval", "mctest", "cmrc_cn", "alpaca_eval_jp"]

METHODS = {
    "dense": (False, False, False),
    "svd": (True, False, False),
    **dict.fromkeys(
        ("fwsvd", "asvd_0", "asvd_i", "asvd_ii", "asvd_iii", "asvd_ridge", "kfac", "weighted_kfac"),
        (True, True, False),
    ),
    **dict.fromkeys(("nsvd_i", "nsvd_ii", "nid_i", "nid_ii"), (True, True, True)),
}
"""Whether a method compresses, looks at activations, has a second stage."""


def composed(*overrides: str, with_hydra: bool = False) -> DictConfig:
    """What Hydra composes from overrides as Hydra takes them; no value is checked."""
    register()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return hydra.compose("config", list(overrides), return_hydra_config=with_hydra)


@functools.cache
def _composed_once(*choices: str) -> bytes:
    return pickle.dumps(composed(*choices))  # a copy of it is made in no time


def compose(*overrides: str) -> Config:
    """The typed, range-checked configuration of a command line.

    Hydra composes the choices of files once for all tests, but for the method's, which is put in
    its place; the values are then set one by one.
    """
    given = [normalise(override) for override in overrides]
    choices = [override for override in given if _chooses_a_file(override)]
    values = [override for override in given if not _chooses_a_file(override)]
    values.sort(key=lambda override: not override.startswith("method="))
    config = pickle.loads(_composed_once(*choices))
    for override in OverridesParser.create().parse_overrides(values):
        name, value, is_new = override.key_or_group, override.value(), override.is_add()
        if name == "method":
            OmegaConf.update(config, name, method_files()[str(value)], merge=False)
        else:
            OmegaConf.update(config, name, value, force_add=is_new)
    return typed_config(config)


def _chooses_a_file(override: str) -> bool:
    name = override.lstrip("+").partition("=")[0]
    return "@" in name or (name != "method" and (conf_dir() / name).is_dir())
