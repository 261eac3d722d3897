"""The words of names, as fuzzy matching compares them: `dicom.query` says what they are."""

from pacs_core._ext.keys cimport Out, Text


cdef int prepare() except -1
cdef bint fold_words(Text group, bint spelled, bint pattern, Out* out) noexcept nogil
