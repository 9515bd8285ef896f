"""The unlearning card against files made by hand: what stands on it is what its JSON says, and what it refuses."""

import hashlib
import hmac
import json
import re
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from lethe._util.errors import UserError
from lethe._util.files import digest, short, write_json
from lethe._util.integrity import sealed
from lethe._util.redact import plain
from lethe.config import loader as config
from lethe.config.source_map import Layer
from lethe.models import checkpoint
from lethe.plots import histograms
from lethe.reporting import card, card_content, card_files, card_seal, reproduction
from lethe.reporting import card_page as cardpage
from lethe.reporting.templates import number
from lethe.testing.tables import SIZES, drawn
from lethe.workspace import erased, ledger, pseudonyms, scores
from lethe.workspace.prepare import load_existing
from support.cards import CLASSES, asked, changed, logged, put, workspace, written
from support.erasures import erasure


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return workspace(tmp_path_factory.mktemp("card") / "workspace")


@pytest.fixture
def home(made, tmp_path, monkeypatch):
    return logged(made, tmp_path, monkeypatch)


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr(
        histograms, "loss_histograms", lambda series, edges: f"<svg>{[list(each[3]) for each in series]}{list(edges)}</svg>"
    )


def leaves(tree, path=()):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None:
        yield path, tree
    else:
        for key, value in items:
            yield from leaves(value, (*path, key))


# --- what stands on it --------------------------------------------------------------------------------------------------


def test_another_number_in_the_json_makes_another_page(home, undrawn):
    """Every leaf of it, alone, but for what the page is not made of (the ids) or only chooses words by."""
    made, markdown, html = written(home, "--card.thumbnails", "24", "--card.smallest_class", "50")
    assert (cardpage.markdown(made), cardpage.html(made)) == (markdown, html)
    seen = 0
    for path, value in leaves(made):
        if (
            value is None
            or path[:2] == ("request", "ids")
            or path == ("verdict",)  # its words are in says
            or path[-1] in ("kind", "interval", "measure", "id", "about", "aim", "apart", "power", "png")
        ):
            continue
        other = 7654.0 if isinstance(value, int | float) else f"{value}x"
        if path[0] == "says" or isinstance(value, bool):
            other = "other"
        altered = changed(made, path, other)
        assert cardpage.html(altered) != html, path
        if path[:2] != ("loss", "log10_edges"):
            assert cardpage.markdown(altered) != markdown, path
        if "percent" not in path and "log10_edges" not in path and isinstance(value, int | float):
            assert re.search("7,?654", cardpage.html(altered)), path
            assert re.search("7,?654", cardpage.markdown(altered)), path
        seen += 1
    assert seen > 200


def test_no_number_of_the_tables_is_the_pages_own(home, undrawn):
    made, markdown, _ = written(home)
    known = {number(value) for _, value in leaves(made) if isinstance(value, int | float)}
    rows = [line for line in markdown.splitlines() if line.startswith("| `")]
    assert len(rows) == len(made["measures"]) > 15
    for row in rows:
        assert set(re.findall(r"-?\d[\d,]*\.?\d*(?:e-?\d+)?", " ".join(row.split("|")[2:5]))) <= known, row


def test_the_numbers_are_those_of_the_score_files(home, undrawn):
    made, markdown, _ = written(home)
    scores = {name: json.loads((home / "scores" / f"{name}.json").read_text())["measures"] for name in ("model_1", "original")}
    by_id = {line["id"]: line for line in made["measures"]}
    assert by_id.keys() == {id_ for id_, got in scores["model_1"].items() if "value" in got}
    for id_, line in by_id.items():
        assert {k: scores["model_1"][id_][k] for k in ("value", "low", "high")} == line["model"]
        assert line["original"] == {k: scores["original"][id_][k] for k in ("value", "low", "high")}
    assert by_id["accuracy.forget"]["reference"]["value"] == scores["model_1"]["accuracy.forget"]["reference"]["value"]
    assert by_id["mia.loss"]["reference"] is not None  # an aim of 50, and what the retrained model scores
    assert made["missing"] == {id_: got["missing"] for id_, got in scores["model_1"].items() if "missing" in got}
    assert "needs at least 64 retrained and 64 unlearned models" in markdown


