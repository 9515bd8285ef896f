"""Defects found in published implementations, one test each; none of these methods may have them here.

Others of the list: masked weights that decay and momentum move (test_field_methods), a teacher that is the student or is trained
(MethodContract), divergences with swapped arguments or divided by the number of classes (the plain loops), squared means of batches
(tests/unit/recipes/test_inputs.py)."""

import pytest
import torch

from lethe.engine import engine
from lethe.engine.frozen_references import FrozenReferences
from lethe.recipes.losses import CrossEntropy, Hinge, Loss, RandomLabels, ToUnseen, Uniform, Weighted
from lethe.recipes.protocols import Batch, References
from lethe.recipes.recipe import Phase, Recipe
from lethe.recipes.registry import registered_names
from lethe.recipes.unseen_losses import ByForgetting, LikeUnseen
from lethe.recipes.weight_edits import ReinitialiseLayers
from lethe.testing.small_runs import images, network, small, watched


def forgets(recipe: Recipe) -> bool:
    return any(term.stream == "forget" for step in recipe if isinstance(step, Phase) for term in step.terms)


@pytest.mark.parametrize("method", [name for name in registered_names(chains=False) if name != "kde" and forgets(small(name))])
def test_every_image_of_forget_is_read(method: str) -> None:
    """In one, the loader of forget was never built. (KDE counts forget's batches, and fills them with unseen images.)"""
    data, seen = images(), set[int]()

    def watch(batch: Batch, refs: References) -> None:
        seen.update(batch.index_B.tolist())

    for _ in engine.run(watched(small(method, retain_epochs=6), watch), network(), data):
        pass
    assert seen >= {*data.splits["forget"].tolist()}


@pytest.mark.parametrize(
    "loss", [CrossEntropy(), RandomLabels(), Hinge(9.0), Weighted(), Uniform(), ToUnseen(cap=99.0), LikeUnseen(), ByForgetting()], ids=repr
)
def test_no_clamp_takes_the_gradient_of_images_that_are_known_well(loss: Loss) -> None:
    """In one, a clamp made every gradient of the forget loss 0."""
    data, model = images(), network().eval()
    batch = next(data.batches("forget", 19, 0, 0))
    known = torch.nn.functional.one_hot(batch.labels_B, 10).float() * 3  # far from 0 and 1, as a loss of 0.4 nats
    logits = known.requires_grad_(True)
    prepare = getattr(loss, "prepare", None)
    refs = FrozenReferences(model, model)
    own = prepare(model, data, refs) if prepare else loss
    own(logits, batch, refs).backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(1) > 0).all()


def test_layers_inside_of_layers_are_initialised_again() -> None:
    """In one, only the children at the top were, so that nothing but the head changed."""
    model = network()
    refs = FrozenReferences(network(), network(1))
    ReinitialiseLayers(("layer1", "layer4"))(model, images(), refs)
    for name, value in model.named_parameters():
        source = refs.random_init if name.startswith(("layer1", "layer4")) else refs.original
        assert torch.equal(value, source.get_parameter(name)), name
    assert not torch.equal(model.get_parameter("layer1.0.weight"), refs.original.get_parameter("layer1.0.weight"))
