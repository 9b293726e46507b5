"""What several test files share: the tool in process, golden files, shared captures."""

from __future__ import annotations

import contextlib
import io
import os
import signal
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest
from hypothesis import HealthCheck, settings

import tdxreclaim
from tdxreclaim.cli import main

HERE = Path(__file__).parent
SHARED_CASES = HERE.parents[1] / "shared" / "cases"
# Every file at the top of that folder; without the folder, those with a golden file.
CASES = tuple(
    sorted(
        path.name for path in SHARED_CASES.iterdir() if path.is_file() and path.name != "README.md"
    )
    if SHARED_CASES.is_dir()
    else sorted(
        path.name.removeprefix("case-").removesuffix(".text")
        for path in (HERE / "expected").glob("case-*.text")
    )
)

# A deadline is a test of wall time; the machine may be busy.
settings.register_profile("tdxreclaim", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("tdxreclaim"), max_examples=5000)
settings.load_profile("tdxreclaim")


# Started in the background of a script, where it is ignored, and processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accept", action="store_true", help="rewrite the golden files")


class Ran(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def golden(self) -> str:
        """What a golden file holds: the output without the version, then the exit status."""
        out = self.out.replace(f'"version": "{tdxreclaim.__version__}"', '"version": "VERSION"')
        return f"{out}exit status: {self.status}\n"


class RunTool(Protocol):
    def __call__(self, *arguments: str, cwd: Path | None = None) -> Ran: ...


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> RunTool:
    """Run the command line in this process, in an environment without surprises."""
    for name in ("NO_COLOR", "FORCE_COLOR", "CI", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def run_tool(*arguments: str, cwd: Path | None = None) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(cwd or Path.cwd()),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            status = main(list(arguments))
        return Ran(int(status), out.getvalue(), err.getvalue())

    return run_tool


class Compare(Protocol):
    def __call__(self, name: str, text: str) -> None: ...


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Compare:
    """Compare with tests/expected/NAME; ``pytest --accept`` rewrites it."""

    def compare(name: str, text: str) -> None:
        path = HERE / "expected" / name
        if request.config.getoption("--accept"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"no golden file {name}: look at the output, then --accept it"
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture
def shared_cases() -> Path:
    """Return the folder of real captures; a clone of the project alone has none."""
    if not SHARED_CASES.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{SHARED_CASES} is required in CI")
        pytest.skip(f"no real captures here ({SHARED_CASES})")
    return SHARED_CASES


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    """Return the name of each real capture in turn."""
    return str(request.param)
