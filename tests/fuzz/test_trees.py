"""A few hundred captures of the campaign in every run; `trees.py COUNT` for more."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("trees", Path(__file__).parent / "trees.py")
assert _SPEC is not None
assert _SPEC.loader is not None
trees = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(trees)


@pytest.mark.parametrize("seed", range(2))
def test_no_capture_of_the_campaign_gets_a_wrong_answer(seed: int, tmp_path: Path) -> None:
    wrong = [found for _, found in trees.campaign(150, seed, tmp_path) if found is not None]
    assert wrong == []


def test_the_oracle_sees_a_wrong_skip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trees, "status_of", lambda _made, _folder: 0)
    assert any(found is not None for _, found in trees.campaign(50, 1, tmp_path))
