"""The places that a journal can be kept in: a SQLite file, and a PostgreSQL server of the tests' own."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from baal_widgets.journal import journal


def server_programs():
    """The folder of `initdb` and `postgres`; Debian keeps them off the path."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="session")
def server():
    """The URL of a PostgreSQL server of our own, on loopback, gone after the tests."""
    programs = server_programs()
    if programs is None:
        pytest.fail("The journal's tests need a PostgreSQL server: apt-get install postgresql.")
    # the server refuses to run as root
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="baal-widgets-"))
    if user:
        shutil.chown(folder, "postgres", "postgres")
    data, port = folder / "data", free_port()
    making = [programs / "initdb", "-D", data, "--auth=trust", "--username=tester", "--encoding=UTF8", "--no-sync"]
    subprocess.run(making, check=True, capture_output=True, cwd=folder, **user)
    options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder, "fsync": "off"}
    running = subprocess.Popen(
        [programs / "postgres", "-D", data, *[f"--{name}={value}" for name, value in options.items()]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        **user,
    )
    try:
        url = f"postgresql+psycopg://tester@127.0.0.1:{port}"
        wait_for(f"{url}/postgres", running)
        yield url
    finally:
        running.send_signal(signal.SIGINT)  # at once, whoever is still connected
        running.wait(timeout=30)
        shutil.rmtree(folder)


def wait_for(url, running):
    engine, deadline = create_engine(url), time.monotonic() + 30
    while True:
        try:
            engine.connect().close()
            engine.dispose()
            return
        except OperationalError:
            if running.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.fixture
def postgresql(server, monkeypatch):
    """The URL of an empty database."""
    name = f"labels_{uuid.uuid4().hex}"
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    opened, connect = [], journal.connect
    monkeypatch.setattr(journal, "connect", lambda *told: opened.append(connect(*told)) or opened[-1])
    yield f"{server}/{name}"
    for engine in opened:  # a connection that is left to the collector is a warning
        engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """Where a journal may be: each test that asks for it runs in each of them."""
    return tmp_path / "labels.db" if request.param == "sqlite" else request.getfixturevalue("postgresql")
