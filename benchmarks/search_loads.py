"""Searches of a BEIR folder by its own queries with the default pipeline, and the index that answers them."""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from benchmarks.endpoint_loads import Load, queries
from indexer.collection import CollectionSchema, collection_path, create_collection
from indexer.document import Document
from indexer.kernels import warm
from indexer.queue.contract import upsert
from indexer.queue.logs import Logs
from indexer.sources import read_documents
from indexer.worker import drain
from models.roles import Load as Loader
from models.roles import loader
from service.commands.encoding_cache import cache_home

COLLECTION = "bench"
PATH = f"/v1/collections/{COLLECTION}/search"
CLIENTS = (1, 8, 32)


def searches(data: Path) -> list[Load]:
    """Single queries by so many clients."""
    bodies = [json.dumps({"query": query}) for query in queries(data)]
    return [Load(f"searches, {n} client{'s' * (n > 1)}", bodies, 1, n, PATH) for n in CLIENTS]


def index(data: Path, root: Path, most: int) -> int:
    """Index at most so many documents of a folder below `root`; return how many there were."""
    documents = list(islice(read_documents(data), most))
    index_documents(root, documents, loader(cache_home() / "models"))
    return len(documents)


def index_documents(root: Path, documents: Sequence[Document], load: Loader) -> None:
    """Make the collection of these documents."""
    warm()
    create_collection(root, COLLECTION, CollectionSchema())
    log = Logs().open(collection_path(root, COLLECTION))
    log.append([upsert(document) for document in documents])
    log.close()
    drain(root, COLLECTION, load)
