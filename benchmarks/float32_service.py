"""The service as it runs on a CPU that does not compute bfloat16 natively: nets compute in float32.

    python -m benchmarks.float32_service serve --no-worker --data-dir DIR

Only for measuring on a CPU that does, beside a server that was told to compute in float32.
"""

from models import precision
from service.cli import app

if __name__ == "__main__":
    precision.fast_dtype = lambda device: "float32"
    app()
