"""What a stage does otherwise when DVC runs it."""

import os
import signal
import sys
import threading
import time
from _thread import interrupt_main
from pathlib import Path

# Tags of a row: which stage made it, and under `dvc exp run` in which experiment, on top of which commit
TAGS = {"dvc.stage": "DVC_STAGE", "dvc.experiment": "DVC_EXP_NAME", "dvc.revision": "DVC_EXP_BASELINE_REV"}


def runs() -> bool:
    return "DVC_STAGE" in os.environ


def tags() -> dict[str, str]:
    return {tag: os.environ[name] for tag, name in TAGS.items() if name in os.environ}


def begin() -> None:
    """A launcher's row around `dvc repro` is no stage's own; and when DVC is killed, the stage must not go on unseen."""
    if runs():
        os.environ.pop("MLFLOW_RUN_ID", None)
        threading.Thread(target=_end_with_dvc, daemon=True).start()


def _end_with_dvc() -> None:
    """Stops as SIGTERM does, resumable, once DVC is gone: the next `dvc repro` would find the method still running."""
    import psutil

    def called_dvc(process: psutil.Process) -> bool:
        return any(Path(word).stem == "dvc" for word in process.cmdline()[:3])

    try:
        dvc = next(filter(called_dvc, psutil.Process().parents()), None)  # a shell may stand between
        if dvc is None:
            return
        while dvc.is_running() and dvc.status() != psutil.STATUS_ZOMBIE:
            time.sleep(1)
    except psutil.NoSuchProcess:
        pass
    except psutil.Error:  # it may not be looked at
        return
    print("dvc is gone, so its stage stops; `dvc repro` goes on", file=sys.stderr, flush=True)
    interrupt_main(signal.SIGTERM)