def test_the_request(home, undrawn):
    made, markdown, html = written(home)
    ids = [f"image/{n:05d}" for n in range(SIZES[0], SIZES[0] + SIZES[1])]
    secret = pseudonyms.pseudonyms(asked(home))
    assert made["request"]["hash"] == secret.of_request(ids)
    assert (made["request"]["images"], made["request"]["of"]) == (SIZES[1], SIZES[0] + SIZES[1])
    assert made["request"]["classes"] == dict.fromkeys(CLASSES, SIZES[1] // 4)
    assert all(id_ not in text for id_ in ids for text in (json.dumps(made), markdown, html))  # the card does not name who asked
    assert "&lt;ship&gt;" in html and "<ship>" not in html
    assert not made["request"]["thumbnails"] and "<img" not in html and "data:image" not in markdown
    made, markdown, html = written(home, "--card.thumbnails", "24")
    assert len(made["request"]["thumbnails"]) == html.count("<img ") == markdown.count("data:image/png") == 24


def hashes_to_try(ids, split):
    """All that a stranger can compute of an id, of all ids to forget and of all four splits."""
    texts = [*ids, "\n".join(ids), "".join(ids), *map(repr, ids)]
    tried = {digest([text]) for text in texts} | {digest(ids), digest(sorted(ids)), split}
    tried |= {hashlib.new(name, text.encode()).hexdigest() for text in texts for name in ("sha256", "sha1", "md5", "blake2b")}
    return {hash_[:length] for hash_ in tried for length in (8, 12)}


def test_nothing_on_it_leads_to_an_id_without_the_secret(home, undrawn):
    """Ids are known or numbered, so whoever has a card tries them all."""
    made, *pages = written(home)
    split = checkpoint.metadata(home / "logits" / "model_1.safetensors")["split"]
    tried = hashes_to_try([f"image/{n:05d}" for n in range(SIZES[0], SIZES[0] + SIZES[1])], split)
    for text in (json.dumps(made), *pages):
        words = set(re.findall(r"[0-9a-f]{8,}", text))
        assert words and not tried & {word[:length] for word in words for length in (8, 12)}
    secret = (home / ".lethe" / "secret").read_text()
    assert all(secret not in text for text in (json.dumps(made), *pages, *map(str, home.told.values())))
    assert (home / ".lethe" / "secret").stat().st_mode & 0o777 == 0o600
    earlier = home / "cards" / f"model_1-{short(digest([f'image/{n:05d}' for n in range(SIZES[0], SIZES[0] + SIZES[1])]))}.json"
    earlier.write_text("{}")
    again, *_ = written(home)
    assert again == made  # one secret for all cards of a workspace
    assert not earlier.exists()  # its hashes could be tried


def test_pseudonyms_are_hmac_sha256(home):
    """RFC 2104, over the parts each preceded by its length."""
    found = pseudonyms.pseudonyms(asked(home))
    message = digest(["id", "train/5"])
    assert found.of_id("train/5") == hmac.new(found.secret, bytes.fromhex(message), hashlib.sha256).hexdigest()[:12]
    assert found.of_request(["b", "a"]) == found.of_request(["a", "b"]) != found.of_request(["ab"])
    other = pseudonyms.Pseudonyms(bytes(32))
    assert other.of_id("train/5") != found.of_id("train/5") and other.key_id != found.key_id
    assert "secret" not in repr(found) and found.secret.hex() not in repr(found)


def test_a_person_in_the_request_is_not_logged(home):
    config_ = asked(home, "--data.forget.where", "user=Erika", "--data.forget.where", "camera=b")
    logged_ = pseudonyms.as_logged(config_)
    for text in (logged_.as_json(), str(logged_.resolved("original"))):
        assert "Erika" not in text and re.search("user=hmac:[0-9a-f]{12}.*camera=hmac:", text, re.DOTALL)
    assert config_.data.forget.where == ("user=Erika", "camera=b")
    assert pseudonyms.as_logged(asked(home)).data == asked(home).data


@pytest.mark.parametrize("text", ["", "zz", "ab" * 31, "ä" * 64])
def test_a_damaged_secret_is_refused(home, undrawn, text):
    path = home / ".lethe" / "secret"
    path.parent.mkdir()
    path.write_text(text)
    refused(home, r"\.lethe/secret can't be read as the workspace's secret \(")


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 40), max_size=6), st.integers(1, 20))
def test_a_class_of_few_images_is_not_named_and_can_not_be_inferred(counts, smallest):
    named, others = card_content.named_classes(counts, smallest)
    assert all(counts[name] == number >= smallest for name, number in named.items())
    assert sum(named.values()) + others == sum(counts.values())
    assert others == 0 or others >= smallest or not named
    assert smallest > 1 or named == counts


