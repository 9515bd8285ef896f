"""What a stage does differently when DVC runs it."""

import os
import signal
import sys
import threading
import time
from _thread import interrupt_main
from pathlib import Path

# Tags of a run: the stage that made it and, under `dvc exp run`, the experiment and the commit below it
TAGS = {"dvc.stage": "DVC_STAGE", "dvc.experiment": "DVC_EXP_NAME", "dvc.revision": "DVC_EXP_BASELINE_REV"}


def active() -> bool:
    """Return whether DVC runs this process as a stage."""
    return "DVC_STAGE" in os.environ


def experiment() -> bool:
    """Return whether DVC runs this process for an experiment (`dvc exp run`)."""
    return "DVC_EXP_NAME" in os.environ


def tags() -> dict[str, str]:
    """Return the tags by which a run names its DVC stage and experiment; none outside of DVC."""
    return {tag: os.environ[name] for tag, name in TAGS.items() if name in os.environ}


def begin() -> None:
    """Detach the stage from a launcher's MLflow run around `dvc repro`, and stop it when DVC is killed. Nothing outside of DVC."""
    if active():
        os.environ.pop("MLFLOW_RUN_ID", None)
        threading.Thread(target=_stop_with_dvc, daemon=True).start()


def _stop_with_dvc() -> None:
    """Stop as on SIGTERM, resumable, once DVC is gone: the next `dvc repro` would find the method still running."""
    import psutil

    def is_dvc(process: psutil.Process) -> bool:
        return any(Path(word).stem == "dvc" for word in process.cmdline()[:3])

    try:
        dvc = next(filter(is_dvc, psutil.Process().parents()), None)  # there may be a shell in between
        if dvc is None:
            return
        while dvc.is_running() and dvc.status() != psutil.STATUS_ZOMBIE:
            time.sleep(1)
    except psutil.NoSuchProcess:
        pass
    except psutil.Error:  # no permission to look at it
        return
    print("DVC was stopped, so its stage stops; `dvc repro` resumes it", file=sys.stderr, flush=True)
    interrupt_main(signal.SIGTERM)
