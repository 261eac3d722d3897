"""Made-up but valid DICOM instances in any number, the same ones for the same seed; see tools/make_corpus."""