def test_a_class_of_few_images_is_not_on_the_page(home, undrawn):
    made, markdown, html = written(home, "--card.smallest_class", "51")
    assert made["request"]["classes"] == {} and made["request"]["other_classes"] == SIZES[1]
    for page in (markdown, html):
        assert "classes not named 200 (a class is named if the request has at least 51 images of it)" in page
        assert "cat" not in page.replace("indicat", "")


def test_names_of_files_are_not_in_its_commands(home, undrawn):
    keys = ("--data.root", "/photos/erika", "--data.forget.ids", "/photos/erika.csv", "--card.smallest_class", "51")
    for run in ("original", "model_1"):  # whose verdicts were for a request that draws its images
        scores.scores(load_existing(asked(home, *keys)), run)
    made, *pages = written(home, *keys)
    assert "--data.forget.ids '<list of ids>'" in made["reproduce"]["commands"]["result"]
    assert all("erika" not in text for text in (json.dumps(made), *pages))
    (home / "cards").rename(home / "before")
    made, *_ = written(home, "--data.forget.classes", "cat", "--card.smallest_class", "51")
    assert "--data.forget.classes '<classes>'" in made["reproduce"]["commands"]["result"]
    made, *_ = written(home, "--data.forget.classes", "cat")
    assert "--data.forget.classes cat" in made["reproduce"]["commands"]["result"]


def test_histograms_are_of_the_tables_losses():
    tables = {"model": drawn(1, 3.0), "retrained": drawn(100)}
    found = card_content.loss_distributions(tables)
    assert found["of"].keys() == {"forget", "test", "retrained"}
    edges = 10 ** np.array(found["log10_edges"])
    loss = tables["model"].loss[tables["model"].rows("forget")]
    for n in (0, 9, 17):
        expected = 100 * ((loss >= edges[n]) & (loss < edges[n + 1])).mean()
        assert found["of"]["forget"]["percent"][n] == pytest.approx(expected, abs=1.0)
    assert all(sum(got["percent"]) == pytest.approx(100, abs=0.1) for got in found["of"].values())
    assert found["of"]["forget"]["quantiles"][1] == pytest.approx(np.median(loss), rel=1e-3)


@pytest.mark.parametrize("tier", card_content.LIMITS)
@pytest.mark.parametrize("method", ["model_1", "model_2"])
def test_it_claims_no_more_than_it_can(home, undrawn, tier, method):
    made, *_ = written(home, method=method)
    made |= {"tier": tier, "cannot": [card_content.LIMITS[tier], *card_content.ALWAYS]}
    for text in (json.dumps(made), cardpage.markdown(made), cardpage.html(made)):
        assert "certif" not in text.lower()
        assert "guarantee" not in text.lower()
    assert f"<b>Tier T{tier}</b>" in cardpage.html(made)
    assert card_content.LIMITS[tier].replace("'", "&#39;") in cardpage.html(made)


def test_it_needs_no_network(home):
    _, _, html = written(home)
    assert "<svg" in html and "this model on forget</text>" in html
    assert not re.search(r"""<script|<link|@import|(src|href)\s*=\s*["'](?!data:|#)|url\((?!#)""", html)


