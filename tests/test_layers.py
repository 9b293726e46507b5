"""The import arrow, the one door, and what a quick start must not load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tdxreclaim"
# A room imports from itself and from those before it.  A sub-package is in the
# room of its first path part, so that it cannot leave the guard.
LAYERS = (
    "errors",
    "units",
    "record",
    "tables",
    "facts",
    "policy",
    "engine",
    "costs",
    "triage",
    "calibrate",
    "fleet",
    "sweep",
    "report",
    "cli",
)
# The emulated machine knows no host and no verdict.
CLOSED_TO = {"engine": {"facts", "policy"}}
MODULES = sorted(PACKAGE.rglob("*.py"))


def _layer(module: str) -> int | None:
    parts = module.split(".")
    named = parts[1] if parts[0] == "tdxreclaim" and len(parts) > 1 else None
    return LAYERS.index(named) if named in LAYERS else None


def _imports(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_up(path: Path) -> None:
    module = ".".join(("tdxreclaim", *path.relative_to(PACKAGE).with_suffix("").parts))
    # The package itself and its entry point stand outside: version, and main().
    own = _layer(module.removesuffix(".__init__"))
    if own is None:
        assert module in ("tdxreclaim.__init__", "tdxreclaim.__main__")
        return
    for imported in _imports(ast.parse(path.read_text())):
        layer = _layer(imported)
        assert layer is None or layer <= own, f"{module} imports {imported}, which is below it"
        assert layer is None or LAYERS[layer] not in CLOSED_TO.get(LAYERS[own], ()), (
            f"{module} imports {imported}, which it must not know"
        )


ABOVE = [path for path in MODULES if path.parent != PACKAGE]


@pytest.mark.parametrize("path", ABOVE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_string_names_a_room_below(path: Path) -> None:
    own = LAYERS.index(path.relative_to(PACKAGE).parts[0])
    named = {
        word
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for word in re.findall(r"\btdxreclaim\.(\w+)", node.value)
    }
    assert not named & set(LAYERS[own + 1 :])


# What only facts/sources, and facts/images of kernels, may do: open files, run programs, ask the kernel.
DOORS = {"open", "uname", "listdir", "scandir", "popen", "system", "read_text", "read_bytes"}
ALLOWED = {
    "facts/sources/base.py": {"open"},
    "facts/sources/live.py": DOORS,
    "facts/sources/tree.py": {"open", "listdir", "scandir"},
    "facts/sources/kvm.py": {"open", "listdir"},
    "facts/sources/rows.py": {"listdir"},  # a directory of captures
    "facts/sources/unpack.py": {"open"},  # a decompressor on a stream that is open
    "facts/images/folder.py": {"open", "listdir"},
    "costs/shipped.py": {"read_text"},  # a file of the package
    "report/schemas/__init__.py": {"read_text"},  # a file of the package
    "cli/output.py": {"open"},  # --output
    "cli/parts.py": {"open"},  # results so far
    "cli/__init__.py": {"open"},  # /dev/null in place of a closed stdout
}

# Clearing memory with the kernel's instruction is machine code; it opens no
# file and runs no program: what it reads of the host comes through a Source.
MACHINE_CODE = {
    "facts/measure.py": {"ctypes"},
    "facts/sources/events.py": {"ctypes", "socket"},  # inotify, the kernel's uevents
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_one_door_to_the_host(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    tree = ast.parse(path.read_text())
    called = {
        node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)
    }
    assert called & DOORS <= ALLOWED.get(name, set())
    if name != "facts/sources/live.py":
        closed = {"subprocess", "socket", "platform", "cpuinfo", "ctypes"} - MACHINE_CODE.get(
            name, set()
        )
        assert not _imports(tree) & closed


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_cli_prints_and_exits_and_only_text_draws(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    tree = ast.parse(path.read_text())
    imports = _imports(tree)
    if not name.startswith("cli/") and name != "__main__.py":
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not names & {"print", "exit", "quit"}
        assert "click" not in imports
    if name != "report/page.py" and not name.startswith("cli/"):
        assert not {i for i in imports if i.partition(".")[0] == "rich"}


PURE_ROOMS = (
    "units.py",
    "tables",
    "policy",
    "engine",
    "costs",
    "triage",
    "calibrate",
    "fleet",
    "sweep",
)
PURE = [path for path in MODULES if path.relative_to(PACKAGE).parts[0] in PURE_ROOMS]


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_decides_and_estimates_is_pure(path: Path) -> None:
    impure = {"os", "io", "sys", "time", "datetime", "pathlib", "subprocess", "logging"}
    assert not _imports(ast.parse(path.read_text())) & impure


def _modules_loaded(*arguments: str) -> set[str]:
    program = (
        "import sys\n"
        "from tdxreclaim.cli import main\n"
        f"main({list(arguments)!r})\n"
        "print('\\n' + ' '.join(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(run.stdout.splitlines()[-1].split())


SLOW = {
    "rich",
    "cpuinfo",
    "multiprocessing",
    "subprocess",
    "tarfile",
    "importlib.metadata",
    "asyncio",
    "jsonschema",
    "ctypes",
    "tomllib",
    "pathlib",
}


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "--quiet"),
        ("check", "--format", "json"),
        ("check", "--format", "shell"),
        ("check", "--cpu", "spr", "--kernel", "6.17", "--quiet"),
        ("--version",),
        ("--help",),
    ],
    ids=" ".join,
)
def test_a_quick_start_loads_nothing_slow(arguments: tuple[str, ...]) -> None:
    bare = subprocess.run(
        [sys.executable, "-c", "import click, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    # pathlib and the like may come with the interpreter's own start-up (.pth files).
    assert not _modules_loaded(*arguments) & (SLOW - set(bare.stdout.split()))


# A captured host in place of this one, whose own CPU may be any.
_STAND_IN = """
import os
from tdxreclaim.facts.evidence import Origin
from tdxreclaim.facts.sources import live
from tdxreclaim.facts.sources.base import Survey
class StandIn(live.Live):
    def read(self, path):
        place = {"dev/kmsg": "var/log/dmesg"}.get(path, path)
        try:
            with open(f"ROOT/{place}") as file:
                return file.read()
        except OSError:
            return None
