"""Labels as a table with a row an item: CSV, JSON Lines and Parquet. Each gives back exactly what was written."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from baal_widgets.exchange.places import json_text, parsed
from baal_widgets.exchange.rows import COLUMNS, Label, Labelled, Whole, record, row_of, short

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for the beginning of a formula, or what hides one."""
TEXTS = ("key", "label", "annotator")
LATER = {"sha256"}  # the columns that our first tables did not have
LONGEST_CELL = 16 * 2**20
LONGEST_LINE = 64 * 2**20
_reading = threading.Lock()


def write_csv(rows: Sequence[Labelled], path: Path, _whole: Whole, *, spreadsheet_safe: bool = False) -> None:
    """A table in UTF-8. Several classes are written as a JSON list.

    `several` is a further column where a class name begins with `[` itself, and says which labels are lists. With
    `spreadsheet_safe` a text that a spreadsheet would compute gets an apostrophe before it, the column `escaped` names
    the cells that got one, and a mark at the beginning tells Excel that this is UTF-8.
    """
    unclear = any(isinstance(row.label, str) and row.label.startswith("[") for row in rows)
    columns = [*COLUMNS, *["several"] * unclear, *["escaped"] * spreadsheet_safe]
    with path.open("x", encoding="utf-8-sig" if spreadsheet_safe else "utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, quoting=csv.QUOTE_ALL if spreadsheet_safe else csv.QUOTE_MINIMAL)
        writer.writeheader()
        for row in rows:
            told = record(row)
            several = isinstance(row.label, tuple)
            if several:
                told["label"] = json_text(told["label"])
            if unclear:
                told["several"] = int(several)
            if spreadsheet_safe:
                risky = [name for name in TEXTS if str(told[name] or "").startswith(FORMULA)]
                told |= {name: f"'{told[name]}" for name in risky}
                told["escaped"] = " ".join(risky)
            writer.writerow(told)


def read_csv(path: Path) -> list[Labelled]:
    """The rows of a table with a column `label` and one of `item` and `key`; other columns are left alone.

    Commas, semicolons or tabs stand between the cells. An empty label means that there is none yet. Where a table has
    not all the columns that `write_csv` writes, its `several` and `escaped` may be something else: what they say counts
    where it makes sense.
    """
    rows = []
    with path.open(encoding="utf-8-sig", newline="") as file, _long_cells():
        try:
            reader = csv.reader(file, delimiter=_delimiter(file.readline(LONGEST_LINE)), strict=True)
            file.seek(0)
            columns = _columns(next(reader, []), path.name, {"label"})
            line, ours = reader.line_num + 1, {*COLUMNS} - LATER <= {*columns}
            for cells in reader:
                where, line = f"{path.name}, line {line}", reader.line_num + 1
                if not cells:
                    continue
                if len(cells) != len(columns):
                    raise ValueError(f"{where}: expected {len(columns)} cells as in the header, got {len(cells)}.")
                rows.append(_row_of_cells(dict(zip(columns, cells, strict=True)), where, ours))
        except csv.Error as error:
            raise ValueError(f"{path.name}, line {reader.line_num}: expected a table (CSV), but {error}.") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{path.name}: expected text in UTF-8, but {error.reason}. Save it as UTF-8.") from None
    return rows


def write_jsonl(rows: Sequence[Labelled], path: Path, _whole: Whole) -> None:
    """A JSON object a line; several classes are a list."""
    with path.open("x", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json_text(record(row)) + "\n")


def read_jsonl(path: Path) -> list[Labelled]:
    """The rows of a file with a JSON object a line: `label`, and `item` or `key`."""
    return [row_of(told, where) for told, where in lines_of(path)]


def lines_of(path: Path) -> Iterator[tuple[Any, str]]:
    """What each line of a JSON Lines file holds, and what to call it in an error."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE):
            number += 1
            where = f"{path.name}, line {number}"
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                raise ValueError(f"{where}: expected a JSON object, got more than {LONGEST_LINE:,} bytes of line.")
            if line.strip():
                yield parsed(line, where), where


def write_parquet(rows: Sequence[Labelled], path: Path, _whole: Whole) -> None:
    """A table for pandas, Polars, DuckDB and the like. The column `label` holds texts, or lists of them where items
    have several classes; where both occur the lists are in a column `labels`. Needs pyarrow."""
    arrow = pyarrow()
    several = [isinstance(row.label, tuple) for row in rows]
    columns = {
        "item": arrow.array([row.item for row in rows], arrow.int64()),
        "key": arrow.array([row.key for row in rows], arrow.large_string()),
    }
    if not all(several) or not rows:
        texts = [row.label if isinstance(row.label, str) else None for row in rows]
        columns["label"] = arrow.array(texts, arrow.large_string())
    if any(several):
        lists = [list(row.label) if isinstance(row.label, tuple) else None for row in rows]
        name = "labels" if "label" in columns else "label"
        columns[name] = arrow.array(lists, arrow.list_(arrow.large_string()))
    columns["annotator"] = arrow.array([row.annotator for row in rows], arrow.large_string())
    columns["round"] = arrow.array([row.round for row in rows], arrow.int64())
    columns["sha256"] = arrow.array([row.sha256 for row in rows], arrow.large_string())
    from pyarrow import parquet

    with path.open("xb") as file:
        parquet.write_table(arrow.table(columns), file, compression="zstd")


def read_parquet(path: Path) -> list[Labelled]:
    """The rows of a Parquet file with a column `label` and one of `item` and `key`. Needs pyarrow."""
    arrow, rows = pyarrow(), list[Labelled]()
    from pyarrow import parquet

    try:
        with path.open("rb") as opened, parquet.ParquetFile(opened) as file:
            columns = _columns(file.schema_arrow.names, path.name, {"label", "labels"})
            wanted = [name for name in columns if name in (*COLUMNS, "labels")]
            for batch in file.iter_batches(columns=wanted):
                for told in batch.to_pylist():
                    if told.get("labels") is not None:
                        told["label"] = told["labels"]
                    rows.append(row_of(told, f"{path.name}, row {len(rows) + 1}"))
    except (arrow.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path.name}: expected a Parquet file, but {str(error).rstrip('.')}.") from None
    return rows


def pyarrow() -> Any:
    """The pyarrow package; `ModuleNotFoundError` says how to install it."""
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise ModuleNotFoundError("Parquet needs pyarrow: pip install 'baal-widgets[parquet]'.") from None
    return pyarrow


def _row_of_cells(cells: Mapping[str, str], where: str, ours: bool) -> Labelled:
    told: dict[str, Any] = dict(cells)
    escaped, several = told.get("escaped", "").split(), told.get("several")
    if not ours:
        if any(name not in TEXTS or not told.get(name, "").startswith("'") for name in escaped):
            escaped = []
        if several not in ("0", "1") or not told["label"].startswith("["):
            several = None
    for name in escaped:
        if name not in TEXTS or not told.get(name, "").startswith("'"):
            raise ValueError(f"{where}: expected an apostrophe before each cell that `escaped` names, got {name!r}.")
        told[name] = told[name][1:]
    for name in ("item", "round"):
        text = told.get(name, "").strip()
        # spreadsheets and pandas write 5 as 5.0 where a column has gaps
        digits = text.removesuffix(".0")
        if text and not (digits.isascii() and digits.isdigit() and len(digits) < 20):
            raise ValueError(f"{where}: expected {name} to be a whole number from 0 on, got {short(text)}.")
        told[name] = int(digits) if text else None
    told["label"] = _label_in(told["label"], several, where)
    return row_of(told, where)


def _label_in(cell: str, several: str | None, where: str) -> Label:
    if several not in (None, "0", "1"):
        raise ValueError(f"{where}: expected several to be 0 or 1, got {short(several)}.")
    if several == "0" or not cell.startswith("["):
        return cell
    try:
        names = parsed(cell, where)
    except ValueError:
        if several == "1":
            raise
        return cell  # a class whose name happens to begin like a list
    if several is None and not all(isinstance(name, str) for name in names):
        return cell
    return tuple(names)


def _columns(names: Sequence[str], file: str, labels: set[str]) -> list[str]:
    columns = [name.strip() for name in names]
    if not labels & set(columns) or not {"item", "key"} & set(columns):
        raise ValueError(f"{file}, line 1: expected columns label and key (or item), got {short(columns)}.")
    twice = [name for name in dict.fromkeys(columns) if name in COLUMNS and columns.count(name) > 1]
    if twice:
        raise ValueError(f"{file}, line 1: expected each column once, got {', '.join(twice)} again.")
    return columns


def _delimiter(header: str) -> str:
    return next((mark for mark in ",;\t" if mark in header), ",")


@contextmanager
def _long_cells() -> Iterator[None]:
    """Room for long names: the csv module has one limit for all, which is put back."""
    with _reading:
        before = csv.field_size_limit(LONGEST_CELL)
        try:
            yield
        finally:
            csv.field_size_limit(before)
