"""Rate, distortion and speed of lossy codecs on a folder of DICOM, beside the lossy standards, on one core."""
