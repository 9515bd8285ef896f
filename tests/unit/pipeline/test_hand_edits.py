"""What is edited by hand is noticed, also where whoever edits it states a fitting hash: scores, tables, models, cards."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lethe._util.errors import UserError
from lethe._util.files import digest, read_json, write_json
from lethe._util.integrity import KEY, digest_file, sealed
from lethe.config.loader import Config
from lethe.evaluation import logits_table
from lethe.evaluation.score import Score
from lethe.models import checkpoint
from lethe.pipeline import verify
from lethe.reporting import card_proof, card_seal
from lethe.reporting.card_content import make_card
from lethe.workspace import ledger, pseudonyms, scores
from lethe.workspace.prepare import load_existing
from support.cards import asked, changed, workspace

Json = dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the scores that its tables show, and a ledger."""
    home = Path(workspace(tmp_path_factory.mktemp("edits") / "workspace", scored=False))
    prepared = load_existing(asked(home))
    for name in ("retrained", "original", "model_1"):
        scores.scores(prepared, name)
    hashed = pseudonyms.pseudonyms(prepared.config)
    request = hashed.of_request([prepared.images.ids[i] for i in prepared.splits["forget"]])
    facts = {"method": "model_1", "weights": digest(["model_1"])}
    ledger.append(prepared.config, "evaluated", request, **facts, scores=digest_file(prepared.layout.scores("model_1")))
    return home


@pytest.fixture(scope="module")
def card(made: Path) -> Json:
    found: Json = json.loads(json.dumps(make_card(load_existing(asked(made)), "model_1", recompute=True)))
    return found


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "workspace"))


@pytest.fixture(autouse=True)
def no_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lethe.reporting.reproduction.find_runs", lambda tags: [])


def lie(content: Mapping[str, Any], path: tuple[Any, ...], value: Any) -> Json:
    """Edit a score, and state the hash that fits."""
    return sealed({key: one for key, one in changed(dict(content), path, value).items() if key != KEY})


# --- score files --------------------------------------------------------------------------------------------------------

EDITS: dict[str, tuple[tuple[Any, ...], Any]] = {
    "accuracy": (("accuracy", "forget"), 12.0),
    "loss": (("loss", "test"), 0.1),
    "value": (("measures", "mia.loss", "value"), 50.0),
    "interval": (("measures", "mia.loss", "low"), 1.0),
    "kind of interval": (("measures", "mia.loss", "interval"), "exact"),
    "reference": (("measures", "accuracy.forget", "reference", "value"), 99.0),
    "missing": (("measures", "ulira.auc"), {"value": 50.0}),
    "verdict": (("verdict",), "as_retrained"),
    "reason": (("judged", "because"), "nothing"),
    "unfit": (("reference_unfit",), "the retrained model is no reference"),
}


@pytest.fixture(scope="module")
def model_1(made: Path) -> tuple[Json, Score]:
    return read_json(made / "scores" / "model_1.json"), scores.recomputed(load_existing(asked(made)), "model_1")


@pytest.mark.parametrize("what", EDITS)
def test_a_score_that_its_tables_do_not_show(what: str, model_1: tuple[Json, Score]) -> None:
    stored, computed = model_1
    assert verify._differs(Score.from_json(stored, "it"), computed) == ""
    edited = lie(stored, *EDITS[what])
    assert verify._differs(Score.from_json(edited, "it"), computed).startswith("its ")
    with pytest.raises(UserError, match="damaged or was edited"):  # without a fitting hash it is not even read
        Score.from_json(edited | {KEY: stored[KEY]}, "it")


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (("tier",), 3, "states tier T3 and 1 retrained models; there are 1, which is T1"),
        (("references",), 64, "states tier T1 and 64 retrained models; there are 1, which is T1"),
        (("contents",), "0" * 12, "was computed from tables that held something else than they do now"),
        (("of", "retrained"), "0" * 12, "belongs to other tables than exist now"),
    ],
)
def test_tier_references_and_tables_of_a_score(path: tuple[str, ...], value: Any, why: str, home: Path) -> None:
    file, prepared = home / "scores" / "model_1.json", load_existing(asked(home))
    assert scores.fault(prepared, "model_1") == ""
    write_json(file, lie(read_json(file), path, value))
    assert scores.fault(prepared, "model_1") == why
    with pytest.raises(UserError, match=r"scores/model_1\.json .*`python src/evaluate\.py .*--method model_1` creates it again"):
        make_card(prepared, "model_1")
    kind, found = ("stray" if "other tables" in why else "damaged"), [*verify.of_tables(asked(home), recompute=False)]
    assert [(one.path, one.kind, why in one.reason) for one in found] == [(file, kind, True)]


