"""MLflow's server, started and killed."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


class Server:
    """A real tracking server that can be killed and started again."""

    def __init__(self, folder, store):
        self.folder, self.store, self.port = folder, store, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(self.port)]
        command += ["--backend-store-uri", self.store, "--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("a") as log:
            environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # a dozen processes that nobody asks for
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=environment, start_new_session=True)

    def answers(self):
        try:
            return urllib.request.urlopen(f"{self.address}/health", timeout=10).status == 200
        except OSError:
            return False

    def stop(self):
        assert self.process
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
