"""The schema registry as Kafka clients see it: Confluent's own client, and bare HTTP."""

import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from deploy.registry import BODY_BYTES_MAX, RegistryServer
from deploy.registry_api import RegistryApi
from deploy.registry_store import SchemaStore
from deploy.stack import Stack
from schemas.records import NAMES, schema_json


def record(*fields: dict[str, Any], name: str = "Reading") -> str:
    return json.dumps({"type": "record", "name": name, "fields": list(fields)})


SPEED = {"name": "speed", "type": "float"}
RPM = {"name": "rpm", "type": ["null", "float"], "default": None}
RPM_REQUIRED = {"name": "rpm", "type": "float"}
FIRST = record(SPEED)
WIDER = record(SPEED, RPM)
BREAKING = record(SPEED, RPM_REQUIRED)


class Registry:
    """A served registry whose store outlives a restart."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._clients = ExitStack()
        self.start()

    def start(self) -> None:
        self._store = SchemaStore(self._file)
        self._server = RegistryServer(0, RegistryApi(self._store))
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._clients.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._store.close()

    def client(self) -> SchemaRegistryClient:
        client = SchemaRegistryClient({"url": f"http://127.0.0.1:{self.port}"})
        self._clients.enter_context(client)
        return client

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body else None
        connection.request(method, path, content)
        response = connection.getresponse()
        answer = response.status, json.loads(response.read())
        connection.close()
        return answer


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    served = Registry(tmp_path / "schemas.sqlite")
    yield served
    served.stop()


def avro(text: str) -> Schema:
    return Schema(text, "AVRO")


class TestConfluentClient:
    def test_every_schema_of_the_contract_is_kept_as_it_stands(self, registry: Registry) -> None:
        client = registry.client()
        ids = {
            name: client.register_schema(f"{name}-value", avro(schema_json(name))) for name in NAMES
        }
        assert len(set(ids.values())) == len(NAMES)
        for name, schema_id in ids.items():
            assert registry.client().get_schema(schema_id).schema_str == schema_json(name)

    def test_the_same_schema_has_one_id_under_every_subject(self, registry: Registry) -> None:
        client = registry.client()
        first = client.register_schema("a-value", avro(FIRST))
        respelt = json.dumps(json.loads(FIRST), indent=4)
        assert registry.client().register_schema("b-value", avro(respelt)) == first
        assert registry.client().register_schema("a-value", avro(respelt)) == first
        assert client.get_versions("a-value") == [1]
        assert sorted(client.get_subjects()) == ["a-value", "b-value"]

    def test_lookup_says_subject_version_and_id(self, registry: Registry) -> None:
        client = registry.client()
        schema_id = client.register_schema("a-value", avro(FIRST))
        found = client.lookup_schema("a-value", avro(FIRST))
        assert (found.subject, found.version, found.schema_id) == ("a-value", 1, schema_id)
        latest = client.get_latest_version("a-value")
        assert (latest.version, latest.schema.schema_str) == (1, FIRST)

    @pytest.mark.parametrize(
        ("subject", "schema", "code"),
        [("nobody-value", FIRST, 40401), ("a-value", WIDER, 40403)],
    )
    def test_lookup_of_what_is_not_there(
        self, registry: Registry, subject: str, schema: str, code: int
    ) -> None:
        client = registry.client()
        client.register_schema("a-value", avro(FIRST))
        with pytest.raises(SchemaRegistryError) as caught:
            client.lookup_schema(subject, avro(schema))
        assert (caught.value.http_status_code, caught.value.error_code) == (404, code)

    def test_an_incompatible_schema_is_refused_and_a_compatible_one_is_not(
        self, registry: Registry
    ) -> None:
        client = registry.client()
        client.register_schema("a-value", avro(FIRST))
        assert client.test_compatibility("a-value", avro(WIDER))
        assert not client.test_compatibility("a-value", avro(BREAKING))
        with pytest.raises(SchemaRegistryError) as caught:
            client.register_schema("a-value", avro(BREAKING))
        assert (caught.value.http_status_code, caught.value.error_code) == (409, 409)
        assert "rpm" in str(caught.value)
        client.register_schema("a-value", avro(WIDER))
        assert client.get_versions("a-value") == [1, 2]

    def test_levels_hold_for_a_subject_or_for_all(self, registry: Registry) -> None:
        client = registry.client()
        assert client.get_compatibility() == "BACKWARD"
        client.set_compatibility("a-value", "NONE")
        assert client.get_compatibility("a-value") == "NONE"
        client.register_schema("a-value", avro(FIRST))
        client.register_schema("a-value", avro(BREAKING))
        client.set_compatibility(level="FULL_TRANSITIVE")
        assert client.get_compatibility() == "FULL_TRANSITIVE"
        with pytest.raises(SchemaRegistryError) as caught:
            client.set_compatibility("a-value", "SIDEWAYS")
        assert caught.value.error_code == 42203
        with pytest.raises(SchemaRegistryError) as caught:
            client.get_compatibility("b-value")
        assert caught.value.error_code == 40408

    def test_a_deleted_subject_is_hidden_its_schema_still_read_its_numbers_not_given_again(
        self, registry: Registry
    ) -> None:
        client = registry.client()
        schema_id = client.register_schema("a-value", avro(FIRST))
        assert client.delete_subject("a-value") == [1]
        assert client.get_subjects() == []
        fresh = registry.client()
        assert fresh.get_schema(schema_id).schema_str == FIRST
        assert fresh.register_schema("a-value", avro(FIRST)) == schema_id
        assert fresh.get_versions("a-value") == [2]

    def test_for_good_means_after_softly(self, registry: Registry) -> None:
        client = registry.client()
        client.register_schema("a-value", avro(FIRST))
        status, answer = registry.ask("DELETE", "/subjects/a-value?permanent=true")
        assert (status, answer["error_code"]) == (404, 40405)
        assert client.delete_subject("a-value") == [1]
        assert client.delete_subject("a-value", permanent=True) == [1]
        assert registry.ask("GET", "/subjects?deleted=true") == (200, [])

    def test_one_version_is_deleted(self, registry: Registry) -> None:
        client = registry.client()
        client.register_schema("a-value", avro(FIRST))
        client.register_schema("a-value", avro(WIDER))
        assert client.delete_version("a-value", 1) == 1
        assert client.get_versions("a-value") == [2]
        assert registry.ask("GET", "/subjects/a-value/versions/1")[1]["error_code"] == 40402
        assert registry.ask("GET", "/subjects/a-value/versions/1?deleted=true")[0] == 200
        assert registry.ask("DELETE", "/subjects/a-value/versions/1?permanent=true") == (200, 1)
        status, answer = registry.ask("DELETE", "/subjects/a-value/versions/2?permanent=true")
        assert (status, answer["error_code"]) == (404, 40407)

    def test_a_restart_forgets_nothing(self, registry: Registry) -> None:
        client = registry.client()
        schema_id = client.register_schema("a-value", avro(FIRST))
        client.set_compatibility("a-value", "FULL")
        registry.stop()
        registry.start()
        again = registry.client()
        assert again.get_schema(schema_id).schema_str == FIRST
        assert again.get_compatibility("a-value") == "FULL"
        assert again.register_schema("b-value", avro(WIDER)) == schema_id + 1

    def test_many_register_at_once_and_get_one_id(self, registry: Registry) -> None:
        barrier = threading.Barrier(8)

        def register(number: int) -> int:
            client = registry.client()
            barrier.wait()
            return client.register_schema(f"{number % 2}-value", avro(FIRST))

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(register, range(8)))) == 1
        assert registry.client().get_versions("0-value") == [1]


class TestHttp:
    @pytest.mark.parametrize(
        ("request_line", "body", "status", "code"),
        [
            ("GET /nowhere", None, 404, 404),
            ("PUT /subjects", None, 405, 405),
            ("GET /subjects/x/versions", None, 404, 40401),
            ("GET /subjects/x/versions/0", None, 422, 42202),
            ("GET /subjects/x/versions/first", None, 422, 42202),
            ("GET /schemas/ids/7", None, 404, 40403),
            ("POST /subjects/x/versions", {"schema": "{"}, 422, 42201),
            ("POST /subjects/x/versions", {"schema": '{"type": "record"}'}, 422, 42201),
            ("POST /subjects/x/versions", {"schema": '{"type": {}}'}, 422, 42201),
            ("POST /subjects/x/versions", {"schema": "[" * 5000}, 422, 42201),
            ("POST /subjects/x/versions", {"schema": 5}, 422, 42201),
            ("POST /subjects/x/versions", {}, 422, 42201),
            ("POST /subjects/x/versions", {"schema": "{}", "schemaType": "JSON"}, 422, 42201),
            ("POST /subjects/x/versions", {"schema": FIRST, "references": [1]}, 422, 42201),
            ("POST /subjects/x/versions", b"not json", 400, 400),
            ("POST /subjects/x/versions", b"[1]", 400, 400),
            ("POST /subjects/x/versions", b"[" * 100_000, 400, 400),
            ("PUT /mode", {"mode": "IMPORT"}, 422, 42204),
            ("DELETE /config/x", None, 404, 40408),
        ],
    )
    def test_what_is_refused(
        self, registry: Registry, request_line: str, body: object, status: int, code: int
    ) -> None:
        method, path = request_line.split()
        found, answer = registry.ask(method, path, body)
        assert (found, answer["error_code"]) == (status, code)
        assert answer["message"]
        assert registry.ask("GET", "/subjects") == (200, [])

    def test_a_body_that_is_too_large_is_refused_unread(self, registry: Registry) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=10)
        connection.putrequest("POST", "/subjects/x/versions")
        connection.putheader("Content-Length", str(BODY_BYTES_MAX + 1))
        connection.endheaders()
        response = connection.getresponse()
        assert (response.status, response.getheader("Connection")) == (413, "close")
        connection.close()

    def test_a_body_without_a_length_is_refused(self, registry: Registry) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=10)
        connection.putrequest("POST", "/subjects/x/versions")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        assert connection.getresponse().status == 411
        connection.close()

    def test_a_connection_is_kept(self, registry: Registry) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=10)
        connection.connect()
        kept = connection.sock
        for _ in range(3):
            connection.request("GET", "/subjects")
            assert connection.getresponse().read() == b"[]"
        assert connection.sock is kept
        connection.close()

    def test_what_else_the_interface_tells(self, registry: Registry) -> None:
        subject = "/subjects/a%2Fb-value"
        _, answer = registry.ask("POST", f"{subject}/versions", {"schema": FIRST})
        schema_id = answer["id"]
        found: dict[str, Any] = {
            path: registry.ask("GET", path)[1]
            for path in (
                "/",
                "/subjects?subjectPrefix=a",
                "/subjects?subjectPrefix=b",
                f"{subject}/versions/latest",
                f"{subject}/versions/-1/schema",
                "/schemas/types",
                f"/schemas/ids/{schema_id}/schema",
                f"/schemas/ids/{schema_id}/versions",
                f"/schemas/ids/{schema_id}/subjects",
                "/mode",
                "/config/none?defaultToGlobal=true",
            )
        }
        assert list(found.values()) == [
            {},
            ["a/b-value"],
            [],
            {"subject": "a/b-value", "version": 1, "id": schema_id, "schema": FIRST},
            json.loads(FIRST),
            ["AVRO"],
            json.loads(FIRST),
            [{"subject": "a/b-value", "version": 1}],
            ["a/b-value"],
            {"mode": "READWRITE"},
            {"compatibilityLevel": "BACKWARD"},
        ]

    def test_a_verdict_gives_its_reasons_when_asked(self, registry: Registry) -> None:
        registry.ask("POST", "/subjects/a/versions", {"schema": FIRST})
        path = "/compatibility/subjects/a/versions"
        assert registry.ask("POST", path, {"schema": BREAKING}) == (200, {"is_compatible": False})
        _, verdict = registry.ask("POST", f"{path}/latest?verbose=true", {"schema": BREAKING})
        assert "rpm" in verdict["messages"][0]


@pytest.mark.integration
def test_the_part_of_the_stack_survives_kill_9(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack")
    try:
        stack.start_part("registry")
        with SchemaRegistryClient({"url": stack.endpoints.registry_url}) as client:
            schema_id = client.register_schema("a-value", avro(FIRST))
        stack.kill_part("registry")
        stack.start_part("registry")
        with SchemaRegistryClient({"url": stack.endpoints.registry_url}) as client:
            assert client.get_schema(schema_id).schema_str == FIRST
    finally:
        stack.stop()
