"""Edits: one-shot changes of a model's weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from lethe._util.errors import UserError
from lethe.recipes.blocks import first
from lethe.recipes.importance import CONVOLUTION
from lethe.recipes.stored import state_dict
from lethe.recipes.trainable import Layers
from lethe.recipes.values import Value, later

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from lethe.recipes.protocols import DataSource, References


Init = Literal["random_init", "fresh_init"]  # of the network whose weights an edit writes: names of `protocols.References`


class Edit(Protocol):
    """A change of the weights between phases; a frozen dataclass, so that `recipe.parse` can read its repr.

    One that names modules has a method `writes(model) -> frozenset[str]`: the parameters that it may change, frozen or not. An edit without
    it may change all. One that takes gradients has a method `examples(sizes) -> int`: of how many examples, by the sizes of the splits."""

    @property
    def name(self) -> str:
        """Shown in epoch tables and messages."""
        ...

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        """Change the model in place.

        Args:
            model: the network.
            data: examples by split.
            refs: frozen models to compare with or to copy from.
        """
        ...


@dataclass(frozen=True)
class Reinitialise:
    """Set every weight and buffer to a randomly initialised network's: the start of training from scratch."""

    name: str = "reinitialise"

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        model.load_state_dict(refs.random_init.state_dict())


@dataclass(frozen=True, repr=False)
class ReinitialiseLayers(Value):
    """Set the weights and buffers of modules, whole blocks included, to a randomly initialised network's, or move them towards these.

    Args:
        layers: names of modules, or symbols of `blocks.resolve`.
        name: shown in epoch tables and messages.
        init: the randomly initialised network, by its name in `protocols.References`.
        share: of the way to the randomly initialised network; integer buffers are set where it is 1 and kept elsewhere.
    """

    layers: tuple[str, ...]
    name: str = "reinitialise"
    init: Init = later("random_init")
    share: float = later(1.0)

    def writes(self, model: "Module") -> frozenset[str]:
        """The parameters of the modules."""
        return Layers(self.layers)(model, 0.0)

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        written = self.writes(model)
        modules = {name.rpartition(".")[0] for name in written}
        fresh = getattr(refs, self.init).state_dict()
        model.load_state_dict(
            {
                name: _towards(value, fresh[name], self.share) if name in written or _buffer_of(name, modules, model) else value
                for name, value in model.state_dict().items()
            }
        )


@dataclass(frozen=True)
class Whiten:
    """Set the fixed kernel of a first layer so that its outputs are uncorrelated over patches (arXiv:2404.00498, section 3.2).

    The filters are the eigenvectors of the patches' second moments, each divided by the root of its eigenvalue, and their negatives. They
    are computed from images of one split alone, so that a retrained model's depend on no forget image.

    Args:
        stream: split whose images count.
        layer: module with a buffer `kernel`, [2 x channels x height x width, channels, height, width].
        images: number of images that count, drawn evenly from the split, whose order may be that of the classes.
        epsilon: added to the eigenvalues.
        name: shown in epoch tables and messages.
    """

    stream: str
    layer: str = "whiten"
    images: int = 5000
    epsilon: float = 0.0005
    name: str = "whiten"

    def writes(self, model: "Module") -> frozenset[str]:
        """Nothing that trains: the kernel is a buffer."""
        return frozenset()

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        import torch

        buffers = dict(model.named_buffers())
        kernel = buffers.get(f"{self.layer}.kernel")
        if kernel is None:
            raise UserError(f"{type(model).__name__} has no {self.layer}.kernel to whiten; it takes model.architecture fastnet")
        _, channels, height, width = kernel.shape
        size, number = channels * height * width, 0
        moments_DD = torch.zeros(size, size, dtype=torch.float64)
        index_N = data.splits[self.stream]
        count = min(self.images, len(index_N))
        for index_B in index_N[torch.arange(count, device=index_N.device) * len(index_N) // count].split(256):
            patches = data.normalised(index_B).unfold(2, height, 1).unfold(3, width, 1)
            patches_PD = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, size)
            moments_DD += (patches_PD.T @ patches_PD).cpu().double()
            number += len(patches_PD)
        values_D, vectors_DD = torch.linalg.eigh(moments_DD / number)
        filters_DD = vectors_DD.T / (values_D + self.epsilon).sqrt()[:, None]
        largest_D1 = filters_DD.gather(1, filters_DD.abs().argmax(1, keepdim=True))
        filters_DD = (filters_DD * largest_D1.sign()).flip(0)  # an eigenvector has two signs: one of them everywhere
        kernel.copy_(torch.cat([filters_DD, -filters_DD]).view(kernel.shape))


