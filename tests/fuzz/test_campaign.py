"""A few thousand inputs of the campaign in every run; `campaign.py COUNT` for more."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("campaign", Path(__file__).parent / "campaign.py")
assert _SPEC is not None
assert _SPEC.loader is not None
campaign = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(campaign)


@pytest.mark.parametrize("seed", range(4))
def test_no_input_of_the_campaign_gets_a_wrong_answer(seed: int) -> None:
    wrong = [found for _, found in campaign.campaign(500, seed) if found is not None]
    assert wrong == []


def test_the_oracle_sees_a_wrong_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "status_of", lambda _text, **_options: 0)
    assert any(found is not None for _, found in campaign.campaign(100, 1))
