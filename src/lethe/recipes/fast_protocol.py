"""The fast protocol: training of `model.architecture fastnet` in ten passes (Jordan, arXiv:2404.00498, sections 3 and 4).

    python src/pretrain.py --model.architecture fastnet --pretrain.recipe lethe.recipes.fast_protocol:fast

Of the paper's protocol it leaves out the 64-fold learning rate of BatchNorm's biases, its fixed scales, the end of the whitening bias's
training after three passes, the average of weights, flips that alternate, reflected padding, and further views at test time."""

from lethe.recipes.losses import CrossEntropy
from lethe.recipes.optimizers import SGD
from lethe.recipes.recipe import Augment, Phase, Recipe, Stream, Term
from lethe.recipes.schedules import Triangle
from lethe.recipes.weight_edits import Whiten

BATCH = 1024


def fast(stream: Stream, *, passes: int = 10, images_per_step: int = BATCH) -> Recipe:
    """Whiten the first layer by the training images, then train with Nesterov's momentum, a triangular schedule and label smoothing.

    Args:
        stream: "train" for the original, "retain" for the retrained model.
        passes: over the images.
        images_per_step: batch size; the learning rate grows with it.

    Returns:
        The recipe.
    """
    schedule = Triangle(1.5 * images_per_step / BATCH)
    optimizer = SGD(0.85, 0.00133, nesterov=True)
    terms = (Term(stream, CrossEntropy(0.2)),)
    train = Phase("train", passes, terms, images_per_step, schedule, optimizer=optimizer, augment=Augment(2, True), lr_steps="batch")
    return (Whiten(stream), train)
