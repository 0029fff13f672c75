import pytest

from tests.running import Service

SCHEMA = {"language": "de", "components": ["bm25"], "columns": {"year": "int64"}, "k1": 0.9}


async def test_a_collection_is_made_once_shown_listed_and_dropped(service: Service):
    made = await service.ask("PUT", "/v1/collections/papers", 201, json=SCHEMA)
    assert made["schema"] | SCHEMA == made["schema"]
    assert (made["documents"], made["generation"], made["segments"]) == (0, 0, [])
    assert await service.ask("PUT", "/v1/collections/papers", 200, json=SCHEMA) == made
    assert await service.ask("GET", "/v1/collections/papers") == made
    await service.ask("PUT", "/v1/collections/another", 201)
    listed = await service.ask("GET", "/v1/collections")
    assert [each["name"] for each in listed["collections"]] == ["another", "papers"]
    await service.ask("DELETE", "/v1/collections/papers", 204)
    await service.ask("DELETE", "/v1/collections/papers", 404)
    await service.ask("GET", "/v1/collections/papers", 404)


async def test_another_schema_is_a_conflict_that_names_what_differs(service: Service):
    await service.make("papers", **SCHEMA)
    problem = await service.ask("PUT", "/v1/collections/papers", 409, json={**SCHEMA, "k1": 1.5, "b": 0.5})
    assert "its k1, b cannot be changed" in problem["detail"]


async def test_counts_are_of_what_can_be_found(service: Service):
    await service.make()
    await service.put([{"id": "a", "text": "moon"}, {"id": "b", "text": "sea"}])
    await service.ask("DELETE", "/v1/collections/c/documents/a", 202)
    waiting = await service.ask("GET", "/v1/collections/c")
    assert (waiting["documents"], waiting["passages"], waiting["queued"]) == (2, 2, 1)
    await service.index()
    shown = await service.ask("GET", "/v1/collections/c")
    assert (shown["documents"], shown["passages"], shown["queued"]) == (1, 1, 0)
    (segment,) = shown["segments"]
    assert segment["rows"] - segment["dead_rows"] == 1
    assert segment["bytes"] > 0


async def test_a_collection_made_again_has_nothing_of_the_old_one(service: Service):
    await service.make()
    await service.put([{"id": "a", "text": "moon"}])
    await service.ask("DELETE", "/v1/collections/c", 204)
    await service.make()
    assert await service.ids("moon") == []
    await service.put([{"id": "b", "text": "moon"}])
    assert await service.ids("moon") == ["b"]


@pytest.mark.parametrize("name", ["B", "-a", "_a", "a b", "a.b", "é", "a" * 65, "a%0A"])
async def test_a_name_that_is_not_allowed_is_refused(service: Service, name: str):
    problem = await service.ask("PUT", f"/v1/collections/{name}", 422)
    assert problem["errors"][0]["field"] == "name"


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ({"language": "xx"}, "language"),
        ({"components": []}, "components"),
        ({"components": ["magic"]}, "components.0"),
        ({"passage_tokens": "240"}, "passage_tokens"),
        ({"passage_tokens": 1}, "passage_tokens"),
        ({"columns": {"a": "text"}}, "columns.a"),
        ({"b": 2}, "b"),
        ({"shards": 2}, "shards"),
    ],
)
async def test_a_schema_that_makes_no_sense_is_refused_with_the_place(
    service: Service, schema: dict[str, object], field: str
):
    problem = await service.ask("PUT", "/v1/collections/c", 422, json=schema)
    assert problem["errors"][0]["field"] == field


async def test_only_encoders_of_the_settings_may_be_named(service: Service):
    problem = await service.ask("PUT", "/v1/collections/c", 422, json={"encoder": "/etc"})
    assert "WINNOW_ENCODERS" in problem["detail"]
    await service.ask("PUT", "/v1/collections/c", 201, json={"encoder": service.state.settings.encoder})
