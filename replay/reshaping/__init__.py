"""Traces made of traces: cut, thinned, joined, slowed, and put into memory of another size; always streaming."""
