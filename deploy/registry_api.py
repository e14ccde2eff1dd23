"""What the schema registry answers to each request of the Confluent REST interface.

No sockets here: `answer` takes method, path, query and body, and returns what to send as JSON.
Left out, and refused in words: schema types other than Avro, references, contexts, modes other than
READWRITE.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from deploy.registry_rules import (
    LEVELS,
    MODE,
    Fault,
    RegistryError,
    canonical,
    incompatibilities,
)
from deploy.registry_store import GLOBAL, Registered, SchemaStore

LAST_VERSION = 2**31 - 1

Json = Any


@dataclass(frozen=True, slots=True)
class Request:
    """One request, parsed.

    Attributes:
        parts: What the path's placeholders stand for.
        query: Query parameters.
        body: The JSON body; empty if there was none.
    """

    parts: tuple[str, ...]
    query: Mapping[str, str]
    body: Mapping[str, Json]

    def flag(self, name: str) -> bool:
        """Whether a query parameter is `true`."""
        return self.query.get(name, "").lower() == "true"

    def schema(self) -> str:
        """The schema in the body.

        Raises:
            RegistryError: INVALID_SCHEMA if there is none, or not an Avro one by itself.
        """
        kind = self.body.get("schemaType") or "AVRO"
        text = self.body.get("schema")
        if kind != "AVRO":
            raise RegistryError(Fault.INVALID_SCHEMA, f"type {kind} is not kept here, only AVRO")
        if self.body.get("references"):
            raise RegistryError(Fault.INVALID_SCHEMA, "references are not kept here")
        if not isinstance(text, str):
            raise RegistryError(Fault.INVALID_SCHEMA, "the field 'schema' must be a string")
        return text


class RegistryApi:
    """Answers requests from a store."""

    def __init__(self, store: SchemaStore) -> None:
        self._store = store

    def answer(self, method: str, target: str, body: bytes) -> Json:
        """Answer one request.

        Args:
            method: HTTP method.
            target: Path and query as in the request line.
            body: The whole body.

        Returns:
            What to send as JSON, with HTTP status 200.

        Raises:
            RegistryError: What the interface refuses, with its code.
        """
        url = urlsplit(target)
        handler, parts = _route(method, url.path)
        request = Request(parts, dict(parse_qsl(url.query)), _parse_body(body))
        with self._store.transaction():
            return handler(self, request)

    # Subjects and versions

    def root(self, _: Request) -> Json:
        """GET /: an empty object, for clients that ask whether anyone is there."""
        return {}

    def subjects(self, request: Request) -> Json:
        """GET /subjects?subjectPrefix&deleted."""
        prefix = request.query.get("subjectPrefix", "")
        names = self._store.subjects(deleted=request.flag("deleted"))
        return [name for name in names if name.startswith(prefix)]

    def versions(self, request: Request) -> Json:
        """GET /subjects/{subject}/versions?deleted."""
        found = self._store.versions(request.parts[0], deleted=request.flag("deleted"))
        return [registered.version for registered in found]

    def version(self, request: Request) -> Json:
        """GET /subjects/{subject}/versions/{version}?deleted."""
        return _whole(self._one(request))

    def version_schema(self, request: Request) -> Json:
        """GET /subjects/{subject}/versions/{version}/schema: the schema alone."""
        return json.loads(self._one(request).text)

    def register(self, request: Request) -> Json:
        """POST /subjects/{subject}/versions: the id; a schema already there keeps its own."""
        subject, text = request.parts[0], request.schema()
        known = self._find(subject, text)
        if known is None:
            earlier = [registered.text for registered in self._store.history(subject)]
            faults = incompatibilities(text, earlier, self._store.level(subject))
            if faults:
                raise RegistryError(Fault.INCOMPATIBLE, "; ".join(faults))
            known = self._store.add(subject, canonical(text), text)
        return {"id": known.schema_id}

    def lookup(self, request: Request) -> Json:
        """POST /subjects/{subject}?deleted: under which version a schema stands."""
        subject = request.parts[0]
        deleted = request.flag("deleted")
        self._store.versions(subject, deleted=deleted)
        known = self._find(subject, request.schema(), deleted=deleted)
        if known is None:
            raise RegistryError(Fault.SCHEMA_NOT_FOUND)
        return _whole(known)

    def delete_subject(self, request: Request) -> Json:
        """DELETE /subjects/{subject}?permanent: the versions deleted."""
        subject = request.parts[0]
        if not request.flag("permanent"):
            found = self._store.versions(subject)
            for registered in found:
                self._store.hide(registered)
        else:
            found = self._store.versions(subject, deleted=True)
            if not all(registered.deleted for registered in found):
                raise RegistryError(Fault.SUBJECT_NOT_SOFT_DELETED, subject)
            for registered in found:
                self._store.remove(registered)
            self._store.set_level(subject, None)
        return [registered.version for registered in found]

    def delete_version(self, request: Request) -> Json:
        """DELETE /subjects/{subject}/versions/{version}?permanent: its number."""
        permanent = request.flag("permanent")
        found = self._one(request, deleted=permanent)
        if not permanent:
            self._store.hide(found)
        elif found.deleted:
            self._store.remove(found)
        else:
            raise RegistryError(Fault.VERSION_NOT_SOFT_DELETED, found.version)
        return found.version

    def _find(self, subject: str, text: str, *, deleted: bool = False) -> Registered | None:
        schema_id = self._store.id_of(canonical(text))
        matching = (
            registered
            for registered in reversed(self._store.history(subject, deleted=deleted))
            if registered.schema_id == schema_id
        )
        return next(matching, None)

    def _one(self, request: Request, *, deleted: bool = False) -> Registered:
        subject, wanted = request.parts
        number = parse_version(wanted)
        found = self._store.versions(subject, deleted=deleted or request.flag("deleted"))
        if number is None:
            return found[-1]
        for registered in found:
            if registered.version == number:
                return registered
        raise RegistryError(Fault.VERSION_NOT_FOUND, number)

    # Schemas by id

    def schema(self, request: Request) -> Json:
        """GET /schemas/ids/{id}."""
        return {"schema": self._store.text(int(request.parts[0]))}

    def schema_alone(self, request: Request) -> Json:
        """GET /schemas/ids/{id}/schema: the schema alone."""
        return json.loads(self._store.text(int(request.parts[0])))

    def schema_versions(self, request: Request) -> Json:
        """GET /schemas/ids/{id}/versions: where a schema stands."""
        uses = self._uses(request)
        return [{"subject": use.subject, "version": use.version} for use in uses]

    def schema_subjects(self, request: Request) -> Json:
        """GET /schemas/ids/{id}/subjects."""
        return list(dict.fromkeys(use.subject for use in self._uses(request)))

    def types(self, _: Request) -> Json:
        """GET /schemas/types."""
        return ["AVRO"]

    def _uses(self, request: Request) -> list[Registered]:
        schema_id = int(request.parts[0])
        self._store.text(schema_id)
        return self._store.uses(schema_id)

    # Compatibility

    def check_one(self, request: Request) -> Json:
        """POST /compatibility/subjects/{subject}/versions/{version}?verbose."""
        earlier = [self._one(request).text]
        return self._verdict(request, earlier)

    def check_all(self, request: Request) -> Json:
        """POST /compatibility/subjects/{subject}/versions?verbose: by the level that holds."""
        earlier = [registered.text for registered in self._store.history(request.parts[0])]
        return self._verdict(request, earlier)

    def _verdict(self, request: Request, earlier: list[str]) -> Json:
        level = self._store.level(request.parts[0])
        faults = incompatibilities(request.schema(), earlier, level)
        verdict: dict[str, Json] = {"is_compatible": not faults}
        return verdict | ({"messages": faults} if request.flag("verbose") else {})

    def level(self, request: Request) -> Json:
        """GET /config[/{subject}]?defaultToGlobal."""
        if not request.parts:
            return {"compatibilityLevel": self._store.level(GLOBAL)}
        subject = request.parts[0]
        own = self._store.own_level(subject)
        if own is None and not request.flag("defaultToGlobal"):
            raise RegistryError(Fault.CONFIG_NOT_FOUND, subject)
        return {"compatibilityLevel": own or self._store.level(GLOBAL)}

    def set_level(self, request: Request) -> Json:
        """PUT /config[/{subject}]."""
        level = request.body.get("compatibility")
        if level not in LEVELS:
            raise RegistryError(Fault.INVALID_LEVEL, level)
        self._store.set_level(request.parts[0] if request.parts else GLOBAL, level)
        return {"compatibility": level}

    def drop_level(self, request: Request) -> Json:
        """DELETE /config[/{subject}]: what was set."""
        subject = request.parts[0] if request.parts else GLOBAL
        dropped = self._store.own_level(subject)
        if dropped is None and request.parts:
            raise RegistryError(Fault.CONFIG_NOT_FOUND, subject)
        self._store.set_level(subject, None)
        return {"compatibilityLevel": dropped or self._store.level(GLOBAL)}

    def mode(self, _: Request) -> Json:
        """GET /mode[/{subject}]."""
        return {"mode": MODE}

    def set_mode(self, request: Request) -> Json:
        """PUT /mode[/{subject}]."""
        if request.body.get("mode") != MODE:
            raise RegistryError(Fault.INVALID_MODE, request.body.get("mode"))
        return {"mode": MODE}


Handler = Callable[[RegistryApi, Request], Json]

_ROUTES: tuple[tuple[str, dict[str, Handler]], ...] = (
    (r"/", {"GET": RegistryApi.root}),
    (r"/subjects", {"GET": RegistryApi.subjects}),
    (r"/subjects/([^/]+)", {"POST": RegistryApi.lookup, "DELETE": RegistryApi.delete_subject}),
    (
        r"/subjects/([^/]+)/versions",
        {"GET": RegistryApi.versions, "POST": RegistryApi.register},
    ),
    (
        r"/subjects/([^/]+)/versions/([^/]+)",
        {"GET": RegistryApi.version, "DELETE": RegistryApi.delete_version},
    ),
    (r"/subjects/([^/]+)/versions/([^/]+)/schema", {"GET": RegistryApi.version_schema}),
    (r"/schemas/types", {"GET": RegistryApi.types}),
    (r"/schemas/ids/([0-9]{1,10})", {"GET": RegistryApi.schema}),
    (r"/schemas/ids/([0-9]{1,10})/schema", {"GET": RegistryApi.schema_alone}),
    (r"/schemas/ids/([0-9]{1,10})/versions", {"GET": RegistryApi.schema_versions}),
    (r"/schemas/ids/([0-9]{1,10})/subjects", {"GET": RegistryApi.schema_subjects}),
    (r"/compatibility/subjects/([^/]+)/versions", {"POST": RegistryApi.check_all}),
    (r"/compatibility/subjects/([^/]+)/versions/([^/]+)", {"POST": RegistryApi.check_one}),
    (
        r"/config(?:/([^/]+))?",
        {
            "GET": RegistryApi.level,
            "PUT": RegistryApi.set_level,
            "DELETE": RegistryApi.drop_level,
        },
    ),
    (r"/mode(?:/([^/]+))?", {"GET": RegistryApi.mode, "PUT": RegistryApi.set_mode}),
)


def _route(method: str, path: str) -> tuple[Handler, tuple[str, ...]]:
    trimmed = path.rstrip("/") or "/"
    for pattern, handlers in _ROUTES:
        match = re.fullmatch(pattern, trimmed)
        if match is None:
            continue
        if method not in handlers:
            raise RegistryError(Fault.METHOD_NOT_ALLOWED, method)
        parts = (unquote(part) for part in match.groups() if part is not None)
        return handlers[method], tuple(parts)
    raise RegistryError(Fault.PATH_NOT_FOUND, path)


def parse_version(text: str) -> int | None:
    """Read a version number; None means the newest (`latest` or -1).

    Raises:
        RegistryError: INVALID_VERSION.
    """
    if text in ("latest", "-1"):
        return None
    if re.fullmatch("[0-9]{1,10}", text) and 1 <= int(text) <= LAST_VERSION:
        return int(text)
    raise RegistryError(Fault.INVALID_VERSION, text)


def _parse_body(body: bytes) -> Mapping[str, Json]:
    if not body:
        return {}
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RegistryError(Fault.MALFORMED, error) from error
    if not isinstance(parsed, dict):
        raise RegistryError(Fault.MALFORMED, "a JSON object was expected")
    return parsed


def _whole(registered: Registered) -> Json:
    return {
        "subject": registered.subject,
        "version": registered.version,
        "id": registered.schema_id,
        "schema": registered.text,
    }