def test_the_alarm_is_on_the_card(home, undrawn):
    made, markdown, html = written(home, method="model_2")
    assert "forget accuracy" in made["alarm"] and "mia.over" in made["alarm"]
    assert "Alarm: over-forgets." in html and "Alarm: over-forgets." in markdown
    made, markdown, html = written(home)
    assert made["alarm"] == "" and "Alarm" not in html + markdown


def edited(path, changes):
    """Change a score file as the program would."""
    content = json.loads(path.read_text()) | changes
    write_json(path, sealed({key: value for key, value in content.items() if key != "sha256"}))


def test_a_score_file_that_was_edited_makes_no_card(home, undrawn):
    path = home / "scores" / "model_1.json"
    write_json(path, json.loads(path.read_text()) | {"tier": 3})
    refused(home, r"scores/model_1\.json is damaged or was edited: .*; `python src/verify\.py` says what makes it again")


def test_nothing_on_the_card_compares_with_an_unfit_reference(home, undrawn):
    made, *_ = written(home)
    assert made["cannot"] == [card_content.LIMITS[made["tier"]], card_content.NOT_TRIED, *card_content.ALWAYS]
    line = "the retrained model is no reference: it gets 54.6 % of retain right"
    for path in (home / "scores").glob("*.json"):
        content = json.loads(path.read_text())
        measures = {id_: {key: each[key] for key in each if key != "reference"} for id_, each in content["measures"].items()}
        edited(path, {"measures": measures, "verdict": "reference_unfit", "reference_unfit": line})
    made, markdown, html = written(home)
    assert made["says"]["kind"] == "reference_unfit" and made["alarm"] == ""
    assert made["cannot"][0] == f"T{line[1:]}." and all(made["cannot"][0] in page for page in (html, markdown))
    assert all(each["reference"] is each["apart"] is each["power"] is None for each in made["measures"])
    assert "retrained" not in made["loss"]["of"] and "retrained" not in made["models"]


def test_the_page_for_the_person_says_what_was_not_searched(home, undrawn):
    made, *_ = written(home)
    erasure = {"events": [], "places": [], "left": 0, "unreached": 1, "remains": []}
    pages = [cardpage.person(made | {"erasure": erasure | {"unreached": number}}) for number in range(3)]
    assert "could not be searched" not in pages[0]
    assert "1 other place where copies may be, such as backups, could not be searched. Ask us what it holds." in pages[1]
    assert "2 other places where copies may be, such as backups, could not be searched. Ask us what they hold." in pages[2]
    line = {"store": "workspace", "step": "rewrite without them", "date": "2026-11-28", "places": 5, "bytes": 1}
    page = cardpage.person(made | {"erasure": erasure | {"places": [line, line | {"store": "source", "step": "delete", "places": 1}]}})
    changed_ = "5 files or folders changed, so that nothing of your images is in them any more"
    assert f"2026-11-28: in the folder in which the model was changed, {changed_}" in page
    assert "2026-11-28: in the collection of images, 1 file deleted" in page


def test_what_all_measures_come_to_stands_at_the_top(home, undrawn):
    made, markdown, html = written(home, method="model_2")
    assert made["verdict"] == made["says"]["kind"] == "over_forgets" and made["says"]["head"] == "Over-forgets"
    meaning = made["says"]["meaning"]
    assert escape(meaning) in html and meaning in markdown and "Memory left -" in meaning
    able = {line["measure"] for line in made["measures"] if line["power"]}
    differ = [line["measure"] for line in made["measures"] if line["power"] and line["apart"]]
    assert made["tally"] == {"able": len(able), "differ": list(dict.fromkeys(differ))} and differ
    said = (
        f"Each taken by itself, {len(set(differ))} of the {len(able)} measures that can discriminate here differ from the retrained model"
    )
    assert said in html and said in markdown


