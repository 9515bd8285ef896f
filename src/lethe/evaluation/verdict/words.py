"""The six words of a verdict, what they mean, and what a verdict holds. Stored in score files, MLflow tags and cards."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lethe.evaluation.uncertainty import Estimate

AS_RETRAINED, REMEMBERS, OVER_FORGETS = "as_retrained", "remembers", "over_forgets"
DIFFERENT, CANNOT_TELL, REFERENCE_UNFIT = "different", "cannot_tell", "reference_unfit"

# word -> heading, meaning
WORDS = {
    REMEMBERS: (
        "Remembers",
        "It knows the forget images better than a model that never saw them, measured against test images of the same classes: it barely "
        "forgets them, or not enough. This does not satisfy a deletion request.",
    ),
    OVER_FORGETS: (
        "Over-forgets",
        "It is worse on the forget images than a model that never saw them, measured against test images of the same classes. This is not "
        "better forgetting: the images can be identified by it.",
    ),
    DIFFERENT: (
        "Different from a retrained model",
        "It can be distinguished from retrained models, though not by knowing the forget images better or worse than they do.",
    ),
    AS_RETRAINED: (
        "As the retrained model",
        "No test distinguishes it from a model that was retrained without the forget images, and the images and models suffice to exclude "
        "that much of the memory is left.",
    ),
    CANNOT_TELL: (
        "Cannot tell",
        "No test distinguishes it from a retrained model, but the images and models do not suffice to exclude that much of the memory is "
        "left.",
    ),
    REFERENCE_UNFIT: ("No verdict: the reference is unfit", "The retrained model is no valid comparison."),
}


@dataclass(frozen=True)
class Part:
    """One comparison that takes part in a verdict.

    Attributes:
        id: a key of `judge.PARTS`.
        size: the studentized difference; its sign is that of the model minus the references.
        p: adjusted for all comparisons of the verdict.
        differs: whether p is at most the false-alarm rate.
    """

    id: str
    size: float
    p: float
    differs: bool


@dataclass(frozen=True)
class Verdict:
    """A verdict and what it rests on.

    Attributes:
        word: a key of WORDS.
        because: what decided it, in one sentence; without a full stop.
        memory_left: difference to the references in how well the forget images are known beyond test images, in percent of the
            original's: 0 as retrained, 100 as the original. None if the original is unknown or knows them no better.
        parts: the comparisons.
        advice: what it would take to tell, for `cannot_tell`; else "".
        models: number of models of the method.
        references: number of retrained models.
        at_random: whether the test over images took the forget images as drawn at random (`judge`); None where there was no such test, and
            in files of earlier versions.
    """

    word: str
    because: str = ""
    memory_left: Estimate | None = None
    parts: tuple[Part, ...] = ()
    advice: str = ""
    models: int = 1
    references: int = 0
    at_random: bool | None = None

    def fits(self, at_random: bool) -> bool:
        """Return whether it was made for images that were drawn as these; what a file does not say of itself is no contradiction.

        Args:
            at_random: whether the forget images were drawn at random.
        """
        return self.at_random in (None, at_random)

    @property
    def head(self) -> str:
        """The word as a heading."""
        return WORDS[self.word][0]

    @property
    def meaning(self) -> str:
        """What the word means, and what decided it: whole sentences."""
        sentences = [WORDS[self.word][1], self.because and f"{self.because[0].upper()}{self.because[1:]}.", self.advice]
        return " ".join(sentence for sentence in sentences if sentence)

    def to_json(self) -> dict[str, Any]:
        """What a score file keeps beside the word."""
        memory = self.memory_left
        return (
            {"because": self.because}
            | ({"memory_left": {"value": memory.value, "low": memory.low, "high": memory.high}} if memory else {})
            | {"parts": {part.id: {"size": part.size, "p": part.p, "differs": part.differs} for part in self.parts}}
            | ({"advice": self.advice} if self.advice else {})
            | {"models": self.models, "references": self.references}
            | ({} if self.at_random is None else {"at_random": self.at_random})
        )

    @classmethod
    def from_json(cls, word: str, entry: Mapping[str, Any]) -> "Verdict":
        """Read what a score file keeps.

        Args:
            word: of WORDS.
            entry: what `to_json` of the verdict gave.

        Returns:
            The verdict.

        Raises:
            ValueError: the word is not one of WORDS.
        """
        if word not in WORDS:
            raise ValueError(f"verdict {word!r}; expected {', '.join(WORDS)}")
        memory = entry.get("memory_left")
        return cls(
            word,
            str(entry.get("because", "")),
            Estimate(memory["value"], memory["low"], memory["high"], INTERVAL) if memory else None,
            tuple(Part(id_, float(one["size"]), float(one["p"]), bool(one["differs"])) for id_, one in entry.get("parts", {}).items()),
            str(entry.get("advice", "")),
            int(entry.get("models", 1)),
            int(entry.get("references", 0)),
            bool(entry["at_random"]) if "at_random" in entry else None,
        )


INTERVAL = "Fieller over images"  # of `memory_left`
