"""The network in one process on virtual time, on the decisions that real nodes run (see docs/simulation.md)."""
