"""Run the benchmarks beside the peers: `python benchmarks/run.py [--only SUBSTRING] [--device cpu|cuda] [--quick]`.

Each comparison gets a fresh process with one thread (`--threads`). Prints a table; `--out docs/benchmarks.json` writes
the figures of every repetition and what they were measured on, replacing those of the same comparisons on such a
device, and the table beside it as Markdown. `--table-only` makes the table of the figures that are there.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # this very working tree is measured, whatever is installed

from benchmarks.harness import quiet  # noqa: E402
from benchmarks.table import markdown, plain  # noqa: E402


def declared():
    """All that is declared: `{"topic/name": comparison}`."""
    found = {}
    for path in sorted(HERE.glob("compare_*.py")):
        topic = path.stem.removeprefix("compare_")
        for comparison in importlib.import_module(f"benchmarks.{path.stem}").COMPARISONS:
            key = f"{topic}/{comparison.name}"
            if key in found:
                raise ValueError(f"Expected names that differ within a topic, got {key!r} twice.")
            found[key] = comparison
    return found


def measured(comparison, device, repetitions, quick, only=None):
    """One comparison measured in this process."""
    sizes = comparison.quick if quick else comparison.sizes
    options = {} if only is None else {"only": only}
    with quiet():
        return comparison.measure(device, repetitions or comparison.repetitions, sizes, **options)


def told(key, comparison, figures, device, quick, machine):
    """What goes into the JSON: the figures, what follows from them and what they were measured on."""
    sizes = comparison.quick if quick else comparison.sizes
    work = comparison.work.format(**sizes) if isinstance(sizes, dict) else comparison.work
    clock = next(iter(next(iter(figures["figures"].values()))))
    if clock == "seconds" and device == "cpu" and machine["threads"] == 1:
        clock = "cpu"
    return {
        "key": key,
        "work": work,
        "clock": clock,
        "device": device,
        "quick": quick,
        "note": getattr(comparison, "note", ""),
        **comparison.told(figures, clock),
        **figures,
        "machine": machine,
    }


def in_fresh_process(key, device, repetitions, threads, only=None):
    """The figures of one comparison, of one way with `only`, measured by a new process."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "figures.json"
        command = [sys.executable, __file__, "--one", key, "--device", device, "--threads", str(threads)]
        command += ["--to", str(target), *(["--repetitions", str(repetitions)] if repetitions else [])]
        command += [] if only is None else ["--way", only]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{key} failed:\n{done.stderr[-4000:]}")
        return json.loads(target.read_text())


def peaks(key, comparison, device, repetitions, threads):
    """Peaks of memory, each way and each repetition in a process of its own; the ways alternate."""
    names = list(ways_of(comparison, device))
    joined = {"figures": {name: {"bytes": []} for name in names}, "quality": {}}
    for _ in range(repetitions or min(comparison.repetitions, 3)):
        for name in names:
            told = in_fresh_process(key, device, 1, threads, only=name)
            joined["figures"][name]["bytes"] += told["figures"][name]["bytes"]
            joined["quality"].update(told["quality"])
    return joined


def ways_of(comparison, device):
    with quiet():
        return comparison.ways(device, **comparison.quick)


@functools.cache
def machine(device, threads):
    """What the figures were measured on."""
    model = [line.split(":")[1].strip() for line in lines_of("/proc/cpuinfo") if line.startswith("model name")]
    names = ("baal", "baal-widgets", "batchbald-redux", "numpy", "pillow", "torch", "torchvision")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
    )
    return {
        "kind": platform.machine(),
        "system": platform.system(),
        "cpu": model[0] if model else platform.processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "threads": threads,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "commit": commit.stdout.strip(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def lines_of(path):
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def merged(path, results):
    """The results beside older ones of other comparisons or other devices."""
    held = json.loads(path.read_text())["results"] if path.exists() else []
    new = {(one["key"], one["machine"]["device"]) for one in results}
    kept = [one for one in held if (one["key"], one["machine"]["device"]) not in new]
    return {"results": sorted(kept + results, key=lambda one: (one["machine"]["device"] != "cpu", one["key"]))}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run those whose topic/name holds this")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=0, help="0: what each declares")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, in this process: whether it runs at all")
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON, and the table beside it")
    parser.add_argument("--table-only", action="store_true", help="make the table of --out anew")
    for hidden in ("--one", "--way", "--to"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = declared()
    if options.one:
        figures = measured(found[options.one], options.device, options.repetitions, False, options.way)
        Path(options.to).write_text(json.dumps(figures))
        return
    failed = 0
    for key, comparison in found.items() if not options.table_only else ():
        if options.only not in key:
            continue
        on = machine(options.device, options.threads)
        try:
            if options.quick:
                figures = measured(comparison, options.device, options.repetitions or 1, True)
            elif getattr(comparison, "measures", None) == "bytes":
                figures = peaks(key, comparison, options.device, options.repetitions, options.threads)
            else:
                figures = in_fresh_process(key, options.device, options.repetitions, options.threads)
        except RuntimeError as error:  # the others are measured all the same
            print(error, file=sys.stderr, flush=True)
            failed += 1
            continue
        result = told(key, comparison, figures, options.device, options.quick, on)
        print(plain(result), flush=True)
        if options.out:  # at once, since the whole takes long
            keep(options.out, [result])
    if options.out:
        keep(options.out, [])
    sys.exit(1 if failed else 0)


def keep(path, results):
    """Write the results among those that are there, and the table of all."""
    every = merged(path, results)
    path.write_text(json.dumps(every, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(every["results"]))


if __name__ == "__main__":
    main()
