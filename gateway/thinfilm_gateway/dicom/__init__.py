"""DICOM data sets as bytes: the ground floor, which knows nothing of the archive, the index or the network."""
