"""Benchmarks of the gateway over real associations."""
