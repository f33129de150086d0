"""The Open Inference Protocol, V2: tensors in, tensors out, as JSON or as binary data behind it.

Here: metadata, and the reading and writing of an inference. Not here: the fields of a row (`reading`).
Sources: https://github.com/kserve/open-inference-protocol, and Triton's extension_binary_data for binary tensors.

The input is one tensor `applications` of shape [rows, fields], or one tensor per field of the book, of shape [rows] or
[rows, 1]. The outputs are `default_probability` (FP64), `decision` and `reasons` (BYTES, codes joined by spaces).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np

from bento.reading import BadRequest, Reader
from bento.requests import Features, Question, Reply, Request, encode
from loan_assets.prediction_record import PredictionRecord
from loan_assets.release import MODEL

PLATFORM = "loan_assets_trees"
WHOLE = "applications"
LENGTH = b"inference-header-content-length"
NUMBERS = {
    "FP64": "<f8", "FP32": "<f4", "FP16": "<f2",
    "INT64": "<i8", "INT32": "<i4", "INT16": "<i2", "INT8": "<i1",
    "UINT64": "<u8", "UINT32": "<u4", "UINT16": "<u2", "UINT8": "<u1",
}  # fmt: skip
OUTPUTS = {"default_probability": "FP64", "decision": "BYTES", "reasons": "BYTES"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How the caller wants its answer: its own id, which outputs, and which of them as binary data."""

    id: str | None
    outputs: Mapping[str, bool]


def server() -> Reply:
    """What this server is, and which extensions it speaks."""
    return Reply(encode({"name": "loan_assets", "version": "2", "extensions": ["binary_tensor_data"]}))


def model(version: int, fields: Sequence[str]) -> Reply:
    """What the model takes and gives; `parameters.fields` is the order of the columns of `applications`."""
    said = {
        "name": MODEL,
        "versions": [str(version)],
        "platform": PLATFORM,
        "inputs": [{"name": WHOLE, "datatype": "FP64", "shape": [-1, len(fields)], "parameters": {"fields": fields}}],
        "outputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in OUTPUTS.items()],
    }
    return Reply(encode(said))


def read(request: Request, reader: Reader, features: Features) -> Question:
    """The rows of an inference request.

    Raises:
        BadRequest: naming the input and what is wrong with it.
    """
    head, binary = _split(request)
    asked = reader.decode(head)
    if not isinstance(asked, dict) or not isinstance(asked.get("inputs"), list) or not asked["inputs"]:
        raise BadRequest("inputs is not a list with at least one tensor")
    name = asked.get("id")
    if name is not None and not (isinstance(name, str) and len(name) <= 256 and _is_text(name)):
        raise BadRequest("id is not a string of at most 256 characters")
    columns: dict[str, np.ndarray] = {}
    for position, tensor in enumerate(asked["inputs"]):
        field, values, binary = _tensor(tensor, f"inputs[{position}]", binary, reader)
        if field in columns or (columns and WHOLE in (field, *columns)):
            raise BadRequest(f"inputs[{position}] gives a field that was given before")
        columns[field] = values
    if binary:
        raise BadRequest("more binary data came than the inputs speak of")
    rows = [
        reader.application(given, f"{WHOLE}[{row}]")
        for row, given in enumerate(reader.entries(_rows(columns, reader.order), WHOLE))
    ]
    form = _form(asked, name)
    return Question(rows, features, lambda records, _, source: write(records, form, source), version=request.version)


def write(records: Sequence[PredictionRecord], form: Form, source: str) -> Reply:
    """The outputs asked for, as JSON or as binary data behind it."""
    values: dict[str, list[Any]] = {
        "default_probability": [record.default_probability for record in records],
        "decision": [record.decision for record in records],
        "reasons": [" ".join(record.reasons) for record in records],
    }
    first = records[0]
    outputs: list[dict[str, Any]] = []
    behind = b""
    for name, is_binary in form.outputs.items():
        tensor: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name], "shape": [len(records)]}
        if is_binary:
            content = _bytes_of(values[name])
            tensor["parameters"] = {"binary_data_size": len(content)}
            behind += content
        else:
            tensor["data"] = values[name]
        outputs.append(tensor)
    said: dict[str, Any] = {
        "model_name": MODEL,
        "model_version": str(first.model_version),
        "id": form.id if form.id is not None else first.request_id,
        "parameters": {
            "request_id": first.request_id, "release_digest": first.release_digest, "release_source": source
        },
        "outputs": outputs,
    }  # fmt: skip
    head = encode(said)
    if not behind:
        return Reply(head)
    length = (b"inference-header-content-length", str(len(head)).encode())
    return Reply(head + behind, HTTPStatus.OK, b"application/octet-stream", [length])


