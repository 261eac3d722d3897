"""Dates, times and decimal strings in their standard forms, for other native modules."""

__pyx_capi__: dict[str, object]
