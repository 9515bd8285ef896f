"""Whatever is typed ends in exit code 0, or in one line and exit code 2 with nothing written. `make fuzz` types 200 command lines."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import absurd
from support.project import Project

FUZZ = settings.get_current_profile_name() == "fuzz"
pytestmark = [pytest.mark.slow, *([pytest.mark.timeout(4 * 3600)] if FUZZ else [])]  # a busy machine takes up to 10 s for each of them

EXAMPLES = 200 if FUZZ else 10
STAGES = (  # which train nothing
    *("prepare", "unlearn --explain", "unlearn --explain --time", "unlearn --list", "evaluate", "report", "verify", "report card"),
    *("report card --list train/0", "erase", "erase --check", "ledger verify", "fingerprint"),
)
ABSURD = (  # each is a value that its key takes, or nearly
    *(
        "data.forget.fraction 1e-9",
        "data.forget.fraction 0.999999",
        "data.forget.count 1000000000",
        "data.limit 1",
        "data.forget.classes 3,3",
    ),
    *("data.forget.classes all", "data.forget.ids /dev/zero", "data.forget.ids PIPE", "data.forget.where a=b", "data.metadata /dev/zero"),
    *("data.mean 1e300,1,1", "data.std 1e-300,1,1", "methods.hybrid_4.epochs 100000", "methods.hybrid_4.batch_size 1000000000"),
    *("methods.hybrid_4.lr 1e300", "run.seed 2147483647", "run.seeds 10000", "run.workers 1024", "run.threads 1024", f"run.cache {2**63}"),
    *("data.image_size 1024", "pretrain.crop 999", "model.architecture os:system", "method builtins:exit", "data.source builtins:exit"),
    *(
        "data.source npz --data.root PIPE",
        "data.source idx --data.root FOLDER",
        "data.source csv --data.root OWN",
        "run.measures builtins:exit",
    ),
    *("data.source image_folder --data.root FOLDER", "data.source huggingface --data.root LOOP", "run.workspace /dev/null"),
    *("run.workspace OWN/a", "pretrain.checkpoint /dev/zero", "pretrain.checkpoint PIPE", "pretrain.checkpoint http://[::1", "config PIPE"),
)


@pytest.fixture
def stood_for(project: Project) -> dict[str, str]:
    return absurd.places(project.root)


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stage=st.sampled_from(STAGES), words=st.sampled_from(ABSURD).map(lambda text: f"--{text}".split(" ")) | absurd.words())
def test_one_line_or_done(project: Project, stood_for: dict[str, str], stage: str, words: list[str]) -> None:
    typed = [stood_for.get(word, word.replace("OWN/", f"{stood_for['OWN']}/")) for word in words]
    if any("\0" in word for word in typed) or any(word in ("--help", "-h") for word in typed):
        return  # no command line holds a zero byte
    before = {name: content for name, content in project.files().items() if not name.startswith(".lethe/")}
    done = project.run(*stage.split(" "), *typed, MOST_MEMORY=str(2 * 2**30))
    told = (stage, words, done.stderr[-2000:])
    assert done.returncode in (0, 1 if "--check" in stage or stage == "verify" else 0, 2), told
    assert "Traceback" not in done.stderr, told
    if done.returncode == 2:
        assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == done.stderr.splitlines()[-1:], told
        assert {name: content for name, content in project.files().items() if not name.startswith(".lethe/")} == before, told
