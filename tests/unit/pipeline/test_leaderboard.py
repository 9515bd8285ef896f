"""The cost of a recipe, the epochs that fit into a share of retraining, and the leaderboard's rows."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lethe._util.errors import UserError
from lethe._util.files import short
from lethe.cli.stages import STAGES
from lethe.config import loader
from lethe.config.loader import Config
from lethe.engine import engine
from lethe.engine.options import RunOptions
from lethe.models import checkpoint
from lethe.pipeline import run_logging
from lethe.pipeline.cost import batches, planned_share, retraining_operations, share_of, split_sizes, work
from lethe.pipeline.leaderboard import Entry, accepted_methods, accepted_shares, at_share, dial, in_parallel, is_finished, leaderboard
from lethe.pipeline.leaderboard_tables import COLUMNS, table
from lethe.pipeline.method_list import listing, print_methods
from lethe.pipeline.unlearn import unlearn
from lethe.plots.leaderboard_figures import forget_against_test, gap_against_cost
from lethe.recipes.recipe import Phase
from lethe.recipes.registry import registered_names
from lethe.testing.small_runs import configured, images, network, small
from lethe.workspace import erased, scores, settings
from lethe.workspace.layout import Layout
from lethe.workspace.prepare import prepare
from lethe.workspace.pseudonyms import pseudonyms

DIGITS = ["--data.source", "digits", "--data.limit", "20", "--model.architecture", "convnet", "--run.workspace"]
SHORT = ["--pretrain.epochs", "2", "--pretrain.final_epochs", "1", "--pretrain.min_steps", "1"]


@pytest.mark.parametrize("method", ["lethe", "hybrid_4", "scrub", "eu_k"])
def test_work_counts_every_image_of_every_step(method: str) -> None:
    """Against the batches that a run is given: examples in them times weights that train, step by step."""
    data, model, recipe = images(), network(), small(method)
    expected = 0
    for phase in recipe:
        if not isinstance(phase, Phase):
            continue
        lengths = {letter: data.length(stream, phase.size(stream)) for letter, stream in phase.streams.items()}
        for epoch in range(phase.epochs):
            trains = sum(p.numel() for name, p in model.named_parameters() if name in phase.trains(model, epoch / phase.epochs))
            taken = Counter("".join(phase.batch_order(lengths, epoch)))
            for letter, stream in phase.streams.items():
                passes = [len(b.labels_B) for k in range(9) for b in data.batches(stream, phase.size(stream), 0, k)]
                expected += trains * sum(passes[: taken[letter]])
    found = work(recipe, model, {"retain": 30, "forget": 19, "train": 49})
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(("size", "batch"), [(30, 8), (33, 8), (16, 8), (1, 8), (7, 8), (9, 1)])
def test_passes_are_counted_as_they_are_cut(size: int, batch: int) -> None:
    assert batches(size, batch) == images(forget=size).length("forget", batch)


def test_a_share_is_of_the_retraining_of_the_same_configuration() -> None:
    """CIFAR-10: 32 epochs of 45,000 images; five epochs of fine-tuning are 5/32."""
    assert planned_share(configured("model_1")) == pytest.approx(5 / 32)
    head = planned_share(configured("cf_k"))
    assert 0 < head < 0.001  # ten epochs, of a head of 5,130 of 11 million weights


def test_the_operations_of_retraining_are_those_that_it_would_count(tmp_path: Path) -> None:
    """So that a row has the work it took where the retrained model is given, too: of `amun` its attack, which no plan counts."""
    config = loader.load([*DIGITS, str(tmp_path), *SHORT])
    prepared = prepare(config)
    recipe = prepared.reference_recipe("retrained")
    epochs = engine.run(recipe, prepared.untrained(0), prepared.data, RunOptions(count_work=True))
    taken = sum(epoch.flops or 0 for epoch in epochs)
    assert taken > 0
    assert retraining_operations(config) == pytest.approx(taken)


def test_shares_are_of_the_retraining_that_is_in_use(tmp_path: Path) -> None:
    """Where the original was trained by the numbers as they are set, fewer steps than pretrain.min_steps, so is the retrained model."""
    config = loader.load([*DIGITS, str(tmp_path), "--method", "ft", "--methods.ft.batch_size", "16"])
    raised, as_set = (config.reference_recipe("retrained", images) for images in (200, None))
    shares, operations = [planned_share(config)], [retraining_operations(config)]
    about = {"kind": "original", "recipe": repr(config.reference_recipe("original"))}
    checkpoint.save_model({"w": torch.zeros(1)}, Layout(tmp_path).weights("original"), about)
    shares, operations = [*shares, planned_share(config)], [*operations, retraining_operations(config)]
    longer = sum(step.epochs for step in raised if isinstance(step, Phase)) / sum(step.epochs for step in as_set if isinstance(step, Phase))
    assert longer > 2
    assert shares[1] / shares[0] == pytest.approx(longer)
    assert operations[0] / operations[1] == pytest.approx(longer)


@pytest.mark.parametrize("asked", [("count", "10"), ("classes", "3")])
def test_images_that_were_erased_are_in_no_share(asked: tuple[str, str], tmp_path: Path) -> None:
    """The listing of the source still has them."""
    words = [*DIGITS, str(tmp_path), "--method", "ft", "--methods.ft.batch_size", "16"]

    def load(*more: str) -> Config:
        return loader.load([*words, *more], settings=settings.layer)

    first = prepare(load("--data.forget.count", "150"))
    gone = erased.new(first, pseudonyms(first.config), method="ft", accepted="", models=(), tensors=(), source=False)
    erased.write(first.config, [gone.done()])
    prepared = prepare(load(f"--data.forget.{asked[0]}", asked[1]), replace=True)
    assert prepared.images.train == 50
    retain, forget = (len(prepared.splits[name]) for name in ("retain", "forget"))
    assert split_sizes(load()) == (retain, forget, 10)
    assert planned_share(load()) == share_of(prepared)
    assert split_sizes(load("--data.forget.fraction", "0.5")) == (25, 25, 10)


@pytest.mark.parametrize(("method", "share"), [("lethe", 0.05), ("lethe", 0.2), ("ft", 0.1), ("salun", 0.1), ("neggrad_plus", 0.3)])
def test_as_many_epochs_are_run_as_fit_into_the_share(method: str, share: float, tmp_path: Path) -> None:
    config = at_share(["--run.workspace", str(tmp_path)], Entry(method, share), {})
    assert config is not None
    assert config.method == f"{method}_at_{round(100 * share)}"
    found = planned_share(config)
    assert 0.6 * share < found <= 1.06 * share
    if method in ("lethe", "ft"):
        assert found == pytest.approx(share, rel=0.02)


@pytest.mark.parametrize("epochs", [32, 20, 52])
def test_a_head_alone_reads_no_more_examples_than_retraining(tmp_path: Path, epochs: int) -> None:
    """By its few weights it would train for thousands of epochs."""
    final = ["--pretrain.epochs", str(epochs - 2), "--pretrain.final_epochs", "2"]
    config = at_share(["--run.workspace", str(tmp_path), *final], Entry("cf_k", 0.1), {})
    assert config is not None
    assert config.methods["cf_k_at_10"].model_dump()["epochs"] == epochs
    assert planned_share(config, by_weights=False) == pytest.approx(1)


def test_a_method_whose_shortest_run_costs_more_has_no_row(tmp_path: Path) -> None:
    assert at_share(["--run.workspace", str(tmp_path)], Entry("model_3", 0.02), {}) is None


OWN = """
from dataclasses import dataclass

