"""`winnow search`: one question, asked of a data directory or of a running service."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from service.commands.common import DEFAULT_DATA_DIR, ApiKey, Collection, DataDir, Json, Url

EXCERPT = 300  # characters of a passage


def search(
    query: Annotated[str, typer.Argument(help="The question, in plain words.")],
    collection: Collection,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    url: Url = None,
    api_key: ApiKey = None,
    pipeline: Annotated[
        str | None, typer.Option(help="bm25, dense, sparse, hybrid, fast, balanced, precise or one of yours.")
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Number of hits.")] = 5,
    as_json: Json = False,
) -> None:
    """Ask a collection one question."""
    request: dict[str, Any] = {"query": query, "top_k": top_k}
    if pipeline is not None:
        request["pipeline"] = pipeline
    if url is not None:
        from service.commands.client import Client

        with Client(url, api_key) as client:
            answer = client.search(collection, request)
    else:
        from service.commands.local import search_locally

        answer = search_locally(data_dir, collection, request)
    if as_json:
        typer.echo(json.dumps(answer, ensure_ascii=False))
    else:
        _show(answer)


def _show(answer: dict[str, Any]) -> None:
    console = Console(highlight=False)
    for rank, hit in enumerate(answer["hits"], start=1):
        scores = "  ".join(
            f"{name} {score:.3f}" for name, score in hit["scores"].items() if score is not None
        )
        title = hit.get("title") or hit["id"]
        console.print(Text.assemble((f"{rank}. {title}", "bold"), (f"  {hit['score']:.3f}  {scores}", "dim")))
        console.print(Text(_excerpt(hit["passage"]["text"])), soft_wrap=True)
    if not answer["hits"]:
        console.print("Nothing found.")
    stages = "  ".join(
        f"{stage['stage']} {stage['status']} {stage['ms']:.1f} ms" for stage in answer["stages"]
    )
    console.print(Text(f"generation {answer['generation']}  {answer['took_ms']:.1f} ms  ({stages})", "dim"))


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT else text[:EXCERPT].rsplit(" ", 1)[0] + " …"
