"""A place for files by name lists every file that is somebody's, or says which folder it cannot look into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from loan_assets.place import place_at
from loan_assets.refusal import Refusal


def filled(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_files_are_listed_in_the_order_of_names_without_what_is_nobody_s(tmp_path: Path) -> None:
    filled(tmp_path, "b/2", "b/1", "a", "c/d/e", "c.d", "b/.arriving-1", ".ssh/key", "b/writers.lock", "lost+found/x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "b")
    place = place_at(str(tmp_path))
    assert list(place.names()) == [("a", 1), ("b/1", 3), ("b/2", 3), ("c/d/e", 5), ("c.d", 3)]
    assert [name for name, _ in place.names("c")] == ["c/d/e"]
    for nothing in ("empty", "nowhere", "a"):
        assert list(place.names(nothing)) == []


def test_a_folder_that_may_not_be_read_is_named_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, "a", "closed/b")
    scandir = os.scandir

    # The tests may be run by a user who may read everything.
    def refusing(path: str) -> Iterator[os.DirEntry[str]]:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(Refusal, match=r"closed cannot be used: Permission denied"):
        list(place_at(str(tmp_path)).names())
