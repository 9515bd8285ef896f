"""The networks that losses and edits compare a model with, or copy weights from."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from torch import Tensor
from torch.nn import Module

from lethe.engine.options import Network
from lethe.engine.work import Work, counted


class FrozenReferences:
    """Frozen networks that losses and edits may look at, in eval mode; those that are made are made when they are first looked at.

    Args:
        original: the model that unlearning starts from, frozen and in eval mode.
        random_init: a randomly initialised network; None: a copy of `original`.
        fresh_init: another, from which no training began; None: what `random_init` gives.
        kept: tensors that edits leave for later ones, by name.
    """

    def __init__(
        self,
        original: Module,
        random_init: Network | None = None,
        fresh_init: Network | None = None,
        kept: dict[str, Tensor] | None = None,
    ) -> None:
        self.original = original
        self.kept: dict[str, Tensor] = {} if kept is None else kept
        self._random_init, self._fresh_init = _kept(random_init), _kept(fresh_init)
        self._made: list[Module] = []
        self._work: Work | None = None

    @cached_property
    def random_init(self) -> Module:
        """A randomly initialised network."""
        return self._make(self._random_init)

    @cached_property
    def fresh_init(self) -> Module:
        """A randomly initialised network from which no training began."""
        return self._make(self._fresh_init or self._random_init)

    def _make(self, given: Network | None) -> Module:
        made = given if isinstance(given, Module) else given() if given else copy.deepcopy(self.original)
        self._made.append(made)
        if self._work:
            self._work.watch(made)
        return made.eval().requires_grad_(False)

    @contextmanager
    def counted(self, model: Module) -> Iterator[Work]:
        """Count the operations of the model that trains and of these networks, those that are made meanwhile included (`work.counted`)."""
        with counted(model, self.original, *self._made) as work:
            self._work = work
            try:
                yield work
            finally:
                self._work = None


def _kept(given: Network | None) -> Network | None:
    """A copy of a network, which its owner may train while the run goes on; anything else as it is."""
    return copy.deepcopy(given) if isinstance(given, Module) else given
