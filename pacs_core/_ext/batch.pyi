"""Native: no Python names (see `_ext/batch.pxd`)."""
