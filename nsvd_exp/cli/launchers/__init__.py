"""A grid on more than one process: local ones, Slurm's or Ray's. Imports no torch.

Each engine takes tasks and yields what became of each as soon as it is known, in the order of their
ends. A process that dies costs its own task: the others go on. `hydra_plugins` puts the engines
behind `hydra/launcher=`.
"""
