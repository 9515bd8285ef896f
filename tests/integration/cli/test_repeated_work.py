"""One command does no work twice: weights are hashed once a file, logits tables are read once. And it is four calls to a step."""

import json
from collections import Counter

from support.project import Project

COUNTED = """
import contextlib, io, json, traceback
import torch
from lethe.cli.main import main
from lethe.evaluation import logits_table
from lethe.models import checkpoint
from lethe.workspace import read_model

calls = {"hashed": [], "tables": [], "models": [], "read": []}
step = torch.optim.SGD.step


def stepped(self, *arguments, **named):
    calls["stack"] = [frame.name for frame in traceback.extract_stack() if "/lethe/" in frame.filename]
    return step(self, *arguments, **named)


torch.optim.SGD.step = stepped


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


def test_one_unlearning_hashes_no_weights_and_reads_no_table_twice(project: Project) -> None:
    project.ran("evaluate", "--method", "original,retrained")
    calls = json.loads(project.script(COUNTED))
    assert calls["code"] == 0
    assert calls["stack"] == ["main", "unlearn", "_run", "run", "_phase"]
    assert calls["read"] == ["model_1"], "the references' tables are those that exist"
    assert max(Counter(calls["hashed"]).values()) == 1
    assert len(calls["hashed"]) == 3, "original, retrained and the result"
    assert {path.rpartition("/")[2]: number for path, number in Counter(calls["tables"]).items()} == {
        "original.safetensors": 1,
        "retrained.safetensors": 1,
        "model_1.safetensors": 1,
    }
    assert len([path for path in calls["models"] if "/models/" in path]) <= 6
