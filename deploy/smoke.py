"""Ask an endpoint that was just deployed for one score: `ENDPOINT=https://… TOKEN=… python deploy/smoke.py`.

Here: one application of nobody in particular, and what must come back. Standard library only, for it runs where nothing
is installed. Not here: whether scores are right, which the graph's own checks say.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

PATIENCE = 120.0
APPLICATION = {
    "client_id": 1_000_000_001,
    "credit_limit": 120_000,
    "education": 2,
    **{f"pay_status_{month}": 0 for month in range(1, 7)},
    **{f"bill_amount_{month}": 30_000 for month in range(1, 7)},
    **{f"payment_amount_{month}": 2_000 for month in range(1, 7)},
}


def asked(endpoint: str, route: str, token: str, body: object = None) -> Any:
    """The reply of a route, as JSON where it is.

    Raises:
        OSError: when there is none, or one that is no success.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{endpoint.rstrip('/')}{route}", data, {"content-type": "application/json"})
    if token:
        request.add_header("authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=10) as reply:
        content = reply.read()
    return json.loads(content) if content.startswith(b"{") else content


def smoke(endpoint: str, token: str, patience: float = PATIENCE) -> str:
    """Wait until an endpoint is ready, ask for a score, and say which version gave it.

    Raises:
        SystemExit: when it is not ready in time, does not answer, or answers without a score.
    """
    until = time.monotonic() + patience
    while True:
        try:
            asked(endpoint, "/readyz", token)
            break
        except OSError as away:
            if time.monotonic() > until:
                raise SystemExit(f"{endpoint} is not ready after {patience:.0f} s: {away}.") from None
            time.sleep(1)
    began = time.monotonic()
    try:
        reply = asked(endpoint, "/score", token, {"applications": [APPLICATION]})
        (prediction,) = reply["predictions"]
        probability, decision = float(prediction["default_probability"]), prediction["decision"]
    except urllib.error.HTTPError as refused:
        raise SystemExit(f"{endpoint} answers with status {refused.code}: {refused.read()[:300]!r}") from None
    except (OSError, ValueError, KeyError, TypeError) as odd:
        raise SystemExit(f"{endpoint} does not answer with a score ({type(odd).__name__}).") from None
    if not 0 < probability < 1 or decision not in ("approve", "refuse"):
        raise SystemExit(f"{endpoint} answers what is no score: {prediction}.")
    took = (time.monotonic() - began) * 1000
    return f"Version {reply['model_version']} of {endpoint} answers in {took:.0f} ms"


if __name__ == "__main__":
    seconds = float(os.environ.get("PATIENCE", PATIENCE))
    sys.stdout.write(f"{smoke(os.environ['ENDPOINT'], os.environ.get('TOKEN', ''), seconds)}\n")
