"""Commands in a next step are told as they can be typed where the process was started."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from loan_assets.refusal import as_typed
from loan_assets_tests.conftest import ROOT, loan_assets

BIN = Path(sys.executable).parent
STEP = "Run `loan-assets run` or `make dev`; loan-assets says more."


@pytest.fixture
def bare_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A shell that does not know of the environment, somewhere else."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("MAKELEVEL", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("bare_shell")
def test_a_command_that_the_shell_does_not_find_is_told_with_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_typed(STEP) == f"Run `{BIN}/loan-assets run` or `make dev`; loan-assets says more."
    monkeypatch.chdir(BIN.parents[1])
    assert (
        as_typed(STEP)
        == f"Run `{BIN.relative_to(BIN.parents[1])}/loan-assets run` or `make dev`; loan-assets says more."
    )


@pytest.mark.usefixtures("bare_shell")
def test_a_command_that_the_shell_finds_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{BIN}:/usr/bin")
    assert as_typed(STEP) == STEP


@pytest.mark.usefixtures("bare_shell")
def test_another_program_of_that_name_is_not_taken_for_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "loan-assets").write_text("#!/bin/sh\n")
    (tmp_path / "loan-assets").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin")
    assert f"`{BIN}/loan-assets run`" in as_typed(STEP)


@pytest.mark.usefixtures("bare_shell")
def test_what_make_puts_on_the_path_is_not_on_the_path_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKELEVEL", "1")
    monkeypatch.setenv("PATH", f"{BIN}:/usr/bin")
    assert f"`{BIN}/loan-assets run`" in as_typed(STEP)
    monkeypatch.setenv("PATH", f"{BIN}:{BIN}:/usr/bin")
    assert as_typed(STEP) == STEP


def test_the_doctor_and_a_refusal_tell_commands_that_work_in_a_bare_shell(tmp_path: Path) -> None:
    for command in ("doctor", "serve"):
        (tmp_path / command).mkdir()
        told = loan_assets(command, home=tmp_path / command, PATH="/usr/bin:/bin")
        typed = re.search(r"`(\S+/loan-assets) run`", told.stdout + told.stderr)
        assert typed is not None, told.stdout + told.stderr
        helped = subprocess.run(
            ["/bin/sh", "-c", f"{typed[1]} run --help"], env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=False
        )
        assert helped.returncode == 0


def test_every_command_that_the_readme_tells_to_type_is_there() -> None:
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    told = set(re.findall(r"(?:`|^)make ([\w-]+)", readme, re.MULTILINE))
    assert told >= {"demo", "test", "dev", "serve", "mlflow", "doctor", "simulate", "watch"}
    assert told <= set(re.findall(r"^([\w-]+):(?: setup\b.*)?$", makefile, re.MULTILINE))
    assert re.findall(r"(?:`|^)loan-assets ", readme, re.MULTILINE) == []
    assert os.access(BIN / "loan-assets", os.X_OK)
