"""Which search `adopt` takes, and that the variant it writes has the trial's arguments."""

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from ruamel.yaml import YAML

from lethe._util.errors import UserError
from lethe.config.loader import Config, load
from lethe.config.method_schema import method_section
from lethe.data import splits
from lethe.models import checkpoint
from lethe.search.adopt import adopt, for_search, origin, search_key, typed_method
from lethe.search.spaces import argument_values, widened_space
from lethe.search.storage import with_storage
from lethe.workspace import settings
from support.project import ROOT

OWN = '''
from lethe.recipes.ordering import Together
from lethe.recipes.optimizers import SGD
from lethe.recipes.parameters import Epochs, Scale
from lethe.recipes.recipe import Phase, Recipe, Term
from lethe.recipes.schedules import Constant


def joint(*, epochs: Epochs, scale: Scale = -0.1) -> Recipe:
    """One step on a retain and a forget batch together."""
    terms = (Term("retain"), Term("forget", weight=scale))
    return (Phase("joint", epochs, terms, 16, Constant(0.01), Together(), optimizer=SGD(0.9, 0.0)),)
'''


pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a params.yaml of one method and a variant of it, and a module with a method that the package does not know."""
    said = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    said |= {"method": "model_1", "methods": {"model_1": said["methods"]["model_1"], "calm": {"like": "model_1", "lr": 0.002}}}
    said["search"] |= {"method": "model_1", "spaces": {"model_1": said["search"]["spaces"]["model_1"]}}
    said.pop("demo"), said.pop("full", None)
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump(said, file)
    (tmp_path / "our_methods.py").write_text(OWN)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("our_methods", None)
    method_section.cache_clear()


def read(words: str) -> Config:
    return load(words.split(), settings=settings.layer)


def tried(words: str, name: str = "a", **about: Any) -> dict[str, Any]:
    """Keep a search of one trial, which has the configured arguments."""
    config = for_search(read(words))
    study = with_storage(config, partial(optuna.create_study, study_name=name, directions=["minimize", "maximize"]))
    for key, value in {"about": search_key(config), **about}.items():
        study.set_user_attr(key, value)
    arguments = argument_values(config)
    study.add_trial(optuna.trial.create_trial(values=[0.1, 90.0], user_attrs={"arguments": arguments}))
    return arguments


def remember(workspace: Path, lines: str) -> None:
    workspace.mkdir(parents=True, exist_ok=True)
    (workspace / "settings.yaml").write_text(lines)


@pytest.mark.parametrize("method", ["model_1", "calm"])
def test_a_variant_has_the_arguments_of_the_trial_where_a_workspace_remembers_others(method: str, project: Path) -> None:
    own = argument_values(for_search(read(f"--search.method {method}")))
    remember(project / "there", f"methods: {{{method}: {{lr: 0.5, weight_decay: 0.25}}}}\n")
    words = f"--search.method {method} --run.workspace there --methods.{method}.lr {own['lr']}"
    arguments = tried(words)
    assert (arguments["lr"], arguments["weight_decay"]) == (own["lr"], 0.25)
    adopt(read(words), 0, "gentle")
    for where in ("there", "elsewhere"):
        assert argument_values(read(f"--method gentle --run.workspace {where}")) == arguments


@pytest.mark.parametrize(
    "words",
    [
        "--search.method our_methods:joint --methods.joint.epochs 2",
        "--search.method mine --methods.mine.like our_methods:joint --methods.mine.epochs 2",
        "--search.method calmer --methods.calmer.like model_1 --methods.calmer.lr 0.0002",
    ],
)
def test_a_method_that_is_not_in_params_is_adopted_by_what_the_search_prints(words: str, project: Path) -> None:
    name = words.split()[1].rpartition(":")[2]
    arguments = tried(f"{words} --methods.{name}.{'scale -0.4' if 'our_methods' in words else 'weight_decay 0.25'}")
    printed = settings.as_words(typed_method(for_search(read(words))))
    assert printed == words.split()
    adopt(read(" ".join(printed)), 0, "gentle")
    said = read("--method gentle")
    assert argument_values(said) == arguments
    assert said.like["gentle"] == ("our_methods:joint" if "our_methods" in words else "model_1")


def test_a_search_of_a_method_without_a_space_is_refused(project: Path) -> None:
    config = for_search(read("--search.method our_methods:joint --methods.joint.epochs 2"))
    says = r"search.method is joint \(command line\); search.spaces has nothing of it; .* --search.spaces.joint.epochs.low <number> "
    with pytest.raises(UserError, match=says):
        widened_space(config)


def made(workspace: Path, first: int, weight: float) -> dict[str, str]:
    """What is read of a workspace: lists of splits, and an original. Returns what its searches are known by."""
    for number, split in enumerate(splits.SPLITS):
        (path := workspace / "data" / "splits" / f"{split}.csv").parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"id\n{first + number}\n")
    hash_ = checkpoint.save_model({"weight": torch.tensor([weight])}, workspace / "models" / "original.safetensors", {"kind": "original"})
    return {"origin": origin(hash_, splits.stored_split_hash(workspace / "data" / "splits"))}


def lr(name: str) -> Any:
    return argument_values(read(f"--method {name}"))["lr"]


def test_of_a_shared_database_the_searches_of_the_workspace_are_taken(project: Path) -> None:
    shared = f"--search.storage sqlite:///{project}/shared.db"
    of: Mapping[str, dict[str, str]] = {
        "a": made(project / "a", 1, 1.0), "copy": made(project / "copy", 1, 1.0),
        "request": made(project / "request", 2, 1.0), "model": made(project / "model", 1, 2.0),
    }  # fmt: skip
    assert len({known["origin"] for known in of.values()}) == 3
    for number, where in enumerate(("a", "request", "model"), 1):
        tried(f"{shared} --methods.model_1.lr 0.00{number}", where, **of[where])
    tried(f"{shared} --methods.model_1.lr 0.009", "of an earlier version")
    for where, rate in {"a": 0.001, "copy": 0.001, "request": 0.002, "model": 0.003}.items():
        adopt(read(f"{shared} --run.workspace {where}"), 0, f"of_{where}")
        assert lr(f"of_{where}") == rate
    made(project / "other", 9, 1.0)
    with pytest.raises(UserError, match=r"there is no search with method model_1, .* in search.storage of the original and the splits in "):
        adopt(read(f"{shared} --run.workspace other"), 0, "of_other")
    with pytest.raises(UserError, match=r"original.safetensors.* does not exist"):
        adopt(read(f"{shared} --run.workspace new"), 0, "of_new")


def test_in_the_database_of_a_workspace_the_newest_search_is_taken_whatever_version_made_it(project: Path) -> None:
    tried("--run.workspace a --methods.model_1.lr 0.001", "old", origin="another request")
    tried("--run.workspace a --methods.model_1.lr 0.002", "of an earlier version")
    adopt(read("--run.workspace a"), 0, "gentle")
    assert lr("gentle") == 0.002