def test_a_measure_that_does_not_tell_original_from_retrained_says_so(home, undrawn):
    made, _, html = written(home)
    power = {line["id"]: line["power"] for line in made["measures"]}
    assert power["accuracy.forget"] and power["mia.over"] and power["distance.forget"]
    assert power["accuracy.test"] is power["distance.test"] is False
    assert power["tow"] is None  # it takes a second retrained model to know
    silent = [line["id"] for line in made["measures"] if cardpage.conclusion(line) == "cannot discriminate"]
    assert html.count("<td>cannot discriminate</td>") == len(silent)
    assert {"accuracy.test", "distance.test"}.isdisjoint(silent)  # nobody expects them to
    split = checkpoint.metadata(home / "logits" / "model_1.safetensors")["split"]
    put(home, "original", drawn(51, 0.0, "original"), split)  # it never learned them
    put(home, "model_1", drawn(1, 0.0, "model_1"), split)
    made, _, html = written(home)
    assert {line["power"] for line in made["measures"] if line["id"] in ("accuracy.forget", "mia.over", "distance.forget")} == {False}
    assert made["verdict"] == "cannot_tell" and "there is no memory to measure" in made["says"]["meaning"]


@pytest.mark.parametrize(
    ("id_", "power", "apart", "said"),
    [
        ("accuracy.retain", False, True, "differs from retrained"),  # what the verdict `different` rests on
        ("accuracy.retain", False, False, "as retrained"),
        ("klom.reversed.validation.p95", False, False, "as retrained"),
        ("accuracy.forget", False, False, "cannot discriminate"),
        ("accuracy_of.forgotten_classes.test", False, False, "cannot discriminate"),
        ("mia.over", False, False, "cannot discriminate"),
        ("mia.over", False, True, "differs from retrained"),  # it can over-forget where nothing was remembered
        ("mia.over", True, False, "as retrained"),
        ("mia.over", None, None, ""),
    ],
)
def test_usefulness_is_not_asked_to_tell_the_original_from_the_retrained_model(id_, power, apart, said):
    assert cardpage.conclusion({"id": id_, "model": {"value": 1.0}, "power": power, "apart": apart}) == said


def test_no_page_says_of_what_its_verdict_rests_on_that_it_shows_nothing(home, undrawn):
    made, _, _ = written(home)
    lines = [line | {"apart": line["id"] == "accuracy.retain", "power": line["id"] == "accuracy.forget"} for line in made["measures"]]
    card_ = made | {"measures": lines, "tally": card_content.count_measures(lines)}
    said = "can discriminate here differ from the retrained model. Of the others, accuracy.retain differs."
    for page in (cardpage.markdown(card_), cardpage.html(card_)):
        assert said in page
    assert re.search(r"<code>accuracy.retain</code>.*class=\"far\">differs from retrained", cardpage.html(card_))
    card_ = made | {"measures": [line | {"power": False} for line in lines], "tally": {"able": 0, "differ": []}}
    assert "here. From the retrained model this one differs in accuracy.retain." in cardpage.markdown(card_)


@pytest.mark.parametrize(("share", "said"), [(0.19, ""), (0.21, "above 0.2")])
def test_unlearning_that_takes_a_fifth_of_retraining_is_flagged(share, said):
    line = {"id": "share_of_retrain", "model": {"value": share}, "power": None, "apart": None}
    assert cardpage.conclusion(line) == said


def test_a_card_is_outdated_once_the_scores_of_its_result_are_others(home, undrawn, capsys):
    written(home)
    prepared, names = load_existing(asked(home)), ("model_1", "model_2")
    assert card_files.outdated(prepared, names) == {}
    split = checkpoint.metadata(home / "logits" / "model_1.safetensors")["split"]
    put(home, "model_1", drawn(7, 1.0, "model_1"), split)
    ((path, said),) = card_files.outdated(prepared, names).items()
    assert said == f"is of an earlier result; `python src/report.py card --method model_1 --run.workspace {home}` makes it again"
    capsys.readouterr()
    card_files.log_outdated(prepared, names)
    assert capsys.readouterr().err == f"{path.with_suffix('.html')} {said}\n"
    written(home)
    assert card_files.outdated(prepared, names) == {}
    (home / "scores" / "model_1.json").unlink()
    assert [*card_files.outdated(prepared, names)] == [path]


