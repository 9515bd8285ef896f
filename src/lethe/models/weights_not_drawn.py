"""Networks whose random initial weights are not drawn, which takes most of the time in which a network is built."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode

DRAWS = frozenset(("normal_", "uniform_", "kaiming_uniform_"))  # of Tensor and torch.nn.init, to which its other random functions lead


class WeightsNotDrawn(TorchFunctionMode):
    """Context in which a network is built with whatever its memory holds in place of random weights: others are loaded into it, or only the
    names and shapes of its modules count."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, unless it is one of `DRAWS`."""
        named = dict(kwargs or {})
        if getattr(function, "__name__", "") in DRAWS:
            return args[0] if args else named["tensor"]
        return function(*args, **named)
