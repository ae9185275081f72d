"""Read and write the tables of a study folder: parquet files and pandas data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from asd_ray.errors import AsdRayError
from asd_ray.files import write_atomically


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Writes a parquet file, whole or not at all. Columns that mix kinds of values (``choice``) become text."""
    frame = frame.copy(deep=False)
    for column in frame:
        if _is_mixed(frame[column]):
            frame[column] = frame[column].map(lambda value: None if pd.isna(value) else str(value))
    write_atomically(path, lambda beside: frame.to_parquet(beside, index=False))


def read_table(path: Path, columns: Sequence[str] = (), *, missing_ok: bool = False) -> pd.DataFrame:
    """Reads a parquet file that has at least the given columns.

    Args:
        path: the file.
        columns: that it must have, unless it has no rows.
        missing_ok: give an empty table where there is no file.

    Raises:
        AsdRayError: the file is missing or unreadable, or a column is missing.
    """
    if missing_ok and not path.exists():
        return pd.DataFrame(columns=list(columns))
    frame = _read_arrow(path).to_pandas(use_threads=False)
    missing = [column for column in columns if column not in frame]
    if missing and len(frame):
        raise AsdRayError(f"{path}: expected the columns {', '.join(columns)}; missing: {', '.join(missing)}.")
    return frame.reindex(columns=[*frame.columns, *missing])


def read_tables(paths: Mapping[int, Path], name: str) -> pd.DataFrame:
    """Parquet files below each other, with a column ``name`` of their keys; those that are not there are left out.

    Raises:
        AsdRayError: a file is unreadable.
    """
    found = [(key, _read_arrow(path)) for key, path in paths.items() if path.exists()]
    parts = [table.append_column(name, pa.array([key] * len(table), pa.int64())) for key, table in found if len(table)]
    if not parts:
        return pd.DataFrame()
    return pa.concat_tables(parts, promote_options="permissive").to_pandas(use_threads=False)


def _read_arrow(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:  # a third of the time of pandas' reader, which a study of many trials feels
            return file.read(use_threads=False)
    except FileNotFoundError:
        raise AsdRayError(f"{path}: there is no such file; is {path.parent} the folder of a study that ran?") from None
    except (OSError, pa.ArrowException) as error:
        raise AsdRayError(f"{path}: not a readable parquet file ({' '.join(str(error).split())[:200]}).") from None


def _is_mixed(values: pd.Series) -> bool:
    kinds = {float if type(value) is int else type(value) for value in values.dropna()}
    return values.dtype == object and len(kinds) > 1
