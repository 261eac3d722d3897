"""What DICOM is: pure values, no I/O."""
