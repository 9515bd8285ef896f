"""When to stop a trial before its end."""

from collections.abc import Sequence
from dataclasses import dataclass

from lethe.recipes.recipe import Phase, Recipe
from lethe.search.pareto import CurvePoint, dominates


@dataclass(frozen=True)
class PruningRule:
    """Decide when a trial has no chance of a good result.

    The rule is conservative, because these methods lose utility on the way and regain it at the end. Of 60 random trials of hybrid_4
    on digits, run without pruning to find out, one fell 30 points below the original and ended 3 points below it, on the front. So
    low utility alone is no reason before the last phase, unless it is at `chance` (an eighth of the way from guessing to the
    original) twice in a row: the 3 trials where that happened ended 35 or more points below. In the last phase, a `margin` of
    20 points stops 8 trials that ended 14 or more points below, none of them on the front; 10 points would stop one that ended on it.

    Attributes:
        original: Utility of the original model, in percent.
        margin: Points of utility by which a trial must be behind.
        chance: Utility, in percent, that counts as guessing.
        min_trials: Complete trials needed before a trial is compared with others.
    """

    original: float
    margin: float
    chance: float
    min_trials: int = 5

    def reason(self, curve: Sequence[CurvePoint], repaired: float | None, others: Sequence[Sequence[CurvePoint]]) -> str:
        """Explain why a trial should be stopped.

        Args:
            curve: The trial's measured epochs so far; at least one.
            repaired: Share of the last phase that is done, if that phase has no gradient ascent; else None (see `repaired_share`).
            others: Curves of complete trials.

        Returns:
            The reason in words, or "" if the trial should continue.
        """
        phase, epoch, *point = curve[-1]
        if len(curve) > 2 and max(curve[-1][3], curve[-2][3]) <= self.chance:
            return f"utility {point[1]:.1f}, and before: about as good as guessing"
        if repaired is not None and repaired >= 0.5 and point[1] < self.original - self.margin:
            return f"utility {point[1]:.1f} with half of the last phase behind it: over {self.margin:g} points below the original"
        same_epoch = [(other[2], other[3]) for each in others for other in each if (other[0], other[1]) == (phase, epoch)]
        ahead = sum(dominates(other, (point[0], point[1]), self.margin) for other in same_epoch)
        if len(same_epoch) >= self.min_trials and 2 * ahead >= len(same_epoch):
            return f"dominated at {phase} {epoch} by {ahead} of {len(same_epoch)} trials, in utility by {self.margin:g} points"
        return ""


def repaired_share(recipe: Recipe, phase: str, epoch: int, scale: float | None) -> float | None:
    """Compute the share of the last phase that is done after an epoch.

    Args:
        recipe: The recipe that is running.
        phase: Name of the epoch's phase.
        epoch: Number of the epoch within the phase, from 0.
        scale: Weight of the gradient ascent in that epoch; None if there is none.

    Returns:
        A share in (0, 1], or None before the last phase and where it still ascends.
    """
    last = recipe[-1]
    return (epoch + 1) / last.epochs if isinstance(last, Phase) and phase == last.name and scale is None else None
