"""Results that were made anywhere, as a table: read and checked for `comparison.compare`."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd

from cawalib.results.measures import ComparisonError, metric_named, suggestion
from cawalib.runs import SHARED_FIELDS


def is_table(results) -> bool:
    """Whether results are a table, or the name of one, and not runs."""
    return isinstance(results, (str, os.PathLike, pd.DataFrame))


def read_results(table, split: str = "test", metrics=None) -> tuple[pd.DataFrame, dict[str, list]]:
    """A table of results, a row for each method and seed.

    Args:
        table: DataFrame, or the name of a CSV file with commas and decimal points. Its columns, upper or lower case:
            `method`, what is compared (or `label`, which goes first, as in a study's runs.csv); `seed`, by which rows
            are paired: seeds, folds, whatever methods share; and one for each metric, in any unit. Those named as a
            setting of `runs.config.SHARED_FIELDS`, such as epochs or dataset, are no metrics, but what was the same.
        split: where there is a column `split`, rows with this in it are read.
        metrics: columns to read; None: all others with numbers in them. Columns of text are left out, so is an index.

    Returns:
        The table, with columns label (str), seed (str), and each metric (float, finite), in its own order; and the
        settings, name -> a value for each row.

    Raises:
        ComparisonError: a file that cannot be read, a column that is missing or there twice, no rows, a row without a
            method or seed, a metric that is not there, a cell of a metric that is not a number.
    """
    frame, where = _read(table)
    named = {column.lower(): column for column in frame.columns}
    label = named.get("label") or _column(named, "method", "says what is compared", where)
    seed = _column(named, "seed", "says which rows are a pair, such as a fold", where)
    frame = _of_split(frame, named.get("split"), split, where)
    heads = {name: frame[column].map(_text) for name, column in (("label", label), ("seed", seed))}
    for name, column in (("label", label), ("seed", seed)):
        for at in frame.index[heads[name] == ""][:1]:
            raise ComparisonError(f"{where}: row {at + 1} has nothing in column {column!r}")
    settings = {name: [_value(cell) for cell in frame[named[name]]] for name in SHARED_FIELDS if name in named}
    no_metrics = {label, seed, *(named.get(name) for name in ("method", "split", *settings))}
    others = [column for column in frame.columns if column not in no_metrics]
    numbers = {column: frame[column].map(_number) for column in others}
    if metrics is None:
        chosen = [column for column in others if numbers[column].notna().any()]
    else:
        chosen = [metric_named(metric, others) for metric in names(metrics)]
    if not chosen:
        raise ComparisonError(f"{where}: no column of numbers besides {seed!r}; found {_listed(frame.columns)}")
    for column in chosen:
        for at in frame.index[numbers[column].isna()][:1]:
            raise ComparisonError(f"{where}: metric {column!r} of {heads['label'][at]!r}, seed {heads['seed'][at]}: "
                                  f"found {_text(frame[column][at]) or 'nothing'}, expected a number; leave the row "
                                  "out, or choose by 'metrics' what to compare")
    return pd.DataFrame(heads | {column: numbers[column] for column in chosen}), settings


def names(given) -> list[str]:
    """Names, of which there may be one alone."""
    return [given] if isinstance(given, str) else list(given)


def _read(table):
    """The table with text for its columns' names, and what to call it in a message."""
    where = "table"
    if not isinstance(table, pd.DataFrame):
        where = str(table)
        try:
            # as text: an empty cell, or a method that is called None, is told from a number here, not there
            table = pd.read_csv(Path(table), dtype=str, keep_default_na=False, skipinitialspace=True,
                                encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise ComparisonError(f"{where}: cannot be read as CSV ({str(error).strip().splitlines()[0]})") from None
        if not isinstance(table.index, pd.RangeIndex):
            raise ComparisonError(f"{where}: rows have more cells than its first line has names")
    elif set(table.index.names) - {None}:
        table = table.reset_index()
    table = table.rename(columns=lambda name: str(name).strip()).reset_index(drop=True)
    table = table[[column for column in table.columns if column and not column.startswith("Unnamed: ")]]
    double = table.columns[table.columns.duplicated()]
    if len(double):
        raise ComparisonError(f"{where}: column {double[0]!r} is there more than once")
    return table, where


def _of_split(frame, column, split, where):
    """The rows of a split, which are all where there is no such column."""
    if column is None and split != "test":
        raise ComparisonError(f"{where}: no column 'split' to look for {split!r} in; leave 'split' out")
    if frame.empty:
        raise ComparisonError(f"{where}: no rows, expected one for each method and seed")
    if column is None:
        return frame
    there = frame[column].map(_text)
    if split not in set(there):
        raise ComparisonError(f"{where}: split {split!r}: no row has it in column {column!r}; there are "
                              f"{_listed(dict.fromkeys(there))}")
    return frame[there == split]


def _column(named, wanted, meaning, where):
    if wanted not in named:
        hint = suggestion(wanted, named.values())
        commas = "; expected commas between columns" if len(named) == 1 else ""
        raise ComparisonError(f"{where}: no column {wanted!r}; {hint}found {_listed(named.values())}{commas}; rename "
                              f"the one that {meaning}")
    return named[wanted]


def _listed(columns):
    columns = list(columns)
    return ", ".join(columns[:20]) + (f" and {len(columns) - 20} more" if len(columns) > 20 else "") or "none"


def _text(cell):
    """A cell as text; "" where there is nothing. Whole numbers have no decimals, so that seeds match."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return "" if cell is None or cell is pd.NA or cell != cell else str(cell).strip()


def _number(cell):
    """A cell as a finite number; NaN where it is none."""
    try:
        number = math.nan if isinstance(cell, (bool, np.bool_)) else float(cell)
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _value(cell):
    """A cell as a setting: a number, or text."""
    number = _number(cell)
    return _text(cell) if math.isnan(number) else int(number) if number.is_integer() else number
