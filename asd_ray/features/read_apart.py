"""Reading a shard in a Ray task. It stands alone because a process that runs a task imports the module of its function:
with torch, that would take a second of a core."""

from __future__ import annotations

import pyarrow as pa

from asd_ray.data.clips import CLIP_FIELDS
from asd_ray.errors import AsdRayError
from asd_ray.features.storage import Storage
from asd_ray.features.store import Shard, read_joined


def read_apart(
    storage: Storage, shard: Shard, columns: tuple[str, ...]
) -> tuple[pa.Table | None, pa.Table | None, str]:
    """A shard's columns, its clips' identities, and what went wrong (then the tables are None)."""
    try:
        table = read_joined(storage, shard, columns)
    except AsdRayError as error:
        return None, None, str(error)
    return table.select(list(columns)), table.select(list(CLIP_FIELDS)), ""