def test_verify_computes_scores_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = home / "scores" / "model_1.json"
    write_json(file, lie(read_json(file), ("measures", "mia.loss", "high"), 99.0))
    for other in ("original", "retrained"):
        (home / "scores" / f"{other}.json").unlink()
    assert [*verify.of_tables(asked(home), recompute=False)] == []
    assert verify.verify(asked(home), recompute=True) == 1
    assert "scores/model_1.json: its measures.mia.loss.high is 99.0, and by its tables " in capsys.readouterr().out


# --- a request that is stated in another way ----------------------------------------------------------------------------


def named(home: Path) -> Config:
    """The same request, but its images are listed in place of drawn."""
    config: Config = asked(home, "--data.forget.ids", str(home / "data" / "splits" / "forget.csv"))
    return config


def test_a_verdict_on_images_drawn_at_random_is_made_again_for_the_same_images_by_their_ids(home: Path) -> None:
    drawn, listed = load_existing(asked(home)), load_existing(named(home))
    before = scores.read(home / "scores" / "model_1.json")
    assert scores.is_current(drawn, "model_1") and not scores.is_current(listed, "model_1")
    why = "was judged for a request that drew its images at random, and the present one names them"
    assert (scores.fault(drawn, "model_1"), scores.fault(listed, "model_1")) == ("", why)
    with pytest.raises(UserError, match=rf"scores/model_1\.json {why}; `python src/evaluate\.py .*` creates it again"):
        make_card(listed, "model_1")
    found = {one.path.name: (one.kind, why in one.reason) for one in verify.of_tables(named(home), recompute=True)}
    assert found == {f"{run}.json": ("stray", True) for run in ("model_1", "original")}  # retrained is compared with nothing
    after = scores.scores(listed, "model_1")
    assert after == scores.recomputed(listed, "model_1") and after.judged and before.judged
    assert after.judged.parts != before.judged.parts and after.measures == before.measures
    assert not scores.is_current(drawn, "model_1") and scores.is_current(listed, "model_1")


def test_a_verdict_of_an_earlier_version_does_not_say_for_which_request_it_was(home: Path) -> None:
    file = home / "scores" / "model_1.json"
    content = read_json(file)
    del content["judged"]["at_random"]
    write_json(file, sealed({key: one for key, one in content.items() if key != KEY}))
    written = file.read_bytes()
    for config in (asked(home), named(home)):
        prepared = load_existing(config)
        assert scores.is_current(prepared, "model_1") and scores.fault(prepared, "model_1") == ""
        scores.scores(prepared, "model_1")
        assert file.read_bytes() == written
    assert [*verify.of_tables(asked(home), recompute=True)] == []


# --- tables and models --------------------------------------------------------------------------------------------------


def permuted(table: logits_table.LogitsTable) -> logits_table.LogitsTable:
    return replace(table, logits=np.roll(table.logits, 1, axis=0))


def relabelled(table: logits_table.LogitsTable) -> logits_table.LogitsTable:
    return replace(table, labels=(table.labels + 1) % 4)


@pytest.mark.parametrize("name", ["model_1", "retrained", "original"])
@pytest.mark.parametrize("edit", [permuted, relabelled])
def test_a_table_that_was_changed(edit: Callable[[logits_table.LogitsTable], logits_table.LogitsTable], name: str, home: Path) -> None:
    path, config = home / "logits" / f"{name}.safetensors", asked(home)
    logits_table.write(edit(logits_table.read(path)), path)  # which states a hash that fits
    with pytest.raises(UserError):
        make_card(load_existing(config), "model_1")
    if edit is permuted:
        assert "damaged" in {one.kind for one in verify.of_tables(config, recompute=False)}


