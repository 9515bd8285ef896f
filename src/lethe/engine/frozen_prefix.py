"""Cache of frozen layers: their activations are computed once per image and replace the images. The same sums, in other batch sizes.

A network is cut at the last value that depends on frozen layers only and that all later layers depend on. N images, B batch.
"""

import operator
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, fx
from torch.nn import Module, MultiheadAttention, RReLU, functional
from torch.nn.modules import activation, batchnorm, conv, flatten, linear, normalization, pooling

from lethe.data import pixel_store
from lethe.data.device_data import Data, RawInputs
from lethe.engine.engine import modes_kept
from lethe.engine.feature_table import FeatureTable, feature_table
from lethe.engine.work import counted
from lethe.recipes.recipe import Phase

WORTH = 0.2  # share of a forward pass's multiplications that a cut must save
BATCH = 512
# Operations that compute each image separately and deterministically. Any other operation is assumed not to.
LAYERS = tuple(f"{module.__name__}." for module in (activation, batchnorm, conv, flatten, linear, normalization, pooling))
DRAWS = (RReLU, MultiheadAttention)
CALLS = {operator.add, operator.mul, torch.add, torch.mul, torch.cat, torch.flatten, torch.relu, torch.transpose, functional.relu}
CALLS |= {functional.adaptive_avg_pool2d, operator.getitem, operator.floordiv, getattr}
METHODS = {"relu", "add", "mul", "flatten", "view", "reshape", "contiguous", "mean", "chunk", "transpose", "permute", "size"}


class _Tracer(fx.Tracer):
    """Treat every module without children as one step, whichever library it is from."""

    def is_leaf_module(self, m: Module, module_qualified_name: str) -> bool:
        return not any(m.children()) or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True)
class Cut:
    """A network in two parts: `head` computes features, `tail` logits, with its own layers; `share`: the head's multiplications."""

    name: str
    head: fx.GraphModule
    tail: fx.GraphModule
    share: float


@dataclass
class Prefix:
    """`step_inputs` that caches the activations of frozen layers.

    Equal to the whole network except for the order of sums. So it applies only where frozen layers treat each image separately: BatchNorm
    with fixed statistics (`batchnorm: eval_frozen` or `eval`), no dropout, no augmentation, losses of the logits alone.

    Args:
        most_mib: most MiB that the features take, in memory or in a file; 0 disables the cache.
        autocast: context in which features are computed.
        log: called with one line when the cut changes.
        folder: where a file without a name holds features on the CPU of more than `in_memory` bytes; None: they are in memory.
        in_memory: bytes up to which features on the CPU are in memory.
    """

    most_mib: int
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    log: Callable[[str], None] = lambda text: None
    folder: Path | None = None
    in_memory: int = pixel_store.IN_MEMORY
    _logged: str = ""
    _model: Module | None = None
    _cuts: dict[tuple[frozenset[str], str], Cut | str] = field(default_factory=dict)
    _made: tuple[str, Data, dict[str, Tensor], RawInputs] | None = None

    def __call__(self, phase: Phase, model: Module, data: Data, trains: frozenset[str]) -> tuple[Module, Data]:
        """The module and the data that an epoch steps on: the network and the data themselves, or the tail and the features."""
        if not self.most_mib:
            return model, data
        cut = self._cut(phase, model, data, trains)
        if isinstance(cut, str):
            message = f"frozen layers are computed in every step: {cut}"
        else:
            message = f"frozen layers are computed once: up to {cut.name}, {cut.share:.0%} of a forward pass"
        if message != self._logged and len(trains) < sum(1 for _ in model.parameters()):
            self.log(message)
            self._logged = message
        return (model, data) if isinstance(cut, str) else (cut.tail, self._features(cut, data))

    def _cut(self, phase: Phase, model: Module, data: Data, trains: frozenset[str]) -> Cut | str:
        if phase.augment is not None:
            return "images are augmented"
        if any(term.inputs for term in phase.terms):
            return "inputs are changed"
        if not all(getattr(term.loss, "of_logits", False) for term in phase.terms):
            return "a loss looks at more than logits"
        if model is not self._model:
            self._model, self._cuts = model, {}
        key = trains, phase.batchnorm
        if key not in self._cuts:
            self._cuts[key] = self._found(model, data, trains)
        return self._cuts[key]

    def _found(self, model: Module, data: Data, trains: frozenset[str]) -> Cut | str:
        cut = split(model, trains, data.normalised(data.splits["retain"][:2]))
        if isinstance(cut, Cut):
            with torch.no_grad(), self.autocast():
                one = cut.head(data.normalised(data.splits["retain"][:1]))
            mib = len(data.images_NCHW) * one.numel() * one.element_size() / 2**20
            if mib > self.most_mib:
                return f"up to {cut.name} they would take {mib:,.0f} MiB, run.cache is {self.most_mib}"
        return cut

    @torch.no_grad()
    def _features(self, cut: Cut, data: Data) -> RawInputs:
        """Features of all images except the test split's; computed again when the frozen layers change."""
        frozen = cut.head.state_dict()
        if self._made is not None:
            name, of, weights, made = self._made
            if name == cut.name and of is data and all(torch.equal(value, weights[key]) for key, value in frozen.items()):
                return made
        self._made = None
        index_N = torch.cat([index for name, index in data.splits.items() if name != "test"]).unique()
        table: FeatureTable | None = None
        for index_B in index_N.split(data.at_once(BATCH)):
            with self.autocast():
                features = cut.head(data.normalised(index_B))
            if table is None:
                table, problem = feature_table(data, features[:1], self.folder, self.in_memory)
                if problem:
                    self.log(problem)
            table.put(index_B, features)
        assert table is not None
        made = table.inputs()
        self._made = (cut.name, data, {key: value.clone() for key, value in frozen.items()}, made)
        return made


