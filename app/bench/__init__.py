"""Benchmarks of the server: `make bench` (docs/benchmarks.md says what each measures and against what)."""
