"""The OpenAPI document: every route, read off the book and the limits.

Here: the document. Not here: the routes' behaviour (`application`). One rule cannot be said in JSON Schema and is said
in words: a body must not name a field twice.
"""

from __future__ import annotations

from typing import Any

from bento.reading import NAMED, limits_of
from loan_assets.books import Column, Kind, LoanBook, Role
from loan_assets.policy import Endpoint
from loan_assets.release import MODEL

Schema = dict[str, Any]
WHOLE_NUMBERS = ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")
DATATYPES = ["FP64", "FP32", "FP16", *WHOLE_NUMBERS]
OUTPUTS = ["default_probability", "decision", "reasons"]


def document(book: LoanBook, limits: Endpoint) -> Schema:
    """The whole document, for one book and its limits."""
    needed = book.with_role(Role.FEATURE)
    known = [column for column in book.received if column.role is not Role.LABEL]
    key = f"{book.key.name}s"
    name = {
        "type": ["string", "null"],
        "pattern": f"^{NAMED.pattern}$",
        "description": "Your own name for this request",
    }
    rows = {"minItems": 1, "maxItems": limits.most_rows}
    row = {
        "type": "array",
        "minItems": len(needed),
        "maxItems": len(needed),
        "prefixItems": [_field(column) for column in needed],
        "items": False,
        "description": f"In this order: {', '.join(column.name for column in needed)}",
    }
    schemas = {
        "Application": _object({column.name: _field(column) for column in known}, [column.name for column in needed]),
        "Applications": _object(
            {"applications": {"type": "array", **rows, "items": _ref("Application")}, "request_id": name},
            ["applications"],
        ),
        "Clients": _object({key: {"type": "array", **rows, "items": _field(book.key)}, "request_id": name}, [key]),
        "Instances": _object(
            {"instances": {"type": "array", **rows, "items": {"anyOf": [_ref("Application"), row]}}}, ["instances"]
        ),
        "Inference": _inference(needed, limits),
        **_answers(book),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "loan-default",
            "version": book.digest,
            "summary": f"Probability of default and decision, trained on {book.title!r}",
            "description": "A body must not name a field twice. "
            "With X-Request-Id or request_id a request is answered and recorded once, however often it is sent.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(key),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Asked for where LOAN_TOKENS is set"}
            },
        },
        "security": [{}, {"token": []}],
    }


def _paths(key: str) -> Schema:
    versions = {
        "name": "version", "in": "path", "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
    }  # fmt: skip
    model = f"/v2/models/{MODEL}"
    versioned = f"{model}/versions/{{version}}"
    return {
        "/predict": _scoring(
            "Score clients by number", "Clients", "Answer", extra={404: f"An entry of {key} is unknown"}
        ),
        "/score": _scoring("Score applications", "Applications", "Answer"),
        f"/v1/models/{MODEL}:predict": _scoring("KServe V1 prediction", "Instances", "V1Answer"),
        f"{model}/infer": _scoring("Open Inference V2", "Inference", "V2Answer", is_binary=True),
        f"{versioned}/infer": _scoring(
            "Open Inference V2, of one version", "Inference", "V2Answer", is_binary=True,
            parameters=[versions], extra={404: "Another version answers"},
        ),
        "/v1/models": _telling("KServe V1 models", "V1Models"),
        f"/v1/models/{MODEL}": _telling("KServe V1 model status", "V1Status"),
        "/v2": _telling("V2 server metadata", "V2Server"),
        model: _telling("V2 model metadata", "V2Model"),
        versioned: _telling("V2 metadata of one version", "V2Model", [versions], {404: "Another version answers"}),
        f"{model}/ready": _telling("V2 model readiness", None),
        f"{versioned}/ready": _telling(
            "V2 readiness of one version", None, [versions], {404: "Another version answers"}
        ),
        "/v2/health/live": _open("V2 liveness"),
        "/v2/health/ready": _open("V2 readiness", may_fail=True),
        "/livez": _open("Liveness"),
        "/healthz": _open("Liveness"),
        "/readyz": _open("Readiness: an answer could be given and recorded now", may_fail=True),
        "/metrics": _telling("Prometheus metrics", "text/plain"),
        "/standing": _telling("Champion, challenger and log, for people", "Standing"),
        "/openapi.json": _open("This document", kind="application/json"),
        "/": _open("What this is", kind="application/json"),
    }  # fmt: skip


def _scoring(
    summary: str,
    asked: str,
    answered: str,
    *,
    is_binary: bool = False,
    parameters: list[Schema] | None = None,
    extra: dict[int, str] | None = None,
) -> Schema:
    request_id = {"name": "X-Request-Id", "in": "header", "schema": {"type": "string", "pattern": f"^{NAMED.pattern}$"}}
    answer: Schema = {"application/json": {"schema": _ref(answered)}}
    if is_binary:
        answer["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    problems = {
        400: "The body does not fit; the message names the row and the field",
        401: "No token that is known",
        403: "The token does not carry the scope predict",
        408: "The request took too long to come",
        409: "The request's name was given to another request",
        413: "The body is too large",
        415: "The body is not JSON",
        500: "A fault of the endpoint",
        503: "Too busy, or an answer cannot be put on record",
        **(extra or {}),
    }
    return {
        "post": {
            "summary": summary,
            "parameters": [request_id, *(parameters or [])],
            "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(asked)}}},
            "responses": {"200": {"description": "The answer", "content": answer}, **_problems(problems)},
        }
    }