def test_a_variant_that_params_yaml_lacks_says_what_it_is_like():
    usual = config.load(["--method", "mine", "--methods.mine.like", "model_1", "--methods.mine.lr", "0.5"])
    params = {key: plain(value) for key, value in (usual.resolved("original") | usual.resolved()).items()}
    made: Any = reproduction.reproduction(usual, "mine", {}, {"run_id": "run", "tags": {}, "params": params}, ())
    assert made["commands"]["result"] == "python src/unlearn.py --method mine --methods.mine.like model_1 --methods.mine.lr 0.5"


@pytest.mark.parametrize(
    ("start", "shown"),
    [("photos/ada/start.pth", "'<start>'"), ("start.pth", "'<start>'"), ("IMAGENET1K_V1", "IMAGENET1K_V1")],
)
def test_the_file_that_training_starts_from_is_not_named(start: str, shown: str):
    usual = config.load(["--method", "model_1", "--pretrain.init", start])
    params = {key: plain(value) for key, value in (usual.resolved("original") | usual.resolved()).items()}
    made: Any = reproduction.reproduction(usual, "model_1", {}, {"run_id": "run", "tags": {}, "params": params}, ())
    assert made["commands"]["result"] == f"python src/unlearn.py --method model_1 --pretrain.init {shown}"


def test_a_function_whose_code_is_gone_has_all_its_arguments_stated():
    """Its defaults are not known."""
    layer = Layer("settings.yaml", {"methods.joint.like": "gone:joint", "methods.joint.epochs": "3"})
    usual = config.load(["--method", "joint"], settings=lambda _: layer)
    params = {key: plain(value) for key, value in usual.resolved("original").items()} | {"methods.joint.epochs": "3", "recipe": "()"}
    made: Any = reproduction.reproduction(usual, "joint", {}, {"run_id": "run", "tags": {}, "params": params}, ())
    assert made["commands"]["result"] == "python src/unlearn.py --method joint --methods.joint.like gone:joint --methods.joint.epochs 3"


def test_a_run_of_before_an_argument_existed_had_none_of_it():
    """Whatever params.yaml has of it now: half of a new head, in place of a whole one."""
    usual = config.load(["--method", "lethe"])
    params = {key: plain(value) for key, value in (usual.resolved("original") | usual.resolved()).items()}
    assert params.pop("methods.lethe.reinit_share") == "0.5"
    made: Any = reproduction.reproduction(usual, "lethe", {}, {"run_id": "run", "tags": {}, "params": params}, ())
    assert made["commands"]["result"] == "python src/unlearn.py --method lethe --methods.lethe.reinit_share 1.0"


def test_the_command_is_of_the_rows_own_keys(home, undrawn, monkeypatch):
    usual = config.load(["--method", "model_1"])
    params = {key: plain(value) for key, value in (usual.resolved("original") | usual.resolved("model_1")).items()}
    params |= {"data.forget.fraction": "null", "data.forget.count": "7", "methods.model_1.lr": "0.5", "recipe": "()"}
    row = {"run_id": "run", "metrics": {"seconds": 3.25}, "tags": {"version.torch": "2", "mlflow.source.git.commit": "c0ffee"}}
    monkeypatch.setattr(reproduction, "find_runs", lambda tags: [row | {"params": params}])
    made, _, html = written(home)
    assert (
        made["reproduce"]["commands"]["result"] == "python src/unlearn.py --method model_1 --data.forget.count 7 --methods.model_1.lr 0.5"
    )
    assert made["reproduce"]["commands"]["scores"].startswith("python src/evaluate.py --method model_1 --data.forget.count 7")
    assert 'commit <span class="hash">c0ffee' in html
    assert [line["model"] for line in made["measures"] if line["id"] == "seconds"] == [{"value": 3.25}]


def test_it_is_logged_with_the_run(home, undrawn):
    made, markdown, html = written(home)
    (stem,) = {path.removeprefix("card/").rpartition(".")[0] for path in home.told if path != "tags"}
    assert stem == f"model_1-{short(made['request']['hash'])}"
    assert home.told["tags"] == {"method": "model_1", "result": short(made["models"]["result"]["weights"])}
    assert made["seal"].keys() == {"sha256"}
    assert (home.told[f"card/{stem}.md"], home.told[f"card/{stem}.html"]) == (markdown, html)
    assert json.loads(home.told[f"card/{stem}.json"]) == made


