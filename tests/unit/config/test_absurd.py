"""Whatever a command line or a file holds, it is a configuration or one line about the first thing wrong. `make fuzz` tries 5,000."""

import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lethe._util.errors import LONGEST, UserError
from lethe.config import loader
from lethe.config.yaml_file import read_yaml
from lethe.workspace import settings as remembered
from support import absurd
from support.project import ROOT

EXAMPLES = settings().max_examples if settings.get_current_profile_name() == "fuzz" else 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that relative paths resolve against."""
    own = tmp_path_factory.mktemp("absurd")
    (own / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return own


@pytest.fixture(scope="module")
def stood_for(folder: Path) -> dict[str, str]:
    return absurd.places(folder)


@settings(max_examples=EXAMPLES)
@given(layers=absurd.layers(), overlay=st.sampled_from([None, None, "demo", "full"]))
def test_a_configuration_or_one_line(
    layers: tuple[list[str], bytes | None, bytes | None], overlay: str | None, folder: Path, stood_for: dict[str, str]
) -> None:
    typed, own, kept = layers
    workspace = folder / "folder"
    for content, file in ((own, folder / "own.yaml"), (kept, workspace / "settings.yaml")):
        file.write_bytes(content or b"")
    words = [stood_for.get(word, word) for word in typed]
    words += ["--config", str(folder / "own.yaml")] if own is not None else []
    words += ["--run.workspace", str(workspace)] if kept is not None else []
    before = sorted(folder.rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        try:
            config = loader.load(words, overlay=overlay, settings=remembered.layer)
            remembered.check(config, "unlearn")
            config.recipe() if not config.chain else config.chain_recipes()
            config.reference_recipe("retrained", 1000)
            assert config.as_json()
            assert config.resolved()
            for key, text in config.given.items():  # which files keep
                (key + text).encode()
        except UserError as error:
            said = str(error)
            assert len(said) <= LONGEST
            assert said.isprintable()
    assert sorted(folder.rglob("*")) == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 * 2**20  # KiB


# --- YAML that stands for more than it says -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]\n", ""),
        ("".join(f"k{i}: &k{i} [{', '.join(['1'] if i == 0 else [f'*k{i - 1}'] * 2)}]\n" for i in range(20)), "more than 100,000 values"),
        ("".join(f"k{i}: &k{i} {{<<: [{'' if i == 0 else f'*k{i - 1}, *k{i - 1}'}]}}\n" for i in range(20)), "more than 100,000 values"),
        ("a: &a {b: *a}\n", "line 1: an alias (*name) repeats what it is in"),
        ("a: !!python/name:os.system\n", "line 1: a tag (!name) is not accepted"),
        ("a: 1\nb: !!binary aGk=\n", "line 2: a tag (!name) is not accepted"),
        ("a: 1\na: 2\n", 'line 2: found duplicate key "a"'),
        (f"a: {'[' * 40}{']' * 40}\n", "sections and lists are more than 32 deep in one another"),
        (f"a: {'1' * 50}\n", "line 1: a number has more than 40 digits"),
        ("a: 2020-13-45\n", "not valid YAML (month must be in 1..12)"),
        ("a: " + "1" * 500_001, "it has more than 500,000 bytes"),
    ],
)
def test_what_is_yaml_and_not_accepted(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(content)
    if not says:
        assert read_yaml(path, "own.yaml")["c"] == [[[1, 1]] * 2] * 2
        return
    with pytest.raises(UserError) as raised:
        read_yaml(path, "own.yaml")
    assert says in str(raised.value)


@pytest.mark.parametrize("place", ["/dev/zero", "PIPE", "FOLDER", "a" * 300, "~nobody_x/a", "LOOP", "a\0b"])
def test_a_file_that_is_none(place: str, folder: Path, stood_for: dict[str, str]) -> None:
    with pytest.raises(UserError):
        loader.load(["--config", stood_for.get(place, place)])


def test_a_block_of_yaml_is_a_text_of_one_line(tmp_path: Path) -> None:
    """Its line break at the end is no part of the text."""
    (tmp_path / "own.yaml").write_text("run:\n  experiment: >\n    one\n    text\n")
    assert loader.load(["--config", str(tmp_path / "own.yaml")]).run.experiment == "one text"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--run.workspace", "~nobody_x/a"], "run.workspace: ~nobody_x/a names a user that does not exist"),
        (["--data.root", "~nobody_x/a"], "data.root is ~nobody_x/a (command line); ~nobody_x/a names a user that does not exist"),
        (
            ["--data.root", "a" * 300],
            f"data.root is {'a' * 300} (command line); {'a' * 300} is no path: a name in it has at most 255",
        ),
        (["--data.root", "a\nb"], r"data.root is a\nb (command line); it takes text without control characters, in UTF-8"),
        (["--model.architecture", "a\udcff"], r"model.architecture is a\udcff (command line); it takes text without control characters"),
        (["--data.metadata", ""], "data.metadata is '' (command line); it takes a path or null"),
        (["--", "1"], "'' is unknown (command line); nearest: "),
    ],
)
def test_what_no_file_takes_is_refused_by_its_key(words: list[str], says: str) -> None:
    with pytest.raises(UserError) as raised:
        loader.load(words, settings=remembered.layer)
    assert str(raised.value).startswith(says)
