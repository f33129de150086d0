"""The rights that each part is given in a bucket are enough for it, and an endpoint's for nothing else.

The emulator weighs rights to read and to write objects. It knows no conditions and no deletion of several objects, so
that neither a prefix of a listing nor a deletion is tried here.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from loan_assets.bucket import Bucket
from loan_assets.refusal import Refusal
from loan_assets_tests.conftest import ROOT
from loan_assets_tests.services import S3

IAM = ROOT / "deploy" / "iam"
BUCKET, BACKUPS = "bank-loan-assets", "bank-loan-assets-backups"
MADE_HERE = ("store", "feast", "releases", "bentos", "mlflow", "decisions", "events")
DELIVERED = ("deliveries", "landing", "outcomes", "predictions")
PLACES = (*MADE_HERE, *DELIVERED)
KEPT = tuple(place for place in (*MADE_HERE, "predictions") if place != "bentos")
MAY_READ = {"platform": PLACES, "endpoint": ("releases", "predictions"), "backup": KEPT}
MAY_WRITE: dict[str, tuple[str, ...]] = {"platform": MADE_HERE, "endpoint": ("predictions",), "backup": ()}


@pytest.fixture(scope="module")
def keys() -> Iterator[dict[str, dict[str, str]]]:
    """The variables of each part, in a store that lets nobody do what its policy does not say."""
    store = S3()
    emulated = {"region_name": "us-east-1", "aws_access_key_id": "any", "aws_secret_access_key": "any"}
    s3, iam = (boto3.client(service, endpoint_url=store.endpoint, **emulated) for service in ("s3", "iam"))
    s3.create_bucket(Bucket=BUCKET)
    s3.create_bucket(Bucket=BACKUPS)
    for place in PLACES:
        s3.put_object(Bucket=BUCKET, Key=f"{place}/there", Body=b"there")
    found = {part: {**store.environment, **key_of(iam, part)} for part in MAY_READ}
    plain = {"content-type": "text/plain"}
    locked = urllib.request.Request(f"{store.endpoint}/moto-api/reset-auth", b"0", plain, method="POST")
    urllib.request.urlopen(locked, timeout=10).close()
    yield found
    store.stop()


def key_of(iam: Any, part: str) -> dict[str, str]:
    iam.create_user(UserName=part)
    iam.put_user_policy(UserName=part, PolicyName=part, PolicyDocument=(IAM / f"{part}.json").read_text())
    key = iam.create_access_key(UserName=part)["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


@pytest.mark.parametrize("part", MAY_READ)
@pytest.mark.parametrize("place", PLACES)
def test_a_part_may_do_what_it_has_to_and_no_more(
    part: str, place: str, keys: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in keys[part].items():
        monkeypatch.setenv(name, value)
    bucket = Bucket(f"s3://{BUCKET}/{place}")
    assert is_let(lambda: bucket.read("there")) is (place in MAY_READ[part])
    assert is_let(lambda: bucket.create(f"by-{part}", b"made")) is (place in MAY_WRITE[part])


@pytest.mark.parametrize("part", MAY_READ)
def test_backups_are_written_by_nobody_else(
    part: str, keys: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in keys[part].items():
        monkeypatch.setenv(name, value)
    backups = Bucket(f"s3://{BACKUPS}/nightly")
    assert is_let(lambda: list(backups.names())) is (part in ("platform", "backup"))
    assert is_let(lambda: backups.create(f"by-{part}", b"made")) is (part == "backup")
    assert is_let(lambda: backups.read("by-anybody")) is (part == "backup")


def is_let(asked: Any) -> bool:
    try:
        asked()
    except Refusal as refused:
        if "may not be used with these credentials" not in refused.cause:
            raise
        return False
    return True


def test_the_doctor_may_try_every_place_that_the_platform_writes(
    keys: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in keys["platform"].items():
        monkeypatch.setenv(name, value)
    for place in (*MADE_HERE, "predictions"):
        Bucket(f"s3://{BUCKET}/{place}").create(".examined/tried", b"tried")