# --- every card of an image ---------------------------------------------------------------------------------------------


def test_what_became_of_a_request(home, undrawn, capsys):
    """Cards of past requests stay, and are found by the id of an image."""
    made, *_ = written(home)
    written(home, method="model_2")
    secret = pseudonyms.pseudonyms(asked(home))
    past = changed(changed(made, ("request", "ids"), [secret.of_id("image/00003")]), ("request", "hash"), "0" * 64)
    write_json(home / "cards" / "model_1-000000000000.json", past)
    capsys.readouterr()
    card.list_cards(asked(home), "image/00300")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines] == ["model_2", "model_1"]
    assert all(short(made["request"]["hash"]) in line and line.endswith(".html") for line in lines)
    assert "is below" in lines[0]
    (home / "list.csv").write_text("id\nimage/00003\nimage/00700\n")
    among_images = replace(asked(home), data=asked(home).data.model_copy(update={"root": home}))
    for where in (asked(home), among_images):
        card.list_cards(where, str(home / "list.csv"))
        assert "model_1-000000000000.html" in (said := capsys.readouterr().out) and said.count("\n") == 1
    for missing in ("~/next.csv", "./next", str(home / "next.csv"), "next.csv"):
        with pytest.raises(UserError, match=rf"^list is {missing} \(no such file\); it takes the id of one image"):
            card.list_cards(asked(home), missing)
    card.list_cards(asked(home), "image/00003")
    assert capsys.readouterr().out.count("\n") == 1
    plain_hashes = changed(past, ("request", "ids"), [short(digest(["image/00004"]))])  # as earlier versions wrote them
    del plain_hashes["request"]["key"]
    write_json(home / "cards" / "model_1-111111111111.json", plain_hashes)
    card.list_cards(asked(home), "image/00004")
    assert capsys.readouterr().out.count("\n") == 1
    with pytest.raises(UserError, match=r"image/00700: no card in .*cards is of a request that names it; `python src/report\.py card"):
        card.list_cards(asked(home), "image/00700")
    (home / ".lethe" / "secret").rename(home / "kept")
    with pytest.raises(UserError, match="image/00300: no card"):
        card.list_cards(asked(home), "image/00300")
    assert "3 cards in" in (said := capsys.readouterr().err) and "another secret" in said
    assert not (home / ".lethe" / "secret").exists()
    (home / "kept").rename(home / ".lethe" / "secret")
    (home / "cards" / "torn.json").write_text("{}")
    with pytest.raises(UserError, match=r"torn\.json is not a card"):
        card.list_cards(asked(home), "image/00300")


# --- its seal -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [False, True])
def test_an_altered_card_is_found_without_its_workspace(home, undrawn, tmp_path, capsys, signed):
    key = tmp_path / "key.pem"
    private = Ed25519PrivateKey.generate()
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    made, markdown, html = written(home, *(("--card.signing_key", str(key)) if signed else ()))
    assert ("signature" in made["seal"]) == signed
    assert made["seal"]["sha256"] in markdown and made["seal"]["sha256"] in html
    file = tmp_path / "card.json"
    file.write_text(json.dumps(made, indent=7))  # the same content, spelled otherwise
    capsys.readouterr()
    assert card_seal.verify(file) == 0
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    told = capsys.readouterr().out
    assert ("not signed" in told) != signed and (public in told) == signed
    for path, value in [*leaves(made)][::40]:
        file.write_text(json.dumps(changed(made, path, f"{value}x")))
        assert card_seal.verify(file) == 1, path
    lying = changed(made, ("says", "head"), "Another verdict")
    body = ledger.canonical({name: value for name, value in lying.items() if name != "seal"})
    lying["seal"]["sha256"] = hashlib.sha256(body).hexdigest()
    file.write_text(json.dumps(lying))
    assert card_seal.verify(file) == int(signed)  # only a signature shows it
    file.write_text(json.dumps(changed(made, ("seal",), None)))
    with pytest.raises(UserError, match="has no seal"):
        card_seal.verify(file)


