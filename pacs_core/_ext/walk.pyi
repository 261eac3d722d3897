# Cimported only: the walk has no Python face.
__pyx_capi__: dict[str, object]
