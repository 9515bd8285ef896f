"""Units of work for processes, which find them by name; a folder holds what each kept."""

import os
import signal
import threading
import time
from pathlib import Path

from lethe._util.errors import UserError


def square(item: tuple[str, int]) -> tuple[int, int]:
    """Keeps `<n>` in the folder; the result and who made it. Negative: fails. 13: dies at its first try. 666: dies."""
    folder, n = Path(item[0]), item[1]
    tried = folder / f"{n}.tried"
    again = tried.exists()
    tried.touch()
    if n < 0:
        raise UserError(f"{n} is negative")
    if n == 666 or (n == 13 and not again):
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / str(n)).touch()
    return n * n, os.getpid()


def surroundings(n: int) -> tuple[str | None, str | None]:
    return os.environ.get("OMP_NUM_THREADS"), os.environ.get("CUDA_VISIBLE_DEVICES")


def odd(n: int) -> object:
    """What can't be pickled."""
    return threading.Lock() if n else n


def wait(item: tuple[str, int]) -> None:
    """Until it is told to stop, which it notes."""
    folder, n = Path(item[0]), item[1]
    (folder / f"{n}.began").write_text(str(os.getpid()))
    try:
        for _ in range(6000):  # Ray interrupts between two steps of Python
            time.sleep(0.05)
    except KeyboardInterrupt:
        (folder / f"{n}.stopped").touch()
        raise


def kept(item: tuple[str, int]) -> int:
    """Found again where it was kept; else notes the try, waits for `go` if its number is above 1, and keeps its square."""
    folder, n = Path(item[0]), item[1]
    if not (folder / str(n)).exists():
        with (folder / f"{n}.tried").open("a") as file:
            file.write(f"{os.getpid()}\n")
        while n > 1 and not (folder / "go").exists():
            time.sleep(0.05)
        (folder / str(n)).write_text(str(n * n))
    return int((folder / str(n)).read_text())


def told(n: int) -> tuple[str | None, str, str | None]:
    """What reaches another machine: the environment, the folder, the GPU."""
    return os.environ.get("MLFLOW_TRACKING_PASSWORD"), str(Path.cwd()), os.environ.get("CUDA_VISIBLE_DEVICES")


if __name__ == "__main__":
    import sys

    from lethe.parallel.pool import map_units

    for _ in map_units(wait, [(sys.argv[1], n) for n in range(2)], workers=2):
        pass
