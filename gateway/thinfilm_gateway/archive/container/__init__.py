"""The container format (.tfa): immutable files that hold whole DICOM objects, compressed and checksummed."""