@pytest.mark.parametrize("text", [None, "", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused(home, undrawn, tmp_path, text):
    key = tmp_path / "key.pem"
    if text is not None:
        key.write_text(text)
    with pytest.raises(UserError, match=r"card\.signing_key is .*key\.pem \(") as found:
        written(home, "--card.signing_key", str(key))
    assert "\n" not in str(found.value) and not (home / "cards").exists()


# --- what it refuses ----------------------------------------------------------------------------------------------------


def refused(home, match):
    with pytest.raises(UserError, match=match) as found:
        written(home)
    assert "\n" not in str(found.value)
    assert not (home / "cards").exists()


def test_without_a_run_or_its_scores(home, undrawn):
    (home / "scores" / "model_1.json").unlink()
    refused(home, r"scores/model_1\.json does not exist; `python src/evaluate\.py .*--method model_1` creates it")
    (home / "logits" / "model_1.safetensors").unlink()
    refused(home, r"holds no run of model_1; `python src/unlearn\.py .*--method model_1` creates one")
    shutil.rmtree(home)
    refused(home, r"holds no run of model_1")


def test_of_images_that_were_erased(home, undrawn):
    """Nothing says that the result should be made again: that is no longer possible. Cards that exist are named, of this request alone."""
    (home / "data" / "splits" / "forget.csv").write_text("id\n")
    one = replace(erasure(), places=(["a", "mlflow", "delete", 1, "2026-07-01"], ["b", "workspace", "delete", 1, "2026-07-02"]))
    erased.write(asked(home), [one])
    refused(home, r"request in .* were erased on 2026-07-02, so no card of it can be made; none was made before$")
    write_json(home / "cards" / "model_1-aaaaaaaaaaaa.json", {"request": {"hash": one.request}})
    write_json(home / "cards" / "model_1-bbbbbbbbbbbb.json", {"request": {"hash": "of another"}})
    with pytest.raises(UserError, match=r"; what was made before is \S+/cards/model_1-aaaaaaaaaaaa\.html$"):
        written(home)
    erased.write(asked(home), [replace(one, state=erased.PENDING)])
    with pytest.raises(UserError, match=r"an erasure in .* was interrupted; .* --yes` finishes it"):
        written(home)


def test_what_does_not_belong_together(home, undrawn):
    scores = json.loads((home / "scores" / "model_1.json").read_text())
    edited(home / "scores" / "model_1.json", {"of": scores["of"] | {"retrained": "0" * 12}})
    refused(home, r"scores/model_1\.json belongs to other tables than .*logits holds; `python src/evaluate\.py .*` creates it again")
    write_json(home / "scores" / "model_1.json", scores)
    tensors, about = checkpoint.load(home / "logits" / "model_1.safetensors")
    checkpoint.save(tensors, home / "logits" / "model_1.safetensors", about | {"split": "other"})
    refused(
        home, r"logits/model_1\.safetensors was made for other splits than data/splits holds; `python src/unlearn\.py .*` creates it again"
    )
    checkpoint.save({"fc.weight": tensors["logits"]}, home / "models" / "model_1.safetensors", {"split": about["split"]})
    refused(home, r"other splits than data/splits holds; `python src/evaluate\.py .*` creates it again")
    checkpoint.save(tensors, home / "logits" / "model_1.safetensors", about)
    refused(home, r"was read from other weights than .*models/model_1\.safetensors holds; `python src/evaluate\.py")
    checkpoint.save({}, home / "models" / "model_1.safetensors", {"split": "other"})
    refused(home, r"models/model_1\.safetensors was made for other splits than data/splits holds; `python src/unlearn\.py")


def test_nothing_is_half_written(home, monkeypatch):
    def full(series, edges):
        raise OSError("no space left")

    monkeypatch.setattr(histograms, "loss_histograms", full)
    with pytest.raises(OSError, match="no space left"):
        written(home)
    assert not (home / "cards").exists() and not home.told
