"""The durable log of operations: one contract, one file per implementation."""
