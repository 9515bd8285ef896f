"""One command does no work twice: weights are hashed once a file, logits tables are read once."""

import json
from collections import Counter

import pytest

from lethe.models import checkpoint
from support.project import Project

COUNTED = """
import contextlib, io, json
from lethe.cli.main import main
from lethe.evaluation import logits_table
from lethe.models import checkpoint
from lethe.workspace import read_model

calls = {"hashed": [], "tables": [], "models": [], "read": []}


def watch(module, name, kind, what):
    function = getattr(module, name)

    def watched(*arguments, **named):
        result = function(*arguments, **named)
        calls[kind].append(str(what(arguments, result)))
        return result

    setattr(module, name, watched)


watch(checkpoint, "weights_hash", "hashed", lambda arguments, result: result)
watch(logits_table, "read", "tables", lambda arguments, result: arguments[0])
watch(checkpoint, "load", "models", lambda arguments, result: arguments[0])
watch(read_model, "read", "read", lambda arguments, result: arguments[1])
with contextlib.redirect_stdout(io.StringIO()):
    code = main("unlearn", ["--method", "model_1"])
print(json.dumps(calls | {"code": code}))
"""


@pytest.mark.parametrize("earlier", [False, True], ids=["with their hash", "without, as earlier versions saved them"])
def test_one_unlearning_hashes_no_weights_and_reads_no_table_twice(earlier: bool, project: Project) -> None:
    project.ran("evaluate", "--method", "original,retrained")
    for name in ("original", "retrained") if earlier else ():
        path = project.root / "models" / f"{name}.safetensors"
        tensors, metadata = checkpoint.load(path)
        hash_ = metadata.pop(checkpoint.HASH)
        assert hash_ == checkpoint.weights_hash(tensors) == checkpoint.model_hash(path)
        checkpoint.save(tensors, path, metadata)
    before = {name: content for name, content in project.files().items() if name.startswith("models/")}
    calls = json.loads(project.script(COUNTED))
    assert calls["code"] == 0
    assert calls["read"] == ["model_1"], "the references' tables are those that exist"
    assert max(Counter(calls["hashed"]).values()) == 1
    assert len(calls["hashed"]) == (3 if earlier else 1)
    tables = Counter(path for path in calls["tables"])
    assert {path.rpartition("/")[2]: number for path, number in tables.items()} == {
        "original.safetensors": 1,
        "retrained.safetensors": 1,
        "model_1.safetensors": 1,
    }
    weights = [path for path in calls["models"] if "/models/" in path]
    assert len(weights) <= (6 if earlier else 4)
    assert {name: project.files()[name] for name in before} == before, "no file of an earlier version is written again"
