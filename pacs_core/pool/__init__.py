"""Running: processes and threads; knows nothing of DICOM."""
