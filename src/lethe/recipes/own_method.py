"""Lethe's own method: fine-tuning at a real learning rate, with a one-sided pull on the losses of forget."""

from itertools import pairwise
from typing import Any

from lethe.recipes.losses import ToUnseen
from lethe.recipes.ordering import Alongside
from lethe.recipes.parameters import Cap, CropShare, Fade, Focus, ForgetBatchSize, PullFrom, PullOn, PullWeight, RenewEvery, RetainEpochs
from lethe.recipes.recipe import ByLoss, Phase, Recipe, Term
from lethe.recipes.registry import register_method
from lethe.recipes.schedules import Part, Ramp
from lethe.recipes.training import Training, augmentation

RETAIN = (Term("retain"),)


@register_method(source="Lethe, docs/lethe.md")
def lethe(
    training: Training,
    *,
    retain_epochs: RetainEpochs,
    weight: PullWeight,
    pull_from: PullFrom,
    crop_share: CropShare,
    renew_every: RenewEvery,
    forget_batch_size: ForgetBatchSize,
    cap: Cap,
    focus: Focus,
    pull_on: PullOn = "loss",
    fade: Fade = 0.0,
) -> Recipe:
    """Fine-tune at a high learning rate, augmented and then plain, while losses of forget are raised to those of unseen images.

    Batch order: R R R; from pull_from on RF RF RF, both in one forward pass.
    One run with warm-up and cosine from the original's weights, its head re-initialised (reinit). A high rate with crops does most of
    the forgetting, and a plain end brings retain back. Each step then also takes a few forget images, whose losses, or log odds, are pulled
    up to what images of the same class and rank in the shaping half of validation have (losses.ToUnseen), never down: an image above its
    target is left alone. The pull fades as forget comes near its targets.
    Weakness: it needs validation images that no model was trained on, half of which say nothing about the result afterwards; too large
    a weight over-forgets.

    Returns:
        A phase for each part into which pull_from and crop_share cut the run, named by what it does: `fine_tune` or `pull`, with
        `_augmented` up to crop_share. Empty without retain_epochs.
    """
    if not retain_epochs:
        return ()
    cuts = sorted({0.0, pull_from, crop_share, 1.0})
    pull = ToUnseen(cap=cap, on=pull_on, fade=fade)
    return tuple(
        _phase(training, retain_epochs, start, stop, weight, pull_from, crop_share, renew_every, forget_batch_size, focus, pull)
        for start, stop in pairwise(cuts)
    )


def _phase(
    training: Training,
    passes: float,
    start: float,
    stop: float,
    weight: float,
    pull_from: float,
    crop_share: float,
    renew_every: float,
    forget_batch_size: int,
    focus: float,
    pull: ToUnseen,
) -> Phase:
    """The part of the run between two shares of it."""
    crops, pulls = start < crop_share, start >= pull_from
    draw = ByLoss(focus) if focus and not crops else None
    changes: dict[str, Any] = {
        "augment": augmentation(training.augment, ("retain",)) if crops else None,
        "draw": draw,
        "record_losses": bool(focus) and crops,
        "keep": training.keep if stop == 1 else "last",
    }
    name = ("pull" if pulls else "fine_tune") + ("_augmented" if crops else "")
    if not pulls:
        return training.part(name, passes, start, stop, RETAIN, **changes)
    rest = 1 - pull_from
    ramp = Part(Ramp(weight, "power", 0.5), (start - pull_from) / rest, (stop - pull_from) / rest)
    forget = Term("forget", pull, ramp, forget_batch_size)
    renewals = max(1, round((stop - start) / renew_every))
    return training.part(
        name, passes, start, stop, (*RETAIN, forget), renewals, order=Alongside(), forward="joint", weight_steps="batch", **changes
    )