def _telling(
    summary: str, answered: str | None, parameters: list[Schema] | None = None, extra: dict[int, str] | None = None
) -> Schema:
    if answered is None or "/" in answered:
        content = {answered or "text/plain": {"schema": {"type": "string"}}}
    else:
        content = {"application/json": {"schema": _ref(answered)}}
    problems = {
        401: "No token that is known",
        403: "The token does not carry the scope",
        500: "A fault",
        **(extra or {}),
    }
    get: Schema = {
        "summary": summary,
        "responses": {"200": {"description": "The answer", "content": content}, **_problems(problems)},
    }
    return {"get": {**get, "parameters": parameters} if parameters else get}


def _open(summary: str, *, kind: str = "text/plain", may_fail: bool = False) -> Schema:
    answer = {"type": "object"} if kind == "application/json" else {"type": "string"}
    problems = _problems({500: "A fault", **({503: "The prediction log cannot be written"} if may_fail else {})})
    ok = {"description": "The answer", "content": {kind: {"schema": answer}}}
    return {"get": {"summary": summary, "security": [{}], "responses": {"200": ok, **problems}}}


def _problems(said: dict[int, str]) -> Schema:
    content = {"application/json": {"schema": _ref("Error")}}
    return {str(status): {"description": words, "content": content} for status, words in sorted(said.items())}


def _answers(book: LoanBook) -> Schema:
    """The schemas of what is answered."""
    text, whole, count = {"type": "string"}, {"type": "integer"}, {"type": "integer", "minimum": 1}
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    reason = _object({"code": {"enum": list(book.feature_names)}, "text": text}, ["code", "text"])
    prediction = {
        "client_id": {"type": ["integer", "null"]},
        "default_probability": probability,
        "decision": {"enum": ["approve", "refuse"]},
        "reasons": {"type": "array", "maxItems": 4, "items": reason},
        "features_as_of": {"type": ["string", "null"], "format": "date-time"},
        "stale": {"type": "boolean"},
    }
    whose = {
        "request_id": text,
        "release_digest": text,
        "release_source": {"enum": ["store", "bento"]},
        "predictions": {"type": "array", "minItems": 1, "items": _ref("Prediction")},
    }
    answer = {**whose, "model_version": count}
    v1 = {**whose, "model_name": text, "model_version": text}
    output = {
        "name": {"enum": OUTPUTS},
        "datatype": {"enum": ["FP64", "BYTES"]},
        "shape": {"type": "array", "items": count},
    }
    optional = {"data": {"type": "array"}, "parameters": {"type": "object"}}
    v2 = {
        "model_name": text,
        "model_version": text,
        "id": text,
        "parameters": {"type": "object"},
        "outputs": {"type": "array", "items": _object({**output, **optional}, list(output))},
    }
    tensors = {"type": "array", "items": {"type": "object"}}
    return {
        "Prediction": _object(prediction, list(prediction)),
        "Answer": _object(answer, list(answer)),
        "V1Answer": _object(v1, list(v1)),
        "V2Answer": _object(v2, list(v2)),
        "V1Models": _object({"models": {"type": "array", "items": text}}, ["models"]),
        "V1Status": _object({"name": text, "ready": {"type": "boolean"}}, ["name", "ready"]),
        "V2Server": _object({"name": text, "version": text, "extensions": {"type": "array", "items": text}}, ["name"]),
        "V2Model": _object(
            {"name": text, "versions": {"type": "array"}, "platform": text, "inputs": tensors, "outputs": tensors},
            ["name", "platform", "inputs", "outputs"],
        ),
        "Standing": _object(
            {
                "source": text,
                "champion": {"type": "object"},
                "challenger": {"type": ["object", "null"]},
                "swaps": whole,
                "refused_releases": whole,
                "log_bytes": whole,
                "log_backlog_bytes": whole,
            },
            ["source", "champion"],
        ),
        "Error": _object({"error": text}, ["error"]),
    }


def _inference(needed: tuple[Column, ...], limits: Endpoint) -> Schema:
    """An inference request with the one tensor `applications` as JSON; the other forms are described in words."""
    names = ", ".join(column.name for column in needed)
    tensor = _object(
        {
            "name": {"const": "applications"},
            "datatype": {"enum": DATATYPES},
            "shape": {
                "type": "array",
                "prefixItems": [{"type": "integer", "minimum": 1, "maximum": limits.most_rows}, {"const": len(needed)}],
                "minItems": 2,
                "maxItems": 2,
            },
            "data": {"type": "array", "items": {"type": "number"}},
        },
        ["name", "datatype", "shape", "data"],
    )
    outputs = {"type": "array", "minItems": 1, "items": _object({"name": {"enum": OUTPUTS}}, ["name"])}
    return {
        **_object(
            {
                "id": {"type": "string", "maxLength": 256},
                "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": tensor},
                "outputs": outputs,
            },
            ["inputs"],
        ),
        "description": f"One tensor of shape [rows, {len(needed)}], its columns {names}; or one tensor per field, of "
        "shape [rows] or [rows, 1]; as JSON, flat or nested, or as binary data behind the JSON.",
    }


def _field(column: Column) -> Schema:
    low, high = limits_of(column)
    schema: Schema = {"description": f"{column.meaning} [{column.unit}]" if column.unit else column.meaning}
    if column.levels is not None:
        return {**schema, "enum": sorted(column.levels)}
    return {**schema, "type": "integer" if column.kind is Kind.INTEGER else "number", "minimum": low, "maximum": high}


def _object(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
