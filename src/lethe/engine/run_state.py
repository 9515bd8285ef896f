"""The state of a run between two epochs: everything that is needed, with the recipe, to continue it."""

import math
from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import Module

from lethe.recipes.optimizers import OptimizerRecipe
from lethe.recipes.recipe import Phase, Recipe


@dataclass
class State:
    """Progress of a run.

    Args:
        step: index in the recipe of the current phase or edit.
        epoch: epochs of that phase that are complete.
        global_epoch: epochs and edits that are complete, over all phases; -1 before the first evaluation.
        passes: passes begun by stream, which seed the order of the next one.
        optimizer: the running optimizer, if any.
        optimizer_step: index in the recipe of the phase that built it.
        forget_optimizer: of the steps on forget alone, where the current phase has one.
        seen_losses: last loss of each image, float32 [N] with NaN where it had none, where the recipe records them.
        best: weights of the phase's best epoch so far, where it keeps one.
        best_value: the value by which it is the best.
        measured: what the phase's stop rule measured, epoch by epoch.
        kept: tensors that edits left for later ones, by name.
        pending: tensors read from a file that `restore` has yet to put in place.
    """

    step: int = 0
    epoch: int = 0
    global_epoch: int = -1
    passes: dict[str, int] = field(default_factory=dict)
    optimizer: torch.optim.Optimizer | None = None
    optimizer_step: int = 0
    forget_optimizer: torch.optim.Optimizer | None = None
    seen_losses: Tensor | None = None
    best: dict[str, Tensor] | None = None
    best_value: float = -math.inf
    measured: list[float] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    pending: dict[str, Tensor] | None = None

    def tensors(self, model: Module) -> dict[str, Tensor]:
        """All tensors by name: `model/...`, `best/...`, `optimizer/<slot>/<parameter>`, `forget_optimizer/...`, `kept/...`,
        `seen/losses`."""
        named = {f"model/{name}": value for name, value in model.state_dict().items()}
        named |= {f"best/{name}": value for name, value in (self.best or {}).items()}
        for kind, optimizer in (("optimizer", self.optimizer), ("forget_optimizer", self.forget_optimizer)):
            slots = optimizer.state if optimizer else {}
            for name, parameter in model.named_parameters():
                named |= {f"{kind}/{k}/{name}": v for k, v in slots.get(parameter, {}).items() if v is not None}
        named |= {f"kept/{name}": value for name, value in self.kept.items()}
        return named if self.seen_losses is None else named | {"seen/losses": self.seen_losses}

    def restore(self, model: Module, recipe: Recipe) -> None:
        """Load `pending` into the model and into a new optimizer of the phase that built the running one; without `pending` do nothing.

        Args:
            model: network of the run's architecture; its weights and buffers are replaced.
            recipe: the run's recipe, of which `optimizer_step` is an index.

        Raises:
            RuntimeError: the tensors are not those of this architecture.
        """
        if self.pending is None:
            return
        groups: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, value in self.pending.items():
            kind, _, rest = name.partition("/")
            groups[kind][rest] = value
        model.load_state_dict(groups["model"])
        self.best = {k: v.clone() for k, v in groups["best"].items()} or None
        self.kept = dict(groups["kept"])
        self.seen_losses = groups["seen"]["losses"] if groups["seen"] else None
        builder = recipe[self.optimizer_step]
        if isinstance(builder, Phase) and builder.optimizer and self.global_epoch > 0:
            self.optimizer = _rebuilt(builder.optimizer, model, groups["optimizer"])
        phase = recipe[self.step] if self.step < len(recipe) else None
        if isinstance(phase, Phase) and phase.forget_optimizer and self.epoch:
            self.forget_optimizer = _rebuilt(phase.forget_optimizer, model, groups["forget_optimizer"])
        self.pending = None


def _rebuilt(builder: OptimizerRecipe, model: Module, slots: dict[str, Tensor]) -> torch.optim.Optimizer:
    """A new optimizer with the state that was saved; `slots`: by `<slot>/<parameter>`."""
    optimizer, parameters = builder.build(list(model.parameters())), dict(model.named_parameters())
    for name, value in slots.items():
        slot, _, parameter = name.partition("/")
        like = parameters[parameter]
        if slot == "step":  # of Adam, which keeps it on the CPU
            optimizer.state[like][slot] = value.cpu()
            continue
        own = torch.empty_like(like) if value.shape == like.shape else torch.empty_like(value, device=like.device)
        optimizer.state[like][slot] = own.copy_(value)
    return optimizer
