"""Native: no Python names (see `_ext/settle.pxd`)."""
