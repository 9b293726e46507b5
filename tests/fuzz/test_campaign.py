"""A few thousand inputs of the campaign in every run; `campaign.py COUNT` for more."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from random import Random

import pytest

from tdxreclaim.cli.triage import run_triage
from tdxreclaim.errors import TdxReclaimError

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


def test_triage_is_no_surer_than_check(tmp_path: Path) -> None:
    for number in range(150):
        text, _, late = campaign.mutant(Random(f"triage-{number}"))
        if late:
            continue
        path = tmp_path / "in"
        path.write_text(text, encoding="utf-8", errors="replace")
        status = campaign.status_of(text)
        try:
            triage = run_triage((str(path),), None, None)
        except TdxReclaimError:
            continue
        told = int(triage.decision.verdict.exit_status)
        assert told == status or (told not in (0, 12) and status not in (0, 12)), text
        assert triage.exit_status != 0 or told == status, text
