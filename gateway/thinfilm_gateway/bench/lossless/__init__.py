"""Size and speed of lossless codecs on a folder of DICOM, every codec on the same frames, on one core."""
