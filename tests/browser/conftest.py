"""A JupyterLab server of the test's own and a real Chromium."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TOKEN = "a-token-of-the-test"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.when == "call":
        item.failed = report.failed
    return report


@pytest.fixture(scope="session")
def chromium():
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.fail("The browser tests need Chromium: apt-get install chromium, or set CHROMIUM to one's path.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """The address and the folder of a JupyterLab server on the loopback, stopped at the end."""
    home, root = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("lab")
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(
        json.dumps({"fetchNews": "false", "checkForUpdates": False})
    )
    environment = environment_of(home)
    port = free_port()
    options = [
        "--no-browser",
        "--allow-root",
        f"--ServerApp.token={TOKEN}",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={root}",
        "--expose-app-in-browser",
    ]
    command = [sys.executable, "-m", "jupyterlab", *options]
    address = f"http://127.0.0.1:{port}"
    with server(command, environment, home / "server.log"):
        wait_until(lambda: urllib.request.urlopen(f"{address}/api/status?token={TOKEN}", timeout=2).close())
        yield address, root, home


def environment_of(home):
    """Jupyter's folders of the test's own: a theme chosen in one would show in the next."""
    names = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    return {**os.environ, **{name: str(home / folder) for name, folder in names.items()}}


@contextmanager
def server(command, environment, log, folder=None):
    """A server process in a group of its own, stopped at the end; what it printed is told when the test fails."""
    with log.open("w") as file:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=file, stderr=file, start_new_session=True
        )
        try:
            yield process
        except BaseException:
            print(log.read_text()[-3000:])
            raise
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def wait_until(attempt, seconds=120):
    """The result of `attempt()` once it neither raises nor is `None`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            result = attempt()
        except (OSError, AssertionError):
            if time.monotonic() > deadline:
                raise
        else:
            return result
        time.sleep(0.3)


@pytest.fixture
def page(chromium, request):
    context = chromium.new_context(viewport={"width": 1400, "height": 1100})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.told = []  # what the page complained of, for the report of a failed test
    page.on("console", lambda message: page.told.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.told.append(str(error)))
    yield page
    if getattr(request.node, "failed", False):
        target = Path(tempfile.gettempdir()) / f"{request.node.name}.png"
        page.screenshot(path=target)
        print(f"\nThe page at the end: {target}\n" + "\n".join(page.told[-20:]))
    context.close()


class Notebook:
    """A notebook open in JupyterLab, and the labelling widget in it."""

    def __init__(self, page: Page, lab: tuple[str, Path, Path], name: str) -> None:
        self.page, (self.address, self.root, _), self.name = page, lab, name

    def open(self, reset: bool = True) -> Notebook:
        self.page.goto(f"{self.address}/lab/tree/{self.name}?token={TOKEN}" + ("&reset" if reset else ""))
        self.page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel")
        self.page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.ready.then(() => true)")
        return self

    def command(self, name: str, arguments: str = "{}") -> None:
        self.page.evaluate(f"window.jupyterapp.commands.execute('{name}', {arguments}).then(() => true)")

    def start_all(self) -> None:
        """Run all cells without waiting for them."""
        self.page.evaluate("{ window.jupyterapp.commands.execute('notebook:run-all-cells'); true }")

    def wait_ready(self, timeout: float = 120) -> None:
        failed = "[data-mime-type='application/vnd.jupyter.error']"
        self.page.wait_for_selector(f".baal-widget[data-ready='true'], {failed}", timeout=1000 * timeout)
        for text in self.page.locator(failed).all_text_contents():
            pytest.fail(f"A cell failed:\n{text}")

    def wait_saved(self, timeout: float = 60) -> None:
        self.page.wait_for_selector(".baal-widget[data-pending='0']", timeout=1000 * timeout)

    def focus_tile(self, place: int = 0) -> None:
        self.page.locator(".baal-tile").nth(place).click()

    def look(self, name: str) -> None:
        """Keep a picture of the page in `screenshots/`, to be looked at."""
        (ROOT / "screenshots").mkdir(exist_ok=True)
        self.page.screenshot(path=ROOT / "screenshots" / f"{name}.png")

    def answers(self) -> list[str]:
        return self.page.locator(".baal-answer").all_text_contents()

    def plots(self) -> list[str]:
        """What the figures draw: their data as text, so that a changed figure is a changed text."""
        return self.page.evaluate(
            "[...document.querySelectorAll('.js-plotly-plot')].map(p => JSON.stringify(p.data.map(t => [t.x, t.y])))"
        )


@pytest.fixture
def notebook(page, lab):
    """`notebook(name, *sources)` writes a notebook with these code cells into the server's folder and opens it."""

    def make(name: str, *sources: str) -> Notebook:
        cells = [
            {
                "cell_type": "code",
                "id": f"c{place}",
                "metadata": {},
                "source": source,
                "execution_count": None,
                "outputs": [],
            }
            for place, source in enumerate(sources)
        ]
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        (lab[1] / name).write_text(
            json.dumps({"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})
        )
        return Notebook(page, lab, name).open()

    return make


@pytest.fixture
def shipped_notebook(page, lab):
    """`shipped_notebook(name)` copies a notebook of the repository into the server's folder and opens it."""

    def copy(name: str) -> Notebook:
        shutil.copy(ROOT / "notebooks" / name, lab[1])
        return Notebook(page, lab, name).open()

    return copy


@pytest.fixture
def serve(tmp_path_factory):
    """`serve(command, folder, pattern)` starts a server there and gives the address that it prints."""
    with ExitStack() as running:

        def start(command, folder, pattern):
            home = tmp_path_factory.mktemp("home")
            log = home / "server.log"
            process = running.enter_context(server(command, environment_of(home), log, folder))

            def printed():
                assert process.poll() is None, log.read_text()
                found = pattern.search(log.read_text())
                assert found, log.read_text()
                return found.group()

            return wait_until(printed)

        yield start


@pytest.fixture
def kernel_settings(lab):
    """`kernel_settings({...})` sets JupyterLab's settings of kernels for pages opened later, until the test ends."""
    path = lab[2] / "settings" / "@jupyterlab" / "apputils-extension" / "kernels-settings.jupyterlab-settings"
    yield lambda settings: path.write_text(json.dumps(settings))
    path.unlink(missing_ok=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
