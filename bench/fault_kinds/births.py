"""A command is killed while a store is made that it needs: MLflow's or Optuna's SQLite file."""

import signal
from collections.abc import Iterator

import numpy as np

from fault_kinds.kills import KILLED, kill_after
from fault_kinds.scene import COMMANDS, Stage, last_words, traced, wrong
from support.project import at

STATEMENTS = "sqlalchemy.engine.default:DefaultDialect.do_execute"
MOST = {"mlflow": 400, "optuna": 60}  # statements that make the tables, about


def born(stage: Stage, name: str, draw: np.random.Generator) -> Iterator[str]:
    """One try: killed right before a random statement, or at a random moment; then the same command makes it whole."""
    command = COMMANDS["pretrain" if name == "mlflow" else "search"]
    expected = stage.uninterrupted(command)
    project = stage.set_up(command.after)
    if name == "mlflow":
        (project.root / "mlflow.db").unlink()
    times = int(draw.integers(1, MOST[name]))
    if name == "mlflow" and draw.random() < 0.5:
        code = kill_after(project.start(command.verb, *command.words), after := draw.uniform(0, 10))
        when = f"after {after:.2f} s"
    else:
        code = project.run(command.verb, *command.words, **at(STATEMENTS, times)).returncode
        when = f"before statement {times}"
    when += "" if code == KILLED else ", which did not come"
    done = project.run(command.verb, *command.words)
    if done.returncode:
        yield f"the same command ended with {done.returncode}: {last_words(done.stderr)} ({signal.SIGKILL.name} {when})"
    if "Traceback" in done.stderr:
        yield f"{traced(done.stderr)} ({signal.SIGKILL.name} {when})"
    yield from (f"{fault} ({signal.SIGKILL.name} {when})" for fault in wrong(project, expected))
