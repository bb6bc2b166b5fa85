"""Benchmarks of the replay engine against C and against the plain way, in one process and with thread CPU time."""
