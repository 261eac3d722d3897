"""What a walk found odd, as Python sees it."""

from pacs_core._ext.walk cimport Walk


cdef tuple findings_of(Walk* w)
