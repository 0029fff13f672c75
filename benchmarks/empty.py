"""The least FastAPI can do with a request and an answer of given sizes: what our overhead is held against."""

from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

app = FastAPI()


@app.post("/empty")
async def empty(body: dict[str, Any], size: int) -> Response:
    """Parse the body, answer with `size` bytes."""
    return Response(b" " * size, media_type="application/json")
