"""Trials as a Parquet file, by pyarrow: the extra ``parquet``."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING

from tdxreclaim.errors import OutputError, UsageError
from tdxreclaim.report.sweep.rows import COLUMNS, SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def need_pyarrow() -> None:
    """See that the extra is there.

    Raises:
        UsageError: it is not.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        why = f'parquet needs pyarrow ({error}): pip install "tdxreclaim[parquet]"'
        raise UsageError("--format", why) from error


def write(chunks: Iterable[str], file: IO[bytes], provenance: Mapping[str, str]) -> None:
    """Write chunks of columns, as `rows.render_columns` makes them, to *file*.

    Raises:
        OutputError: a number has more than 64 bits.
    """
    import pyarrow as pa
    from pyarrow import parquet

    types = {str: pa.string(), int: pa.int64(), bool: pa.bool_()}
    schema = pa.schema(
        [(name, types[kind]) for name, kind in COLUMNS],
        metadata={"schema": SCHEMA, **provenance},
    )
    with parquet.ParquetWriter(file, schema) as writer:
        for chunk in chunks:
            try:
                columns = [
                    pa.array(values, types[kind])
                    for values, (_, kind) in zip(json.loads(chunk), COLUMNS, strict=True)
                ]
            except OverflowError as error:
                raise OutputError("parquet", f"{error}: --format csv has it") from error
            writer.write_batch(pa.record_batch(columns, schema=schema))
