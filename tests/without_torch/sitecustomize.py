"""Read by Python at the start of a process that has this folder on its path: torch is not found.

Where torch is installed, tensorboardX imports it, which takes as long as all of JAX. No command of
this project needs it.
"""

from importlib.machinery import PathFinder

_find_spec = PathFinder.find_spec


def _without_torch(name, path=None, target=None):
    return None if name == "torch" else _find_spec(name, path, target)


PathFinder.find_spec = _without_torch
