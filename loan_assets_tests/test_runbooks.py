"""Runbooks: each is a procedure in numbered steps, and its commands do what they say, on a platform that runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
import typer

from bento.access import ADMIN, PREDICT, new_token
from loan_assets.books import LoanBook
from loan_assets.cli import app
from loan_assets.endpoint import Endpoint, served
from loan_assets.rehearsal import as_applications, days_up_to_today
from loan_assets.reign import Reign
from loan_assets.settings import Settings
from loan_assets_tests.conftest import PLACES, ROOT, There, activated, loan_assets
from loan_assets_tests.deployed import SECRETS as SECRETS_OF_A_CLUSTER
from loan_assets_tests.services import PASSWORD, Postgres, free_port, until
from loan_assets_tests.test_backup import asked_columns
from loan_assets_tests.test_reign import release

RUNBOOKS = ROOT / "deploy" / "runbooks"
BY_HAND = "by-hand: "
PROCEDURES = ("BadDataDay", "ComplianceAudit", "Restore", "RollBack", "RotateKeys", "Upgrade")
FENCE = re.compile(r"^ *```(?P<kind>sh|text)(?: (?P<mark>[^\n]*))?\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)
LONGEST = 400


@dataclass(frozen=True)
class Block:
    """Commands, what has to occur in what they print, and why only people run them, empty where a test does."""

    commands: str
    expected: tuple[str, ...] = ()
    by_hand: str = ""


def blocks_of(text: str) -> list[Block]:
    """The blocks of a runbook in their order."""
    blocks: list[Block] = []
    for fence in FENCE.finditer(text):
        indent = re.match(r" *", fence["body"])
        body = re.sub(rf"^ {{0,{len(indent[0]) if indent else 0}}}", "", fence["body"], flags=re.MULTILINE)
        if fence["kind"] == "text":
            blocks[-1] = replace(blocks[-1], expected=tuple(body.splitlines()))
        else:
            blocks.append(Block(commands=body, by_hand=(fence["mark"] or "").removeprefix(BY_HAND)))
    return blocks


def runbooks() -> list[Path]:
    return [path for path in sorted(RUNBOOKS.glob("*.md")) if path.stem != "README"]


def test_every_procedure_says_when_what_is_seen_how_it_is_known_to_work_and_how_it_is_undone() -> None:
    for name in PROCEDURES:
        text = (RUNBOOKS / f"{name}.md").read_text()
        assert text.startswith(f"# {name}\n\nWhen: "), name
        places = [
            text.find(words)
            for words in ("\nWhen: ", "\nYou see: ", "\n1. ", "How you know that it worked: ", "How to undo it: ")
        ]
        assert -1 not in places, name
        assert places == sorted(places), name
        steps = [int(number) for number in re.findall(r"^(\d+)\. ", text, re.MULTILINE)]
        assert steps == list(range(1, len(steps) + 1)), name
        assert any(not block.by_hand for block in blocks_of(text)), name


def test_every_fence_is_read_and_every_command_of_ours_exists() -> None:
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for path in runbooks():
        text = path.read_text()
        blocks = blocks_of(text)
        assert text.count("```sh") == len(blocks), path
        assert "sh" not in {line for line in text.splitlines() if line.strip() == "```"}, path
        for name in re.findall(r"(?<!-n )loan-assets ([a-z-]+)", text):
            assert name in commands, (path, name)
        for block in blocks:
            checked = subprocess.run(["bash", "-n"], input=block.commands, text=True, capture_output=True, check=False)
            assert checked.returncode == 0, (path, checked.stderr)


NAMED = "|".join((*SECRETS_OF_A_CLUSTER, "ADMIN_TOKEN", "OLD_PASSWORD", "NEW_PASSWORD", "PGPASSWORD", "token"))
SECRETS = re.compile(rf"\$\{{?(?:{NAMED})\b|\$\(cat secret\)")
# The shell's own: they start no process whose arguments could be seen.
BUILTIN = re.compile(r"^(?:printf|echo|export|for|if|set|trap|wait|umask|cd|\.|[A-Za-z_]\w*=\S*$)")


def arguments_with_secrets(commands: str) -> list[str]:
    """The commands that show a secret to whoever lists processes."""
    kept = re.sub(r"<\(printf [^)]*\)+|<<< *\"[^\"]*\"|\\\n|>+ *\"[^\"]*\"", " ", commands)
    kept = re.sub(r"<<'(\w+)'.*?^\1$", " ", kept, flags=re.DOTALL | re.MULTILINE)
    parts = [part.strip() for line in kept.splitlines() for part in re.split(r"&&|\|\||[|;]", line)]
    bare = [re.sub(r'^(?:\w+=(?:"[^"]*"|\S*)\s+)+(?=\S)', "", part) for part in parts]
    return [part for part in bare if SECRETS.search(part) and not BUILTIN.match(part)]


def test_no_command_of_a_runbook_shows_a_secret_to_whoever_lists_processes() -> None:
    assert arguments_with_secrets('curl -H "authorization: Bearer $ADMIN_TOKEN" x')
    assert arguments_with_secrets('PGUSER=a psql "$LOAN_DAGSTER_STORAGE" -c x')
    assert arguments_with_secrets('place=x\nredis-cli ACL SETUSER default ">$NEW_PASSWORD"')
    assert not arguments_with_secrets('A="$ADMIN_TOKEN" curl -H @<(printf %s "$ADMIN_TOKEN") x | grep y')
    shown = {
        path.stem: found
        for path in runbooks()
        for block in blocks_of(path.read_text())
        if (found := arguments_with_secrets(block.commands))
    }
    assert shown == {}


@dataclass(frozen=True)
class Platform:
    """A platform with a former champion, an endpoint and a webhook, and the variables that runbooks use."""

    settings: Settings
    endpoint: Endpoint
    variables: dict[str, str]


def crown_another(home: Path, variables: dict[str, str]) -> None:
    """A version more, released and put in force by a person, so that there is one to go back to."""
    reign = Reign.over(Settings.from_environment({"LOAN_HOME": str(home), **variables}))
    release(reign, 2, ordered="")
    reign.approve(2, "it is the better one", "the chief risk officer")


@contextmanager
def webhook(home: Path, variables: dict[str, str], port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "loan_assets.cli", "webhook", "--port", str(port)]
    environment = {**os.environ, **variables, "LOAN_HOME": str(home)}
    with (home / "webhook.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=home)
        try:
            until(lambda: is_alive(port), 120)
            yield
        finally:
            server.terminate()
            server.wait(timeout=30)


def is_alive(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5).close()
    except OSError:
        return False
    return True


@pytest.fixture
def platform(
    there: Callable[[str], There],
    bucket: str,
    postgres: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Platform]:
    """On Postgres, Redis and S3, with tokens."""
    lived, name = there("lived"), bucket.rpartition("/")[2]
    home, elsewhere = lived.settings.home, lived.variables
    tokens, lines = tmp_path / "tokens", []
    secrets = {}
    for caller, scopes in (("core-banking", {PREDICT}), ("on-call", {ADMIN, PREDICT})):
        secrets[caller], token = new_token(caller, frozenset(scopes))
        lines.append(token.line())
    tokens.write_text("\n".join(lines) + "\n")
    empty = {
        "LOAN_HOME": str(tmp_path / "restored"),
        "LOAN_DAGSTER_STORAGE": postgres.database(f"dagster_restored_{name}"),
        "LOAN_MLFLOW_URI": postgres.database(f"mlflow_restored_{name}"),
        "LOAN_FEAST_REGISTRY": postgres.database(f"feast_restored_{name}"),
        "LOAN_FEAST_ONLINE": elsewhere["LOAN_FEAST_ONLINE"].replace("/1", "/3"),
        "LOAN_ONLINE": elsewhere["LOAN_ONLINE"].replace("/0", "/2"),
        "LOAN_MLFLOW_ARTIFACTS": f"{bucket}-restored/mlflow",
        **{f"LOAN_{place.upper()}": f"{bucket}-restored/{place}" for place in PLACES},
    }
    (tmp_path / "empty.env").write_text("".join(f"{key}={shlex.quote(value)}\n" for key, value in empty.items()))
    port = free_port()
    variables = {**elsewhere, "LOAN_HOME": str(home), "LOAN_TOKENS": str(tokens)}
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    settings = Settings.from_environment(variables)
    with served(settings, workers=2) as endpoint, webhook(home, variables, port):
        crown_another(home, variables)
        told = {
            "ENDPOINT": f"http://127.0.0.1:{endpoint.port}",
            "WEBHOOK": f"http://127.0.0.1:{port}",
            "ADMIN_TOKEN": secrets["on-call"],
            "BACKUPS": f"{bucket}-kept",
            "DAY": days_up_to_today(1)[0],
            "EMPTY_ENV": str(tmp_path / "empty.env"),
            "OLD_PASSWORD": PASSWORD,
            "NEW_PASSWORD": "an0therS3cret",
        }
        yield Platform(settings=settings, endpoint=endpoint, variables={**variables, **told})


class Caller:
    """Asks the endpoint all the time, as the bank's systems do, and counts what is not answered."""

    def __init__(self, platform: Platform, application: dict[str, object]) -> None:
        self._address = f"{platform.variables['ENDPOINT']}/score"
        self._headers = {
            "content-type": "application/json",
            "authorization": f"Bearer {platform.variables['ADMIN_TOKEN']}",
        }
        self._body = json.dumps({"applications": [application]}).encode()
        self.answered, self.failures = 0, list[str]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        while not self._over.wait(0.1):
            request = urllib.request.Request(self._address, self._body, self._headers)
            try:
                urllib.request.urlopen(request, timeout=30).close()
                self.answered += 1
            except OSError as failed:
                self.failures.append(str(failed))

    def stop(self) -> None:
        self._over.set()
        self._thread.join(timeout=40)