import torch
from lethe import Constant, Phase, Term


def joint(*, epochs: int = 4, scale: float = -0.2, text: str = "") -> tuple:
    return (Phase("joint", epochs, (Term("retain"), Term("forget", weight=scale)), 16, Constant(0.02)),)


@dataclass(frozen=True)
class Shrink:
    share: float
    name: str = "shrink"

    def __call__(self, model, data, refs):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= 1 - self.share


def shrunk(*, by: float = 0.1) -> tuple:
    return (Shrink(by),)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module `own_methods` that can be imported."""
    (tmp_path / "own_methods.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("own_methods", None)


@pytest.mark.usefixtures("own")
def test_a_function_of_ones_own_and_a_variant_have_rows(tmp_path: Path) -> None:
    """The row names what it is like by itself: the workspace does not remember what its own name means."""
    typed = ["--method", "own_methods:joint,gentle,own_methods:shrunk,lethe", "--share", "0.1", "--methods.joint.scale", "-0.3"]
    keys = ["--methods.gentle.like", "lethe", "--methods.gentle.weight", "0.5", *DIGITS, str(tmp_path / "w")]
    command = STAGES["leaderboard"].parse([*typed, *keys])
    words, names = command.arguments["words"], command.arguments["names"]
    config = loader.load(words)
    assert accepted_methods(config, names) == names == ["joint", "gentle", "shrunk", "lethe"]
    assert [dial(config, name) for name in names] == ["epochs", "retain_epochs", None, "retain_epochs"]
    joint, gentle = (at_share(words, Entry(name, 0.5), {}) for name in names[:2])
    assert joint is not None and gentle is not None
    assert (joint.like["joint_at_50"], gentle.like["gentle_at_50"]) == ("own_methods:joint", "lethe")
    assert joint.methods["joint_at_50"].model_dump() | {"epochs": 0} == {"epochs": 0, "scale": -0.3, "text": ""}
    assert 0.25 < planned_share(joint) <= 0.53
    assert gentle.methods["gentle_at_50"].model_dump()["weight"] == 0.5


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("names", "why"),
    [("own_methods:joint,x:joint", "joint is the name of another one, too"), ("own_methods:lethe,ft", "a method lethe exists")],
)
def test_functions_that_share_a_name_are_refused(names: str, why: str) -> None:
    with pytest.raises(UserError, match=rf"^method is own_methods:\w+ \(command line\); {why}, so give it another name: "):
        STAGES["leaderboard"].parse(["--method", names])


@pytest.mark.parametrize("how", ["--methods.ft.lr 0.5", "--methods.ft.lr=0.5", "--config FILE"])
def test_what_a_command_gives_wins_over_settings_that_were_chosen(how: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("methods: {ft: {lr: 0.5}}\n")
    row = at_share(
        [*DIGITS, str(tmp_path / "w"), *how.replace("FILE", str(file)).split()],
        Entry("ft", 0.5),
        {"arguments": {"lr": 0.0178, "crop_share": 0.3}},
    )
    assert row is not None
    assert row.methods["ft_at_50"].model_dump(include={"lr", "crop_share"}) == {"lr": 0.5, "crop_share": 0.3}


def test_an_empty_list_that_a_command_gives_is_none(tmp_path: Path) -> None:
    row = at_share([*DIGITS, str(tmp_path), "--methods.lethe.reinit", ""], Entry("lethe", 0.5), {})
    assert row is not None and not row.methods["lethe_at_50"].model_dump()["reinit"]


@pytest.mark.parametrize("share", ["0.125", "0.001", "1.5", "x", "nan"])
def test_a_share_that_no_row_is_named_by_is_refused(share: str) -> None:
    """Rows of 0.12 and 0.125 would be one."""
    with pytest.raises(UserError, match=rf"^share is {share}; it takes shares of the cost of retraining in whole percent, from 0.01 to 1"):
        accepted_shares(["0.1", share])


@pytest.mark.parametrize("percent", [1, 7, 29, 57, 58, 100])
def test_a_share_of_whole_percent_is_taken(percent: int) -> None:
    """Also where a hundred times the number is not whole, as 0.29 and 0.57."""
    assert accepted_shares([str(percent / 100)]) == [percent / 100]


def test_seeds_of_settings_that_another_run_replaced_are_not_finished(tmp_path: Path) -> None:
    """Their files fit, and the result is of the run that came after them."""
    words = [*DIGITS, str(tmp_path), *SHORT, "--methods.model_1.batch_size", "50"]
    layout = Layout(tmp_path)

    def asked(*more: str) -> Config:
        row = at_share([*words, *more], Entry("model_1", 0.5), {})
        assert row is not None
        return row

    def is_made(row: Config) -> bool:
        return is_finished(row, lambda: prepare(row))

    several, one = asked("--run.seeds", "2"), asked("--methods.model_1.lr", "0.2", "--run.seeds", "1")
    assert not is_made(several)
    for row, made in ((several, [several]), (one, [one]), (several, [several])):
        unlearn(row, show=False)
        assert [each for each in (several, one) if is_made(each)] == made
    assert scores.read(layout.scores("model_1_at_50")).seeds.keys() == {0, 1}


@pytest.mark.slow
def test_a_row_has_the_score_of_the_weights_and_references_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its process was killed before its score was computed, or a reference is another one since; what exists is not run again."""
    layout, name = Layout(tmp_path), "model_1_at_10"
    words = [*DIGITS, str(tmp_path), "--methods.model_1.batch_size", "50"]

    def ask(*more: str) -> None:
        leaderboard(loader.load([*words, *more]), [*words, *more], ["model_1"], ["0.1"])

    def is_of(kind: str) -> str:
        return str(scores.read(layout.scores(name)).tables[kind])

    def weights(kind: str) -> str:
        return short(checkpoint.model_hash(layout.weights(kind)))

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    ask()
    with monkeypatch.context() as patched:
        patched.setattr(run_logging, "log_scores", killed)
        with pytest.raises(KeyboardInterrupt):
            ask("--methods.model_1.lr", "0.2")
    assert is_of("model") != weights(name)
    ask("--methods.model_1.lr", "0.2")
    assert is_of("model") == weights(name)
    assert not [*layout.resume.glob("*/state.safetensors")]

    tensors, about = checkpoint.load(layout.weights("retrained"))
    checkpoint.save_model(
        {key: value * 1.01 if value.is_floating_point() else value for key, value in tensors.items()}, layout.weights("retrained"), about
    )
    made = layout.weights(name).stat().st_mtime_ns
    assert is_of("retrained") != weights("retrained")
    ask("--methods.model_1.lr", "0.2")
    assert is_of("retrained") == weights("retrained")
    assert layout.weights(name).stat().st_mtime_ns == made