def split(model: Module, trains: frozenset[str], images_BCHW: Tensor) -> Cut | str:
    """Cut a model, in its present modes, after its frozen layers.

    Args:
        model: the network.
        trains: names of the parameters that train.
        images_BCHW: two inputs to check the cut with, [2, ...], as the model takes them.

    Returns:
        The cut, or the reason why the model can't be cut.
    """
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # control flow that looks at values, and whatever else a model does
        return f"the network can't be traced ({type(error).__name__})"
    layers, kept = dict(model.named_modules()), set[fx.Node]()
    order = list(graph.nodes)
    for node in order:
        if all(source in kept for source in node.all_input_nodes) and _gives_the_same(node, layers, trains):
            kept.add(node)
    for at in reversed(range(len(order))):
        last = order[at]
        before = {*order[:at]} & kept
        if last in kept and last.op == "call_module" and not any(before & {*node.all_input_nodes} for node in order[at + 1 :]):
            break
    else:
        return "no layer is frozen before the first that trains (BatchNorm's statistics count, see batchnorm)"
    head = _part(model, order[: at + 1], last)
    tail = _part(model, order[at:], order[-1], start=last)
    return _tried(model, Cut(str(last.target), head, tail, 0.0), images_BCHW)


def _gives_the_same(node: fx.Node, layers: dict[str, Module], trains: frozenset[str]) -> bool:
    if node.op == "call_module":
        layer = layers[str(node.target)]
        known = any(f"{kind.__module__}.".startswith(LAYERS) for kind in type(layer).__mro__) and not isinstance(layer, DRAWS)
        moves = any(f"{node.target}.{name}" in trains for name, _ in layer.named_parameters())
        return known and not moves and not (layer.training and any(True for _ in layer.buffers()))
    if node.op == "get_attr":
        return str(node.target) not in trains
    return node.op == "placeholder" or node.target in (CALLS if node.op == "call_function" else METHODS)


def _part(model: Module, nodes: list[fx.Node], end: fx.Node, start: fx.Node | None = None) -> fx.GraphModule:
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in nodes:
        if node is start:
            copies[node] = graph.placeholder("features")
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    if end.op != "output":
        graph.output(copies[end])
    with modes_kept(model):  # a part shares the model's layers, whose modes must not change
        return fx.GraphModule(model, graph).eval()


def _tried(model: Module, cut: Cut, images_BCHW: Tensor) -> Cut | str:
    """Return the cut with its share, after checking that it gives the logits of the whole network, image by image."""
    with torch.no_grad(), modes_kept(model):
        model.eval()
        features, before = _counted(model, cut.head, images_BCHW)
        logits, after = _counted(model, cut.tail, features)
        alone = cut.tail(cut.head(images_BCHW[:1]))
        if not torch.allclose(logits, model(images_BCHW), 1e-3, 1e-4) or not torch.allclose(alone, logits[:1], 1e-3, 1e-4):
            return "the network gives other logits when it is cut"
    share = before / (before + after) if before else 0.0
    if share < WORTH:
        return f"up to {cut.name} they are {share:.0%} of a forward pass, not worth the memory"
    return Cut(cut.name, cut.head, cut.tail, share)


def _counted(model: Module, part: Module, inputs: Tensor) -> tuple[Tensor, int]:
    """Return a part's output, and the operations of the model's convolutions and linear layers that it took."""
    with counted(model) as work:
        output: Tensor = part(inputs)
    return output, work.flops