def done_as_told(block: Block, variables: dict[str, str], folder: Path) -> str:
    """Execute a block; says what is wrong with it, nothing where it does as the runbook says."""
    environment = activated(Path(variables["LOAN_HOME"]), **variables, COLUMNS="200")
    command = ["bash", "-euo", "pipefail", "-c", block.commands]
    done = subprocess.run(
        command, cwd=folder, env=environment, text=True, capture_output=True, check=False, timeout=LONGEST
    )
    printed = done.stdout + done.stderr
    wanted = [re.sub(r"\$(\w+)", lambda named: variables[named[1]], line) for line in block.expected]
    lacking = [line for line in wanted if line not in printed]
    if done.returncode or lacking:
        return f"status {done.returncode}, lacks {lacking}:\n{block.commands}---\n{printed}"
    assert PASSWORD not in printed
    return ""


@pytest.mark.production
def test_every_command_of_every_runbook_does_what_it_says(
    platform: Platform, received: pd.DataFrame, book: LoanBook, tmp_path: Path
) -> None:
    first = done_as_told(Block('loan-assets backup --to "$BACKUPS"', ("Backup ",)), platform.variables, tmp_path)
    assert not first, first
    caller = Caller(platform, as_applications(received[list(asked_columns(book))].head(1))[0])
    wrong, executed, by_hand, seen = [], 0, [], set[Block]()
    for path in runbooks():
        folder, began = tmp_path / path.stem, time.monotonic()
        folder.mkdir()
        for number, block in enumerate(blocks_of(path.read_text()), start=1):
            if block.by_hand:
                by_hand.append(f"{path.stem} {number}: {block.by_hand}: {block.commands.strip().splitlines()[0]}")
                continue
            # Many alerts begin with the same look at the platform; it is taken once.
            if path.stem not in PROCEDURES and block in seen:
                continue
            seen.add(block)
            executed += 1
            said = done_as_told(block, platform.variables, folder)
            if said:
                wrong.append(f"{path.stem} {number}: {said}")
        sys.stdout.write(f"{path.stem} {time.monotonic() - began:.0f} s\n")
    caller.stop()
    listed = "\n".join(by_hand)
    sys.stdout.write(f"{executed} blocks executed; left to people:\n{listed}\n")
    sys.stdout.write(f"{caller.answered:,} requests answered meanwhile, {len(caller.failures)} were not\n")
    assert not wrong, "\n".join(wrong)
    assert caller.failures == []
    assert caller.answered > 100
    assert executed > 30
    served_by = loan_assets("decisions", home=platform.settings.home, **platform.variables)
    assert "complaints since the change" in served_by.stdout
