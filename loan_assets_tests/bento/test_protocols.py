"""KServe V1 and Open Inference V2: the same scores in other words, and errors in theirs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from loan_assets.books import LoanBook, Role
from loan_assets.endpoint import Endpoint
from loan_assets_tests.bento.conftest import Box

V1, V2 = "/v1/models/loan-default", "/v2/models/loan-default"


@pytest.fixture
def order(book: LoanBook) -> list[str]:
    return [column.name for column in book.with_role(Role.FEATURE)]


@pytest.fixture
def probability(box: Box, good: dict[str, Any]) -> float:
    answer: float = box.post("/score", {"applications": [good]}).body["predictions"][0]["default_probability"]
    return answer


def test_v1_takes_objects_and_lists_in_the_documented_order(
    box: Box, good: dict[str, Any], order: list[str], probability: float
) -> None:
    answer = box.post(f"{V1}:predict", {"instances": [good, [good[name] for name in order]]})
    assert [one["default_probability"] for one in answer.body["predictions"]] == [probability] * 2
    assert (answer.body["model_name"], answer.body["model_version"]) == ("loan-default", "1")


def test_v1_says_which_models_there_are(box: Box) -> None:
    assert box.ask("GET", "/v1/models").body == {"models": ["loan-default"]}
    assert box.ask("GET", V1).body == {"name": "loan-default", "ready": True}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "instances is missing"),
        ({"instances": []}, "instances is not a list with at least one entry"),
        ({"instances": [[1, 2]]}, "instances[0]: a row of 20 numbers is expected"),
        ({"instances": [{"Jane": 1}]}, "instances[0]: 1 of its fields are not in the book"),
    ],
)
def test_v1_names_what_does_not_fit(box: Box, body: object, said: str) -> None:
    answer = box.post(f"{V1}:predict", body)
    assert (answer.status, answer.body) == (400, {"error": said})


def test_v2_metadata_and_health(box: Box, order: list[str]) -> None:
    assert box.ask("GET", "/v2").body["extensions"] == ["binary_tensor_data"]
    assert [box.ask("GET", f"/v2/health/{state}").status for state in ("live", "ready")] == [200, 200]
    model = box.ask("GET", V2).body
    assert box.ask("GET", f"{V2}/versions/1").body == model
    assert model["inputs"][0]["shape"] == [-1, len(order)]
    assert model["inputs"][0]["parameters"]["fields"] == order
    assert [box.ask("GET", f"{V2}{version}/ready").status for version in ("", "/versions/1", "/versions/2")] == [
        200, 200, 404,
    ]  # fmt: skip


def infer(box: Box, inputs: list[dict[str, Any]], **more: Any) -> Any:
    answer = box.post(f"{V2}/infer", {"inputs": inputs, **more})
    assert answer.status == 200, answer.body
    return answer.body


def test_v2_takes_one_tensor_or_one_per_field_flat_or_nested(
    box: Box, good: dict[str, Any], order: list[str], probability: float
) -> None:
    row = [good[name] for name in order]
    shape = [2, len(order)]
    one_per_field = [{"name": n, "datatype": "INT64", "shape": [2, 1], "data": [good[n]] * 2} for n in order]
    flat = [{"name": n, "datatype": "FP64", "shape": [2], "data": [good[n]] * 2} for n in (*order,)]
    protected = [{"name": "age", "datatype": "INT32", "shape": [2], "data": [24, 60]}]
    for inputs in (
        [{"name": "applications", "datatype": "FP64", "shape": shape, "data": row + row}],
        [{"name": "applications", "datatype": "FP32", "shape": shape, "data": [row, row]}],
        one_per_field,
        flat + protected,
    ):
        outputs = {tensor["name"]: tensor for tensor in infer(box, inputs, id="seven")["outputs"]}
        assert outputs["default_probability"]["data"] == [probability] * 2
        assert outputs["decision"] == {"name": "decision", "datatype": "BYTES", "shape": [2], "data": ["refuse"] * 2}
        assert len(outputs["reasons"]["data"][0].split()) in (1, 2, 3, 4)


def test_v2_echoes_the_id_and_gives_the_outputs_asked_for(box: Box, good: dict[str, Any], order: list[str]) -> None:
    tensor = {"name": "applications", "datatype": "FP64", "shape": [1, 20], "data": [good[name] for name in order]}
    answer = infer(box, [tensor], id="seven", outputs=[{"name": "decision"}])
    assert (answer["id"], answer["model_version"]) == ("seven", "1")
    assert [output["name"] for output in answer["outputs"]] == ["decision"]
    unnamed = infer(box, [tensor])
    assert unnamed["id"] == unnamed["parameters"]["request_id"] == box.records()[-1].request_id


def test_v2_refuses_an_id_that_cannot_be_sent_back_and_records_nothing(
    box: Box, good: dict[str, Any], order: list[str]
) -> None:
    tensor = {"name": "applications", "datatype": "FP64", "shape": [1, 20], "data": [good[name] for name in order]}
    answer = box.post(f"{V2}/infer", {"inputs": [tensor], "id": "\ud800"})
    assert (answer.status, answer.body) == (400, {"error": "id is not a string of at most 256 characters"})
    assert box.records() == []


def test_v2_speaks_for_the_version_that_answers_and_no_other(box: Box, good: dict[str, Any], order: list[str]) -> None:
    tensor = {"name": "applications", "datatype": "FP64", "shape": [1, 20], "data": [good[name] for name in order]}
    assert box.post(f"{V2}/versions/1/infer", {"inputs": [tensor]}).status == 200
    other = box.post(f"{V2}/versions/3/infer", {"inputs": [tensor]})
    assert (other.status, other.body) == (404, {"error": "this version is not served; version 1 is"})


WHOLE: dict[str, Any] = {"name": "applications", "datatype": "FP64", "shape": [1, 20], "data": [1.0] * 20}


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([], "inputs is not a list with at least one tensor"),
        ([7], "inputs[0] is not a tensor"),
        ([{**WHOLE, "name": "Jane"}], "inputs[0]: name is neither applications nor a field of the book"),
        ([{**WHOLE, "datatype": "BOOL"}], "inputs[0]: datatype is not one of"),
        ([{**WHOLE, "shape": [1, 19]}], "inputs[0]: shape does not fit applications"),
        ([{**WHOLE, "shape": [-1, 20]}], "inputs[0]: shape does not fit applications"),
        ([{**WHOLE, "shape": [2**31, 20]}], "inputs[0]: data holds 20 numbers where its shape says"),
        ([{**WHOLE, "data": [1.0] * 19}], "inputs[0]: data holds 19 numbers where its shape says 20"),
        ([{**WHOLE, "data": "77777"}], "inputs[0]: data is not a list"),
        ([{**WHOLE, "data": ["77777"] * 20}], "applications[0]: credit_limit is not a number"),
        ([WHOLE, WHOLE], "inputs[1] gives a field that was given before"),
        ([{"name": "age", "datatype": "FP64", "shape": [1], "data": [30]}], "inputs: credit_limit is missing"),
        ([{**WHOLE, "data": None, "parameters": {"binary_data_size": 160}}], "inputs[0]: either data or"),
    ],
)
def test_v2_names_what_does_not_fit(box: Box, inputs: object, said: str) -> None:
    answer = box.post(f"{V2}/infer", {"inputs": inputs})
    assert (answer.status, answer.body["error"].startswith(said)) == (400, True), answer.body
    assert "77777" not in answer.content.decode()


@pytest.mark.parametrize(
    ("length", "behind", "said"),
    [
        (None, b"", "inputs[0]: the binary data is not as long as its shape says"),
        ("9999", b"", "Inference-Header-Content-Length is not the length of the JSON in the body"),
        ("9" * 5_000, b"", "Inference-Header-Content-Length is not the length of the JSON in the body"),
        ("-1", b"", "Inference-Header-Content-Length is not the length of the JSON in the body"),
        (None, b"\x00" * 168, "more binary data came than the inputs speak of"),
        (None, b"\xff" * 160, "applications[0]: credit_limit is not a finite number"),
    ],
)
def test_v2_binary_data_that_does_not_fit_is_named(box: Box, length: str | None, behind: bytes, said: str) -> None:
    tensor = {"name": "applications", "datatype": "FP64", "shape": [1, 20], "parameters": {"binary_data_size": 160}}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": length or str(len(head))}
    answer = box.ask("POST", f"{V2}/infer", head + behind, headers)
    assert (answer.status, answer.body["error"].startswith(said)) == (400, True), answer.body


@pytest.mark.parametrize("binary", [True, False])
def test_an_independent_client_infers(
    binary: bool, endpoint: Endpoint, good: dict[str, Any], order: list[str], probability: float
) -> None:
    """Tritonclient speaks the protocol and the binary extension as its authors mean them."""
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

    client = InferenceServerClient(f"127.0.0.1:{endpoint.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("loan-default")
    assert client.is_model_ready("loan-default", "1")
    assert client.get_server_metadata()["name"] == "loan_assets"
    assert client.get_model_metadata("loan-default")["inputs"][0]["name"] == "applications"
    rows = np.array([[good[name] for name in order]] * 3, dtype="float64")
    tensor = InferInput("applications", list(rows.shape), "FP64")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    wanted = [InferRequestedOutput(name, binary_data=binary) for name in ("default_probability", "decision", "reasons")]
    answer = client.infer("loan-default", [tensor], outputs=wanted, request_id="nine", model_version="1")
    assert answer.as_numpy("default_probability").tolist() == [probability] * 3
    assert [str(word, "utf-8") if isinstance(word, bytes) else word for word in answer.as_numpy("decision")] == [
        "refuse"
    ] * 3
    assert answer.get_response()["id"] == "nine"
    client.close()
