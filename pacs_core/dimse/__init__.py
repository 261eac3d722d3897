"""The DIMSE edge, SCP side: pynetdicom's interfaces over the native wire."""
