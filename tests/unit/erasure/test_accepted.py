"""What the plan says of the result that takes the original's place."""

import pytest

from lethe.erasure.erase import accepts
from lethe.evaluation.verdict.words import AS_RETRAINED, WORDS, Verdict


@pytest.mark.parametrize("word", [word for word in WORDS if word != AS_RETRAINED])
def test_every_verdict_but_one_says_what_speaks_against_it(word: str) -> None:
    head, against = accepts(Verdict(word)).split("; ")
    assert head == WORDS[word][0].lower()
    assert against.endswith("before you accept it")


def test_the_words() -> None:
    assert accepts(Verdict("remembers")).startswith("remembers; it does not satisfy a deletion request, so unlearn by another method")
    assert accepts(Verdict(AS_RETRAINED)) == "as the retrained model"
    assert accepts(None).startswith("no verdict; nothing shows that it forgot the images")