@dataclass(frozen=True)
class Negate:
    """Multiply the weight tensors of modules by -1 (NoT, CVPR 2025); biases and normalisation layers keep theirs.

    Args:
        layers: names of modules, or "first": the first convolution, or linear layer in a network without one.
        name: shown in epoch tables and messages.
    """

    layers: tuple[str, ...] = ("first",)
    name: str = "negate"

    def writes(self, model: "Module") -> frozenset[str]:
        """Names of the weight tensors."""
        if self.layers == ("first",):
            weight = next((own for own in model.get_submodule(first(model)).parameters() if own.ndim > 1), None)
            return frozenset(name for name, own in model.named_parameters() if own is weight)
        return frozenset(name for name in Layers(self.layers)(model, 0.0) if model.get_parameter(name).ndim > 1)

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        written = self.writes(model)
        if not written:
            raise UserError(f"{self.name}: {', '.join(self.layers)} has no weights of a convolution or linear layer")
        _update(model, {name: -model.get_parameter(name) for name in written})


@dataclass(frozen=True)
class Transpose:
    """Swap height and width of every square convolution kernel (CT, the fourth of the NeurIPS 2023 unlearning challenge).

    Args:
        layers: names of modules, or symbols of `blocks.resolve`; their convolutions are transposed.
        name: shown in epoch tables and messages.
    """

    layers: tuple[str, ...] = ("all",)
    name: str = "transpose"

    def writes(self, model: "Module") -> frozenset[str]:
        """Names of the kernels."""
        named, chosen = dict(model.named_parameters()), Layers(self.layers)(model, 0.0)
        return frozenset(name for name in chosen if named[name].ndim == CONVOLUTION and named[name].shape[2] == named[name].shape[3] > 1)

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        written = self.writes(model)
        if not written:
            raise UserError(f"{self.name}: {', '.join(self.layers)} has no square convolution kernel")
        _update(model, {name: model.get_parameter(name).detach().transpose(2, 3).clone() for name in written})


@dataclass(frozen=True)
class SubtractTask:
    """original - `scale` x (present weights - original): the task vector of what was just trained, negated (arXiv:2212.04089).

    Buffers are set to the original's: the statistics of BatchNorm are not weights that a task vector can be subtracted from.

    Args:
        scale: of the task vector.
        layers: names of modules, or symbols of `blocks.resolve`.
        name: shown in epoch tables and messages.
    """

    keeps_statistics: ClassVar[bool] = True
    scale: float
    layers: tuple[str, ...] = ("all",)
    name: str = "subtract_task"

    def writes(self, model: "Module") -> frozenset[str]:
        """The parameters of the modules."""
        return Layers(self.layers)(model, 0.0)

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        before, written = refs.original.state_dict(), self.writes(model)
        now = {name: value.detach() for name, value in model.named_parameters()}
        task = {name: before[name] - self.scale * (now[name] - before[name]) for name in written}
        model.load_state_dict(before | {name: value for name, value in now.items() if name not in written} | task)


@dataclass(frozen=True)
class KeepTask:
    """Keep the task vector of what was just trained, present weights - original, for `SubtractMerged`; go back to the original.

    Of all vectors so far only their sum, their number and where their signs agree are kept.

    Args:
        layers: names of the modules that were trained, or symbols of `blocks.resolve`.
        name: shown in epoch tables and messages.
    """

    layers: tuple[str, ...] = ("all",)
    name: str = "keep_task"

    def writes(self, model: "Module") -> frozenset[str]:
        """The parameters of the modules."""
        return Layers(self.layers)(model, 0.0)

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        import torch

        before, kept = refs.original.state_dict(), refs.kept
        for name in sorted(self.writes(model)):
            task = model.get_parameter(name).detach() - before[name]
            if "number" in kept:
                total = kept[f"sum/{name}"]
                kept[f"agrees/{name}"] &= total.sign() == task.sign()
                kept[f"sum/{name}"] = total + task
            else:
                kept[f"agrees/{name}"], kept[f"sum/{name}"] = torch.ones_like(task, dtype=torch.bool), task
        kept["number"] = kept.get("number", torch.zeros(())) + 1
        model.load_state_dict(before)


