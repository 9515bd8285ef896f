"""A temporary PostgreSQL: `python tools/postgres.py` starts one in a temporary folder, reachable from this machine only, prints its address
and removes it at Ctrl-C. Needs PostgreSQL's programs (Debian: apt-get install postgresql)."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def programs() -> Path | None:
    """Find the folder of initdb and postgres, which Debian does not put on PATH; None if they are not installed."""
    installed = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    found = shutil.which("initdb")
    return max(installed, key=lambda path: float(path.parent.name), default=Path(found).parent if found else None)


class Server:
    """A server with one database, lethe, and one user, lethe, with a random password. It can be killed and started again."""

    def __init__(self, folder: Path, password: str = "") -> None:
        where = programs()
        if where is None:
            raise FileNotFoundError("PostgreSQL's initdb is not installed; Debian: apt-get install postgresql")
        self.programs, self.folder, self.password = where, folder / "data", password or secrets.token_hex(8)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.user = None if os.getuid() else next((u for u in ("postgres", "nobody") if _known(u)), None)  # initdb refuses root
        secret = folder / "password"
        secret.write_text(self.password)
        if self.user:
            folder.chmod(0o755)
            for path in (folder, secret):
                shutil.chown(path, self.user)
        self._run("initdb", "-D", self.folder, "-U", "lethe", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync", "-E", "UTF8")
        secret.unlink()
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "lethe", "lethe", PGPASSWORD=self.password)

    @property
    def url(self) -> str:
        return f"postgresql://lethe:{self.password}@127.0.0.1:{self.port}/lethe"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        log = self.folder.parent / "log"
        for _ in range(20):  # after a kill its children take a moment to notice
            with contextlib.suppress(subprocess.CalledProcessError):
                return self._run("pg_ctl", "-D", self.folder, "-l", log, "-w", "-o", options, "start")
            time.sleep(0.5)
        raise RuntimeError(log.read_text())

    def kill(self) -> None:
        """Kill it as `kill -9` does."""
        os.kill(int((self.folder / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def stop(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._run("pg_ctl", "-D", self.folder, "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: object, **environment: str) -> None:
        command = [str(self.programs / program), *map(str, arguments)]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command, check=True, user=self.user, cwd="/", env=os.environ | environment, **quiet)  # type: ignore[call-overload]


def _known(user: str) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(user))
    return False


@contextlib.contextmanager
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="lethe-postgres-"))
    try:
        made = Server(folder)
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with server() as running:
            print(f"export PGPASSWORD={running.password}", f"--search.storage postgresql://lethe@127.0.0.1:{running.port}/lethe", sep="\n")
            print("Ctrl-C stops it and deletes its data", file=sys.stderr)
            signal.pause()
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        pass
