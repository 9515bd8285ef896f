"""Methods of the field that train on retain alone.

params.yaml holds the numbers: the authors' or those of independent tuning. R is an optimizer step on a retain batch, F one on a forget
batch."""

from dataclasses import replace

from lethe.recipes.constraints import L1
from lethe.recipes.contrast import Contrastive
from lethe.recipes.inputs import Views
from lethe.recipes.parameters import ContrastTemperature, ContrastWeight, CropShare, Epochs, L1Weight, RetainEpochs
from lethe.recipes.recipe import Augment, Recipe, Term
from lethe.recipes.registry import register_method
from lethe.recipes.training import Training, augmentation

RETAIN = (Term("retain"),)


@register_method(source="fine-tuning as the field runs it; rate and augmentation as tuned in CoUn (NeurIPS 2025, appendix E.2)")
def ft(training: Training, *, retain_epochs: RetainEpochs, crop_share: CropShare) -> Recipe:
    """Fine-tune the whole network on retain at a high learning rate, with augmentation.

    Batch order: R R R.
    One run with warm-up and cosine per batch; crops end after crop_share of it, flips stay.
    Weakness: nothing pushes the forget set out; a model that is trained longer forgets more.

    Returns:
        Phase `fine_tune` up to crop_share of the run, then `fine_tune_flips`, on one optimizer and one schedule; one of no length is left
        out. Empty without retain_epochs.
    """
    if not retain_epochs:
        return ()
    flips = augmentation(tuple(name for name in training.augment if name == "flip"))
    cropped = training.part("fine_tune", retain_epochs, 0.0, crop_share, RETAIN) if crop_share else None
    rest = training.part("fine_tune_flips", retain_epochs, crop_share, 1.0, RETAIN, augment=flips) if crop_share < 1 else None
    *before, last = (phase for phase in (cropped, rest) if phase)
    return (*before, replace(last, keep=training.keep))


@register_method(source="NoT (CVPR 2025): negation of the first convolution; rate and augmentation as ft", name="not")
def negation(training: Training, *, retain_epochs: RetainEpochs, crop_share: CropShare) -> Recipe:
    """Negate the weights of the first convolution, then fine-tune as `ft`.

    Batch order: R R R.
    Weakness: what is negated is found again by training on retain, and with it some of forget.

    Returns:
        The phases of `ft`; negate puts the edit before them.
    """
    return ft(training, retain_epochs=retain_epochs, crop_share=crop_share)


@register_method(source="l1-sparse (Jia et al., NeurIPS 2023, arXiv:2304.04934, section 4)")
def l1_sparse(training: Training, *, epochs: Epochs, l1_weight: L1Weight) -> Recipe:
    """Fine-tune on retain with an L1 penalty on all weights, which falls linearly to 0.

    Batch order: R R R.
    Weakness: forgets by shrinking every weight, so that retain and test pay for it.

    Returns:
        One phase, `sparse`: cross-entropy on retain + l1_weight x (1 - progress) x the sum of |w|.
    """
    return (training.first("sparse", epochs, RETAIN, penalty=L1(l1_weight), keep=training.keep),)


@register_method(source="CF-k (Goel et al., arXiv:2201.06640): fine-tuning of the last k layers")
def cf_k(training: Training, *, epochs: Epochs) -> Recipe:
    """Fine-tune the last layers on retain: those of trains.

    Batch order: R R R.
    Weakness: the frozen layers keep everything.

    Returns:
        One phase, `retain`.
    """
    return (training.first("retain", epochs, RETAIN, keep=training.keep),)


@register_method(source="EU-k (Goel et al., arXiv:2201.06640): the last k layers trained from scratch")
def eu_k(training: Training, *, epochs: Epochs) -> Recipe:
    """Randomly initialise the last layers, those of reinit, then train on retain what is in trains.

    Batch order: R R R.
    Weakness: the frozen layers keep everything, and features of forget stay as easy as they were.

    Returns:
        One phase, `retain`; reinit puts the edit before it.
    """
    return (training.first("retain", epochs, RETAIN, keep=training.keep),)


@register_method(source="CoUn (Khalil et al., NeurIPS 2025, arXiv:2509.16391)")
def coun(training: Training, *, epochs: Epochs, contrast_weight: ContrastWeight, contrast_temperature: ContrastTemperature) -> Recipe:
    """Fine-tune on retain with a contrastive loss between two augmented views of each image in addition.

    Batch order: R R R, each batch twice as large: two views of every image.
    Written from the paper's description, not from code: the cross-entropy is the mean of both views', the contrastive loss is symmetric
    InfoNCE on what the head takes. Without crop and flip in augment the second view is the image itself.
    Weakness: forget is not used at all; it costs two forward passes for one of fine-tuning.

    Returns:
        One phase, `contrast`: cross-entropy + contrast_weight x InfoNCE at contrast_temperature.
    """
    own = augmentation(training.augment) or Augment()
    terms = (
        Term("retain", inputs=Views(own.crop, own.flip, own.resized)),
        Term("retain", Contrastive(contrast_temperature), contrast_weight),
    )
    return (training.first("contrast", epochs, terms, keep=training.keep),)
