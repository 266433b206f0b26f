"""Repeatable measurements: ours beside what else there is, from one run on one machine. `make bench`, or `python -m bench.run`."""
