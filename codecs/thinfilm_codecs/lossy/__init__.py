"""Lossy codecs: one module or package a codec."""