def _is_text(word: str) -> bool:
    """Whether a string can be sent back: JSON can spell half a character, UTF-8 cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in word)


def _split(request: Request) -> tuple[bytes, bytes]:
    """The JSON of a body, and the binary data behind it."""
    length = request.headers.get(LENGTH)
    if length is None:
        return request.body, b""
    if not length.isdigit() or len(length) > 9 or int(length) > len(request.body):
        raise BadRequest("Inference-Header-Content-Length is not the length of the JSON in the body")
    return request.body[: int(length)], request.body[int(length) :]


def _tensor(tensor: object, where: str, binary: bytes, reader: Reader) -> tuple[str, np.ndarray, bytes]:
    """One input's field, its numbers in the shape given, and the binary data left for the inputs behind it."""
    if not isinstance(tensor, dict):
        raise BadRequest(f"{where} is not a tensor")
    field, kind = tensor.get("name"), tensor.get("datatype")
    shape: Any = tensor.get("shape")
    if not isinstance(field, str) or (field != WHOLE and field not in reader.known):
        raise BadRequest(f"{where}: name is neither {WHOLE} nor a field of the book")
    if not isinstance(kind, str) or kind not in NUMBERS:
        raise BadRequest(f"{where}: datatype is not one of {', '.join(NUMBERS)}")
    if not _is_shape(shape, len(reader.order) if field == WHOLE else 1, may_be_flat=field != WHOLE):
        raise BadRequest(f"{where}: shape does not fit {WHOLE if field == WHOLE else 'a field'}")
    count = int(np.prod(shape))
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        return field, _listed(tensor.get("data"), shape, where), binary
    if "data" in tensor or isinstance(size, bool) or not isinstance(size, int):
        raise BadRequest(f"{where}: either data or a whole binary_data_size is expected")
    width = np.dtype(NUMBERS[kind]).itemsize
    if size != count * width or size > len(binary):
        raise BadRequest(f"{where}: the binary data is not as long as its shape says")
    numbers = np.frombuffer(binary[:size], dtype=NUMBERS[kind]).reshape(shape)
    return field, numbers, binary[size:]


def _is_shape(shape: object, width: int, *, may_be_flat: bool) -> bool:
    if not isinstance(shape, list) or not all(type(length) is int and 0 < length <= 2**31 for length in shape):
        return False
    return (may_be_flat and len(shape) == 1) or (len(shape) == 2 and shape[1] == width)


def _listed(data: object, shape: list[int], where: str) -> np.ndarray:
    """Numbers given as JSON, flat or nested as the shape is; what is no number is left for the fields' own rules."""
    if not isinstance(data, list):
        raise BadRequest(f"{where}: data is not a list")
    flat = [number for row in data for number in row] if data and all(isinstance(row, list) for row in data) else data
    count = int(np.prod(shape))
    if len(flat) != count:
        raise BadRequest(f"{where}: data holds {len(flat)} numbers where its shape says {count}")
    numbers = np.empty(count, dtype=object)
    numbers[:] = flat
    return numbers.reshape(shape)


def _rows(columns: Mapping[str, np.ndarray], fields: Sequence[str]) -> list[Any]:
    """Rows as lists in the book's order, or as objects where the fields came one by one."""
    if WHOLE in columns:
        rows: list[Any] = columns[WHOLE].tolist()
        return rows
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise BadRequest("the inputs have different numbers of rows")
    missing = next((field for field in fields if field not in columns), None)
    if missing:
        raise BadRequest(f"inputs: {missing} is missing")
    by_field = {field: values.reshape(-1).tolist() for field, values in columns.items()}
    return [{field: values[row] for field, values in by_field.items()} for row in range(lengths.pop())]


def _form(asked: Mapping[str, Any], name: str | None) -> Form:
    """Which outputs are wanted, and how; all of them where none is named."""
    parameters = asked.get("parameters")
    usual = isinstance(parameters, dict) and parameters.get("binary_data_output") is True
    wanted = asked.get("outputs")
    if wanted is None:
        return Form(id=name, outputs=dict.fromkeys(OUTPUTS, usual))
    if not isinstance(wanted, list) or not wanted:
        raise BadRequest("outputs is not a list with at least one output")
    outputs: dict[str, bool] = {}
    for position, output in enumerate(wanted):
        named = output.get("name") if isinstance(output, dict) else None
        if not isinstance(named, str) or named not in OUTPUTS:
            raise BadRequest(f"outputs[{position}]: name is not one of {', '.join(OUTPUTS)}")
        own = output.get("parameters")
        binary = own.get("binary_data") if isinstance(own, dict) else None
        outputs[named] = usual if binary is None else binary is True
    return Form(id=name, outputs=outputs)


def _bytes_of(values: Sequence[Any]) -> bytes:
    """Numbers as little-endian doubles; words each behind its length, as the extension has it."""
    if values and isinstance(values[0], float):
        return np.asarray(values, dtype="<f8").tobytes()
    words = [str(value).encode() for value in values]
    return b"".join(struct.pack("<I", len(word)) + word for word in words)
