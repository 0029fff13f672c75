"""Which errors say that a forward was too large for the memory there is. Imports no torch."""

import sys

CPU_ALLOCATOR = "DefaultCPUAllocator"
"""Who says in torch's RuntimeError that there was no memory on the CPU, which has no class of its own."""


def out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch might have gone well: Python's, numpy's or torch's way to say so."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and CPU_ALLOCATOR in str(error)
