"""`winnow openapi`: the contract of the service as these settings have it, without starting one."""

import json

import typer

from service.commands.common import settings_from


def openapi() -> None:
    """Print the OpenAPI document that a service with these settings gives at /openapi.json."""
    settings = settings_from(host="127.0.0.1")  # it listens nowhere, so it needs no key

    from service.app import create_app

    typer.echo(json.dumps(create_app(settings).openapi(), indent=2, ensure_ascii=False))
