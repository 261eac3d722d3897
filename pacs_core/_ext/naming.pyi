"""Tags and keywords of elements, for other native modules."""

__pyx_capi__: dict[str, object]
