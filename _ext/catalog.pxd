"""The tables of the index, in the order in which an `Environment` opens them, and the write side.

meta      "counters" → next id, bytes held, commits (u64 each); "mark", writer u32 → file, segment, offset
          (u64 each); "schema", "secret", "codes", "filling" (see `pacs_core.index.schema`)
uid       see `keys.pxd` → id
patient, study, series, instance    id → record, see `rows.pxd`
child     id of the parent → ids
key       see `keys.pxd` → ids
"""


cdef enum:
    TABLE_META = 0
    TABLE_UID = 1
    TABLE_ROWS = 2      # + level
    TABLE_CHILD = 6
    TABLE_KEY = 7