def test_a_bank_that_is_asked_for_and_does_not_exist_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*DIGITS, str(tmp_path), *SHORT, "--retrain.seeds", "3"]
    said = f"retrain.seeds is 3, and {tmp_path}/bank has no retrained models, so rows have no floor; `python src/bank.py"
    leaderboard(loader.load(words), words, ["model_3"], ["0.02"])
    (line,) = (line for line in capsys.readouterr().err.splitlines() if said in line)
    assert "--retrain.seeds 3" in line and line.endswith("` trains them first")
    (tmp_path / "bank" / "key").mkdir(parents=True)
    (tmp_path / "bank" / "key" / "retrained.seed1.safetensors").touch()
    leaderboard(loader.load(words), words, ["model_3"], ["0.02"])
    assert "retrain.seeds" not in capsys.readouterr().err


def test_a_methods_own_arguments_reach_its_rows(tmp_path: Path) -> None:
    config = at_share(["--run.workspace", str(tmp_path), "--methods.lethe.weight", "0.3"], Entry("lethe", 0.1), {})
    assert config is not None
    assert config.methods["lethe_at_10"].model_dump()["weight"] == 0.3


@pytest.mark.parametrize("share", ["0", "2", "x", "nan", "0.001"])
def test_a_share_that_is_none_is_refused(share: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^share is .*; it takes shares of the cost of retraining"):
        leaderboard(loader.load(words := [*DIGITS, str(tmp_path)]), words, ["ft"], [share])
    assert not list(tmp_path.iterdir())


def test_a_method_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^method nope is unknown .*; nearest: "):
        leaderboard(loader.load(words := [*DIGITS, str(tmp_path)]), words, ["nope"], ["0.1"])
    assert not list(tmp_path.iterdir())


ROW = {"method": "ft", "share": 0.1, "seed": 0, "retain": 99.0, "forget": 88.0, "validation": 83.0, "test": 83.5, "mia.svc": 15.0}
ROW |= {"avg_gap.svc": 4.6, "mia.over": 50.0, "probe.excess": 1.0, "residual": 1.0, "kl_to_reference.forget": 0.4}
ROW |= {"swap.advantage": None, "floor": 0.33, "seconds": 900.0, "share_of_retrain": 0.1}
ROW |= {"memory_left": 8.0, "memory_left.low": -1.0, "memory_left.high": 17.0, "verdict": "cannot_tell"}


def test_the_table_and_the_figure_show_rows_with_and_without_a_gap() -> None:
    rows = [ROW, ROW | {"method": "lethe", "avg_gap.svc": None, "seconds": None, "mia.svc": None, "floor": None}]
    assert {*ROW} == {*COLUMNS}
    lines = table(rows).splitlines()
    assert lines[1].split() == ["ft", "0.10", "0", "99.00", "88.00", "83.50", "15.00", "4.60", "8", "0.10", "900", "cannot_tell"]
    assert lines[2].split() == ["lethe", "0.10", "0", "99.00", "88.00", "83.50", "8", "0.10", "cannot_tell"]
    assert lines[3] == "floor: 0.33 points, the avg_gap of a retrained model next to the others"
    assert lines[4].startswith("avg_gap: ") and lines[5].startswith("memory: ") and not lines[6:]
    assert "avg_gap:" not in table([])
    assert gap_against_cost([ROW | {"share": 0.0, "share_of_retrain": 0.0}]).startswith(b"\x89PNG")
    assert gap_against_cost(rows).startswith(b"\x89PNG")
    assert gap_against_cost(rows) != gap_against_cost([ROW | {"avg_gap.svc": 1.0}])
    assert forget_against_test(rows, {}) != forget_against_test(rows, {"forget": 85.0, "test": 84.0})


def test_chosen_settings_reach_the_rows_and_typed_ones_override_them(tmp_path: Path) -> None:
    """Next to a cost ratio of 2, a run of half as many epochs is planned."""
    words, chosen = ["--run.workspace", str(tmp_path)], {"arguments": {"weight": 0.07, "lr": 0.02}, "cost_ratio": 2.0}
    config = at_share([*words, "--methods.lethe.lr", "0.01"], Entry("lethe", 0.1), chosen)
    assert config is not None
    own = config.methods["lethe_at_10"].model_dump()
    assert (own["weight"], own["lr"]) == (0.07, 0.01)
    assert planned_share(config) == pytest.approx(0.05, rel=0.02)


def test_every_method_is_listed_with_source_cost_and_arguments() -> None:
    config = loader.load()
    parts = listing(config, config.methods).split("\n\n")
    assert [part.partition(":")[0] for part in parts] == [*registered_names(chains=False), "as_run"]
    for part in parts:
        summary, source, cost, arguments = part.splitlines()
        assert len(summary.split()) > 3
        assert len(source.split()) > 1
        assert cost.endswith("% of retraining")
        assert "lr=" in arguments
    assert "  cost       15.6 % of retraining" in parts[0].splitlines()
    assert not any(line == "  cost       0.0 % of retraining" for part in parts for line in part.splitlines())


def test_the_methods_that_are_named_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for words, names, expected in (
        ([], [], None),
        (["--method", "ft"], [], ["ft"]),
        ([], ["ft", "cf_k"], ["ft", "cf_k"]),
        ([], ["all"], None),
    ):
        config = loader.load(words)
        print_methods(config, names)
        assert [part.partition(":")[0] for part in capsys.readouterr().out.split("\n\n")] == (expected or [*config.methods])
    with pytest.raises(UserError, match="method fy is unknown"):
        print_methods(loader.load(), ["fy"])


def test_a_share_that_no_number_of_epochs_reaches_has_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lethe.pipeline.leaderboard.MOST_EPOCHS", 50)  # 100,000 are minutes of counting
    words = ["--data.source", "digits", "--data.limit", "2", "--data.forget.fraction", "0.5", "--model.architecture", "convnet"]
    assert at_share([*words, "--retrain.epochs", "60"], Entry("cf_k", 1.0), {}) is None


@pytest.mark.parametrize(
    ("rows", "seeds", "workers", "expected"),
    [(8, 1, 2, True), (1, 1, 2, True), (1, 8, 2, False), (3, 8, 2, False), (4, 8, 2, True), (3, 3, 2, True), (8, 8, 1, False)],
)
def test_rows_run_in_parallel_where_seeds_in_parallel_would_take_as_long(rows: int, seeds: int, workers: int, expected: bool) -> None:
    """Against the rounds of equal runs that either way takes."""
    by_rows = sum(seeds for _ in range(0, rows, workers))
    by_seeds = sum(1 for _ in range(rows) for _ in range(0, seeds, workers))
    assert in_parallel(rows, seeds, workers) == (workers > 1 and by_rows <= by_seeds) == expected
