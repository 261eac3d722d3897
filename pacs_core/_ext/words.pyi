"""The words of names, as fuzzy matching compares them. `dicom.query` says what they are."""

__pyx_capi__: dict[str, object]
