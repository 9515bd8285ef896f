"""The verbs about MLflow: send it the unsent records, open its UI."""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from lethe._util.checkout import root
from lethe._util.errors import UserError
from lethe._util.names import is_whole_number


def send(folders: Sequence[str]) -> int:
    """Send MLflow the unsent records of workspaces.

    Args:
        folders: Workspaces; empty: the project's folder, and those in it.

    Returns:
        1 if records are left, else 0.

    Raises:
        UserError: A folder does not exist.
    """
    from lethe._util.files import OUTBOX
    from lethe.tracking.sender import send

    homes = [Path(folder) for folder in folders]
    for home in homes:
        if not home.is_dir():
            raise UserError(f"{home} is not a folder")
    homes = homes or [home for home in (root(), *root().glob("*/")) if (home / OUTBOX).is_dir()]
    unsent = send(homes)
    held = sum(len(list((home / OUTBOX).glob("*/"))) for home in homes)
    if unsent:
        print(f"{unsent} records are not sent")
    else:
        print(f"{held} runs are left to the processes that run them" if held else "Everything is sent")
    return 1 if unsent else 0


def ui(port: str) -> None:
    """Replace this process by MLflow's UI on the project's store.

    Args:
        port: TCP port on 127.0.0.1.

    Raises:
        UserError: The port is not a number from 1 to 65535, or is in use.
    """
    if not is_whole_number(port) or not 0 < int(port) < 65536:
        raise UserError(f"port is {port or repr('')}; it takes a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(port)))
        except OSError:
            raise UserError(f"port {port} is in use; take another: --port {int(port) % 65535 + 1}") from None
    from lethe.tracking.outbox import default_store

    os.environ |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    words = ["ui", "--backend-store-uri", default_store(), "--workers", "1", "--port", port]
    os.execv(sys.executable, [sys.executable, "-P", "-m", "mlflow", *words])
