"""Names for scalars in compiled functions.

They tell the reader what is passed. numba infers the machine type at each call,
by rules of its own that a checker of Python does not know.
"""

from typing import Any

Int = Any
Real = Any