live.Live = StandIn
live.installed_kernels = lambda: None
import sys
before = set(sys.modules)
import re
compiled = []
compile_ = re._compiler.compile
re._compiler.compile = lambda *given: compiled.append(given) or compile_(*given)
"""

LOG_READERS = {
    f"tdxreclaim.facts.logs.{name}"
    for name in ("dress", "fields", "line", "scanner", "stack", "voice", "whole")
}
# What a class costs to be made by it, what an expression does, and data that no answer needs.
HEAVY = {"dataclasses", "datetime", "shutil", "tempfile", "random", "zlib"}
FOR_OTHERS = {
    *("tdxreclaim.facts.fake", "tdxreclaim.cli.values", "tdxreclaim.facts.witness"),
    *("tdxreclaim.tables.findings", "tdxreclaim.tables.beginnings", "tdxreclaim.tables.seamcalls"),
    *("tdxreclaim.facts.formats.lscpu", "tdxreclaim.facts.formats.cpuid"),
}


def _start(host: str, *arguments: str) -> tuple[set[str], int]:
    """Return the modules that a live `check` on *host* loads, and how many expressions it compiles."""
    root = Path(__file__).parent / "hosts" / host
    program = (
        _STAND_IN.replace("ROOT", str(root))
        + "from tdxreclaim.cli import main\n"
        + f"main({list(arguments)!r})\n"
        + "print('\\n' + ' '.join(sys.modules), len(compiled))"
    )
    bare = [sys.executable, "-c", "import click, sys; print(*sys.modules)"]
    known = subprocess.run(bare, capture_output=True, text=True, check=True)
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    *loaded, count = run.stdout.splitlines()[-1].split()
    return set(loaded) - set(known.stdout.split()), int(count)


@pytest.mark.parametrize("host", ["epyc-bare", "icx", "laptop-12th-gen", "spr-5.14-off"])
def test_a_plain_host_is_answered_by_what_it_needs_alone(host: str) -> None:
    loaded, expressions = _start(host, "check", "--quiet")
    assert not loaded & (HEAVY | FOR_OTHERS | LOG_READERS | {"json"})
    # Some 60 us each.
    assert expressions <= 32


@pytest.mark.parametrize("host", ["spr-6.18-active", "spr-hibernation", "srf-7.1-active"])
@pytest.mark.parametrize("format_", ["json", "shell"])
def test_a_tdx_host_is_answered_without_the_readers_of_other_logs(host: str, format_: str) -> None:
    loaded, expressions = _start(host, "check", "--format", format_)
    assert not loaded & (HEAVY | FOR_OTHERS | LOG_READERS)
    assert "tdxreclaim.facts.logs.ring" in loaded
    assert expressions <= 55


def test_triage_starts_no_emulator_where_no_time_is_asked_about() -> None:
    root = Path(__file__).parent / "hosts" / "sosreport-spr-6.18-ticket"
    loaded = _modules_loaded("triage", "--from", str(root), "--format", "json")
    rooms = {name.split(".")[1] for name in loaded if name.startswith("tdxreclaim.")}
    assert "triage" in rooms
    assert not rooms & {"engine", "costs"}
    assert "rich" not in loaded


def test_text_draws_with_rich_and_asks_no_py_cpuinfo() -> None:
    loaded = _modules_loaded("check")
    assert "rich.console" in loaded
    assert "cpuinfo" not in loaded


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_named_tuple_has_five_fields_at_most(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef) and "NamedTuple" in map(ast.unparse, node.bases):
            fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
            assert len(fields) <= 5, node.name