@dataclass(frozen=True)
class SubtractMerged:
    """original - `scale` x the mean of the kept task vectors where all their signs agree, and 0 elsewhere (NegMerge, arXiv:2410.05583).

    Args:
        scale: of the merged vector.
        layers: names of modules, or symbols of `blocks.resolve`.
        name: shown in epoch tables and messages.
    """

    keeps_statistics: ClassVar[bool] = True
    scale: float
    layers: tuple[str, ...] = ("all",)
    name: str = "subtract_merged"

    def writes(self, model: "Module") -> frozenset[str]:
        """The parameters of the modules."""
        return Layers(self.layers)(model, 0.0)

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        before, kept = refs.original.state_dict(), refs.kept
        merged = {name: kept[f"sum/{name}"] / kept["number"] * kept[f"agrees/{name}"] for name in self.writes(model)}
        model.load_state_dict(before | {name: before[name] - self.scale * value for name, value in merged.items()})


@dataclass(frozen=True)
class AddNoise:
    """Add to each weight tensor Gaussian noise of `share` times the tensor's standard deviation.

    Args:
        share: of the standard deviation of the tensor; a tensor of one value keeps it.
        layers: names of modules, or symbols of `blocks.resolve`.
        seed: of the noise.
        name: shown in epoch tables and messages.
    """

    share: float
    layers: tuple[str, ...] = ("all",)
    seed: int = 0
    name: str = "noise"

    def writes(self, model: "Module") -> frozenset[str]:
        """The parameters of the modules."""
        return Layers(self.layers)(model, 0.0)

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        import torch

        generator, written = torch.Generator().manual_seed(self.seed), self.writes(model)
        values: dict[str, Tensor] = {}
        for name, own in model.named_parameters():
            if name in written and own.numel() > 1:
                noise = torch.randn(own.shape, generator=generator).to(own.device, own.dtype)
                values[name] = own + self.share * own.std() * noise
        _update(model, values)


@dataclass(frozen=True, repr=False)
class ShrinkPerturb(Value):
    """Move weights and floating-point buffers the fraction `share` of the way to a randomly initialised network's.

    0 changes nothing, 1 is a start of training from scratch (Ash and Adams, arXiv:1910.08475).

    Args:
        share: from 0 to 1.
        name: shown in epoch tables and messages.
        init: the randomly initialised network, by its name in `protocols.References`.
    """

    share: float
    name: str = "shrink_perturb"
    init: Init = later("random_init")

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        fresh = getattr(refs, self.init).state_dict()
        model.load_state_dict({name: _towards(value, fresh[name], self.share) for name, value in model.state_dict().items()})


@dataclass(frozen=True)
class Rewind:
    """Set every weight and buffer to those of an earlier checkpoint of the original's training (R2D, arXiv:2409.09778).

    Args:
        file: safetensors file with the tensors of the network's state dict.
        sha256: of the file's bytes; another content is refused, so that the recipe says what was loaded.
        name: shown in epoch tables and messages.
    """

    file: str
    sha256: str
    name: str = "rewind"

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        model.load_state_dict(state_dict(self.file, self.sha256, model, self.name))


def _towards(value: "Tensor", fresh: "Tensor", share: float) -> "Tensor":
    """The tensor at a share of the way from one to another; an integer one has no way between."""
    if share == 1:
        return fresh
    return value.lerp(fresh, share) if value.is_floating_point() else value


def _buffer_of(name: str, modules: set[str], model: "Module") -> bool:
    """Whether a name of the state dict is a buffer of one of the modules."""
    module, _, buffer = name.rpartition(".")
    return module in modules and buffer in dict(model.get_submodule(module).named_buffers(recurse=False))


def _update(model: "Module", values: "dict[str, Tensor]") -> None:
    import torch

    with torch.no_grad():
        for name, value in values.items():
            model.get_parameter(name).copy_(value)
