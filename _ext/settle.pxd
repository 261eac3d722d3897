"""The end of a batch: what it touched is written back. Gives 0 or an LMDB or errno code."""

from pacs_core._ext.batch cimport Work

cdef int write_back(Work* work) noexcept nogil
