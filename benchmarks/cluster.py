"""A PostgreSQL cluster of somebody's own: for tests and measurements, which may stop it, and gone afterwards."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

MISSING = "PostgreSQL's programs (initdb, postgres) are not installed: apt-get install postgresql"
SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}  # in PostgreSQL's words


def program(name):
    """The path of one of the server's programs, which Debian keeps off the path; None where there is none."""
    beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    return str(beside[-1]) if beside else shutil.which(name)


class Cluster:
    """A cluster on a socket in a folder of its own. Raises FileNotFoundError where PostgreSQL is not installed."""

    def __init__(self):
        if program("initdb") is None:
            raise FileNotFoundError(MISSING)
        self.folder = Path(tempfile.mkdtemp(prefix="kinetograph-pg-"))
        self._who, self._server = {}, None
        if os.geteuid() == 0:  # PostgreSQL refuses to be root
            account = pwd.getpwnam("postgres")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        initdb = [program("initdb"), "-D", self.folder / "data", "-A", "trust", "-U", "tests", "-E", "UTF8"]
        quiet = {"stdout": subprocess.DEVNULL, "cwd": self.folder}
        subprocess.run([*initdb, "--locale=C", "--no-sync"], check=True, **quiet, **self._who)
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def start(self):
        """Start it, and wait until it answers."""
        settings = {"listen_addresses": "", "unix_socket_directories": self.folder, "fsync": "off"}
        settings["max_connections"] = 200
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            command = [program("postgres"), "-D", self.folder / "data", *flags]
            self._server = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self._who)
        self._await()

    def _await(self):
        import psycopg

        for _ in range(300):
            try:
                self._connected().close()
                return
            except psycopg.OperationalError:
                assert self._server.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self, how="fast"):
        """Stop it: "fast" ends every connection, "immediate" is a crash."""
        self._server.send_signal(SIGNALS[how])
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def close(self):
        """Stop it and remove everything."""
        if self._server is not None and self._server.poll() is None:
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _connected(self):
        import psycopg

        return psycopg.connect(host=str(self.folder), user="tests", dbname="postgres", autocommit=True)

    def database(self):
        """The address of a new, empty database."""
        name = f"t{uuid.uuid4().hex}"
        with self._connected() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://tests@/{name}?host={self.folder}"

    def drop(self, url):
        """Remove a database, whoever is in it."""
        name = url.split("@/")[1].partition("?")[0]
        with self._connected() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
