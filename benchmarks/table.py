"""The figures of the benchmarks as lines and tables to read."""

from __future__ import annotations

HEAD = "| work | ours | against | theirs | result | promised | kept |\n|---|---|---|---|---|---|---|\n"
INTRODUCTION = """# Benchmarks

Made by `python benchmarks/run.py --out docs/benchmarks.json`; the JSON beside this page holds the figures of every
repetition. Ways of doing the same work take turns within each repetition. Told are medians, with the lowest and the
highest; ratios are of CPU seconds where there is one thread, of seconds elsewhere. How a cost grows is told by the
exponent fitted to it; a share is of the peak measured in the same process.
"""


def plain(result):
    """One result as lines for the terminal."""
    lines = [f"{result['key']}: {result['work']}"]
    for name, columns in result["figures"].items():
        values = columns[result["clock"]]
        lines.append(f"  {name:34} {spread(values, result['unit'])}")
    for bar in result["bars"]:
        lines.append(f"  {'kept  ' if bar['kept'] else 'MISSED'} {bar['against']}: {outcome(bar)} ({promise(bar)})")
    if result.get("note"):
        lines.append(f"  {result['note']}")
    return "\n".join(lines)


def markdown(results):
    """A page with a table for each machine."""
    page = INTRODUCTION
    machines = {}
    for result in results:
        on = result["machine"]
        title = (
            f"{on['device']}" if on["device"] != "cpu" else f"CPU, {on['threads']} thread{'s' * (on['threads'] > 1)}"
        )
        machines.setdefault(title, []).append(result)
    for title, some in machines.items():
        on = some[0]["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in on["versions"].items() if version)
        made = sorted({(one["machine"]["date"], one["machine"]["commit"]) for one in some})
        when = ", ".join(f"{date} at commit {commit}" for date, commit in made)
        page += f"\n## {title}\n\n{on['cpu']}, {on['cores']} cores; {when}. {versions}.\n\n"
        page += HEAD + "".join(row for result in some for row in rows(result))
    return page


def rows(result):
    """A row for each bar, and one for the note, if any."""
    figures, clock, unit = result["figures"], result["clock"], result["unit"]
    for place, bar in enumerate(result["bars"]):
        first, last = (
            (bar["against"], bar["against"])
            if "exponent" not in bar
            else (min(figures, key=int), max(figures, key=int))
        )
        ours = spread(figures["baal_widgets" if "exponent" not in bar else first][clock], unit)
        theirs = spread(figures[last][clock], unit) if last in figures else ""
        against = bar["against"] if "exponent" not in bar else f"{first} to {last}"
        work = result["work"] if place == 0 else ""
        kept = "yes" if bar["kept"] else "**no**"
        yield f"| {work} | {ours} | {against} | {theirs} | {outcome(bar)} | {promise(bar)} | {kept} |\n"
    if result.get("note"):
        yield f"| *{result['note']}* {'| ' * 6}|\n"


def outcome(bar):
    """What came out, in words."""
    for name, tell in (
        ("ratio", "{:.3g}x"),
        ("exponent", "grows like size^{:.2f}"),
        ("share", "{:.1%} of the peak"),
    ):
        if name in bar:
            return tell.format(bar[name])
    name = next(name for name in bar if name not in ("against", "theirs", "kept"))
    return f"{name} {bar[name]:.4g}, theirs {bar['theirs']:.4g}"


def promise(bar):
    """What was to come out."""
    unit = {"ratio": "x", "exponent": "", "share": ""}.get(
        next((n for n in ("ratio", "exponent", "share") if n in bar), ""), ""
    )
    if bar.get("at_least") is not None:
        return f"at least {bar['at_least']:g}{unit}"
    if bar.get("at_most") is not None:
        return f"at most {bar['at_most']:g}{unit}"
    return "no worse" if "theirs" in bar else "none"


def spread(values, unit):
    """The median with the lowest and highest."""
    middle = (
        sorted(values)[len(values) // 2] if len(values) % 2 else sum(sorted(values)[len(values) // 2 - 1 :][:2]) / 2
    )
    return f"{number(middle, unit)} ({number(min(values), unit)} to {number(max(values), unit)})"


def number(value, unit):
    if unit == "bytes":
        return f"{value / 2**20:.1f} MiB"
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
    return f"{value:.3g} {unit}"