@pytest.mark.parametrize(("which", "key"), [("model_1", "recipe"), ("original", "provenance")])
def test_what_a_model_says_of_itself(which: str, key: str, home: Path) -> None:
    config, tensors = asked(home), {"fc.weight": checkpoint.load(home / "logits" / f"{which}.safetensors")[0]["logits"]}
    prepared, weights = load_existing(config), checkpoint.weights_hash(tensors)
    path = home / "logits" / f"{which}.safetensors"
    about = checkpoint.metadata(path) | {"model": weights}
    checkpoint.save(checkpoint.load(path)[0], path, about)
    facts = {"weights": weights if which == "model_1" else "0" * 64, "original": weights if which == "original" else "0" * 64}
    ledger.append(config, "unlearned", "0" * 64, method="model_1", recipe=digest(["(Phase(),)"]), provenance="trained", **facts)
    from lethe.reporting.card_content import _require_recorded

    told = {"recipe": "(Phase(),)", "provenance": "trained"}
    _require_recorded(prepared, which, weights, told)
    _require_recorded(prepared, which, digest(["of others"]), told | {key: "other"})
    with pytest.raises(UserError, match=f"states another {key} than the ledger has for its weights"):
        _require_recorded(prepared, which, weights, told | {key: "other"})


# --- cards ----------------------------------------------------------------------------------------------------------------

ON_THE_CARD: dict[str, tuple[tuple[Any, ...], Any]] = {
    "verdict": (("verdict",), "as_retrained"),
    "head": (("says", "head"), "As retrained"),
    "alarm": (("alarm",), "forget accuracy is low"),
    "tier": (("tier",), 3),
    "references": (("references",), 64),
    "images": (("request", "images"), 7),
    "ids": (("request", "ids", 0), "0" * 12),
    "class": (("request", "classes", "cat"), 1),
    "value": (("measures", 3, "model", "value"), 50.5),
    "interval": (("measures", 3, "model", "low"), 1.5),
    "power": (("measures", 3, "power"), None),
    "line": (("measures", 3), {"id": "mia.none"}),
    "tally": (("tally", "able"), 99),
    "cannot": (("cannot", 0), "Nothing."),
    "loss": (("loss", "of", "forget", "images"), 1),
    "weights": (("models", "result", "weights"), "0" * 64),
    "recipe": (("models", "result", "recipe"), "()"),
    "data": (("data", "hash"), "0" * 64),
    "copies": (("copies", "near"), "none"),
}


@pytest.mark.parametrize("what", ON_THE_CARD)
def test_a_card_that_its_workspace_does_not_show(what: str, card: Json) -> None:
    assert [*card_proof.differences(card, card)] == []
    assert [*card_proof.differences(changed(card, *ON_THE_CARD[what]), card)] != []


def lying(card: Json, path: tuple[Any, ...] = (), value: Any = None) -> Json:
    """Edit a card, and state the hash that fits."""
    return card_seal.sealed(changed(card, path, value) if path else card, None)


def test_a_card_against_its_workspace(made: Path, card: Json, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, config = tmp_path / "card.json", asked(made)

    def said(content: Json, config: Config = config) -> tuple[int, str]:
        write_json(file, content)
        return card_proof.verify(config, file), capsys.readouterr().out

    code, text = said(lying(card))
    assert (code, "every number is what its logits tables show" in text) == (0, True)
    code, text = said(lying(card, ("measures", 3, "model", "value"), 50.5))
    assert (code, f"measures.{card['measures'][3]['id']}.model.value is 50.5 on the card" in text) == (1, True)
    code, text = said(changed(lying(card), ("tier",), 3))
    assert (code, "altered" in text) == (1, True)
    code, text = said(lying(changed(card, ("request", "hash"), "0" * 64), ("ledger",), "0" * 64))
    assert (code, "no line of " in text) == (1, True)
    code, text = said(lying(card, ("request", "hash"), "0" * 64))
    assert code == 0 and "is not the workspace's present one" in text
    write_json(file, lying(card, ("request", "key"), "0" * 12))
    with pytest.raises(UserError, match=r"is not a card of .*another secret"):
        card_proof.verify(config, file)
    write_json(file, card_seal.sealed({"method": "model_1"}, None))
    with pytest.raises(UserError, match="is not a card as this version writes it"):
        card_proof.verify(config, file)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ((), None),
        (("ledger",), "no line of "),
        (("models", "result", "weights"), "is of no model that the ledger says was evaluated"),
        (("scores", "file"), "is of no score file that the ledger has"),
    ],
)
def test_a_card_against_the_ledger(path: tuple[str, ...], why: str | None, made: Path, card: Json) -> None:
    hashed = pseudonyms.pseudonyms(asked(made))
    said = [*card_proof._by_ledger(asked(made), changed(card, path, "0" * 64) if path else card, hashed)]
    assert [why in one for one in said if why] == [True] * bool(why) and len(said) == bool(why)
