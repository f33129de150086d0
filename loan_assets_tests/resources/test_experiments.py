"""MLflow out of reach: training must say so within seconds, whether nobody listens or nobody answers."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from loan_assets_tests.conftest import in_a_fresh_process

# The first call, to a closed port, loads what MLflow loads late; the second is the wait itself.
ASK = """
import time
from loan_assets.refusal import Refusal
from loan_assets.resources.experiments import connected
for uri in ("http://127.0.0.1:9", {uri!r}):
    started = time.monotonic()
    try:
        connected(uri, {artifacts!r})
    except Refusal as refusal:
        said = refusal
print(said)
print(time.monotonic() - started)
"""


@pytest.fixture(params=["nobody listens", "nobody answers"])
def dead_server(request: pytest.FixtureRequest) -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if request.param == "nobody answers":
            taken.listen(16)
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_dead_tracking_server_is_named_within_fifteen_seconds(dead_server: str, tmp_path: Path) -> None:
    said = in_a_fresh_process(ASK.format(uri=dead_server, artifacts=str(tmp_path)))
    refusal, seconds = said.stdout.strip().splitlines()
    assert f"MLflow at {dead_server} does not answer" in refusal, said.stderr
    assert "the champion goes on serving" in refusal
    assert float(seconds) < 15  # the client's own bound, with every retry spent; by default it hangs for minutes
