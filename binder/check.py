"""Check what can be checked of the Binder build without Docker: `python binder/check.py`.

The files name what the package needs and no less; the pip part resolves in a fresh environment; with `--notebooks`
each notebook runs with every connection but those of Jupyter itself refused, and its memory is measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import venv
from pathlib import Path

import nbformat
import psutil
import yaml
from nbclient import NotebookClient
from packaging.requirements import Requirement

BINDER = Path(__file__).parent
ROOT = BINDER.parent
MEMORY = 1500  # MiB for a kernel; a session has 2 GB, and JupyterLab takes its part
CONDA_NAMES = {"torch": "pytorch-cpu"}
NO_CONNECTIONS = """
import ipaddress, socket
connect = socket.socket.connect
def connect_here(self, address):
    if self.family != socket.AF_UNIX and not ipaddress.ip_address(address[0]).is_loopback:
        raise ConnectionRefusedError(f"This notebook wants to reach {address}: nothing may need the network.")
    return connect(self, address)
def resolve_nothing(host, *args, **kwargs):
    if host not in (None, "", "localhost", "127.0.0.1", "::1"):
        raise ConnectionRefusedError(f"This notebook wants to reach {host}: nothing may need the network.")
    return resolve(host, *args, **kwargs)
resolve, socket.getaddrinfo = socket.getaddrinfo, resolve_nothing
socket.socket.connect = connect_here
"""


def environment() -> tuple[dict[str, Requirement], list[str]]:
    """The requirements of `environment.yml` by name, and its pip part."""
    told = yaml.safe_load((BINDER / "environment.yml").read_text())["dependencies"]
    pip = next(one["pip"] for one in told if isinstance(one, dict))
    conda = [one.replace("=3", "==3") if one.startswith("python=") else one for one in told if isinstance(one, str)]
    return {one.name: one for one in map(Requirement, [*conda, *pip])}, pip


def missing_requirements() -> list[str]:
    """What the package needs that the environment lacks, or has with another lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["widgets"]]
    there, _ = environment()
    found = []
    for one in map(Requirement, needed):
        name = CONDA_NAMES.get(one.name, one.name)
        if name not in there or there[name].specifier != one.specifier:
            found.append(f"{one} is needed; environment.yml has {there.get(name, 'nothing of that name')}")
    return found


def resolve() -> None:
    """Let pip resolve its part in a fresh environment, without installing it."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [
            f"{folder}/bin/python",
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--quiet",
            "--dry-run",
        ]
        subprocess.run([*pip, *environment()[1]], check=True, stderr=subprocess.STDOUT)


def run(path: Path) -> tuple[float, float]:
    """Run a notebook without a network; its seconds and the most MiB that its kernel and children held."""
    notebook, most, done = nbformat.read(path, as_version=4), [0.0], threading.Event()

    def watch(process: psutil.Process) -> None:
        while not done.wait(0.1):
            try:
                held = sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])
            except psutil.NoSuchProcess:
                continue
            most[0] = max(most[0], held / 2**20)

    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder, "site")
        site.mkdir()
        (site / "sitecustomize.py").write_text(NO_CONNECTIONS)
        paths = [str(site), str(ROOT), os.environ.get("PYTHONPATH", "")]
        kernel = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        client = NotebookClient(
            notebook, timeout=600, resources={"metadata": {"path": folder}}, store_widget_state=False
        )
        began = time.perf_counter()
        with client.setup_kernel(env=kernel):
            watcher = threading.Thread(target=watch, args=(psutil.Process(client.km.provisioner.pid),))
            watcher.start()
            try:
                for place, cell in enumerate(notebook.cells):
                    client.execute_cell(cell, place)
            finally:
                done.set()
                watcher.join()
    return time.perf_counter() - began, most[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notebooks", action="store_true", help="run each notebook as well")
    told, wrong = parser.parse_args(), missing_requirements()
    for line in wrong:
        print(line)
    resolve()
    print("The pip part resolves.")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if told.notebooks else ():
        seconds, memory = run(path)
        print(f"{path.name:40} {seconds:6.1f} s {memory:7.0f} MiB")
        if memory > MEMORY:
            wrong.append(path.name)
            print(f"That is more than the {MEMORY} MiB that it may take.")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
