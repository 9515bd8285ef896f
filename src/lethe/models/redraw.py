"""A randomly initialised copy of any network: what a network of the caller's own is re-initialised from."""

import copy
import inspect
from collections.abc import Callable

import torch
from torch.nn import Module

from lethe._util.files import digest


def unrelated_seed(seed: int) -> int:
    """Return a seed for weights from which no training begins, in [0, 2**32).

    Equal seeds draw equal weights, so a run's own seed may give back those that its original began with, to which its features are still
    aligned.

    Args:
        seed: of the run.
    """
    return int(digest(["fresh_init", str(seed)])[:8], 16)


def redrawn(network: Module, seed: int) -> Module:
    """Return a randomly initialised copy of a network.

    Modules draw their own weights and buffers, by `reset_parameters`, children before their parents. Weights of a module that has no such
    method, or one with arguments that must be given, are drawn from a normal distribution of their own mean and standard deviation, so that
    a constant stays one.

    Args:
        network: any; it is not changed.
        seed: of the weights; the global generator is not changed. Equal seeds give equal weights on every device.

    Returns:
        A copy in eval mode, on the network's device.
    """
    place = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    fresh = copy.deepcopy(network).cpu().eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh.apply(_draw)
    return fresh.to(place)


def _takes_nothing(method: Callable[..., object]) -> bool:
    """Whether a method can be called without arguments."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(one.default is not one.empty or one.kind in kinds for one in inspect.signature(method).parameters.values())


def _draw(module: Module) -> None:
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if callable(reset) and _takes_nothing(reset):
        reset()
        return
    for parameter in module.parameters(recurse=False):
        if parameter.is_floating_point():
            parameter.copy_(parameter.mean() + parameter.std(correction=0) * torch.randn_like(parameter))
