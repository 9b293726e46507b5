"""Build the single file: ``python3 packaging/onefile.py dist/tdxreclaim.pyz``.

It needs nothing but a CPython of 3.11 or newer where it runs.  The same
checkout, built by the same Python, gives the same bytes: names are sorted,
times and modes fixed, nothing is compressed, and byte code does not look at
its source.  Of another Python the byte code is passed over for the source.
"""

from __future__ import annotations

import importlib.util
import os
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = Path(__file__).with_suffix(".txt")

# It has to compile on any Python that somebody may still have.
MAIN = """\
import sys
if sys.version_info < (3, 11):
    sys.stderr.write(
        "tdxreclaim: Python 3.11 or newer is needed; this is %d.%d.%d (%s)\\n"
        % (sys.version_info[:3] + (sys.executable,))
    )
    sys.exit(3)
from tdxreclaim.__main__ import run
run()
"""

_TIME = (1980, 1, 1, 0, 0, 0)
_KEPT = {".py", ".toml", ".json", ".txt", ".bash", ".fish", ".typed", ""}


def build(target: Path) -> None:
    """Write the single file to *target*, whole."""
    with tempfile.TemporaryDirectory() as scratch:
        site = Path(scratch)
        _install(site)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(target.name + ".tmp")
        with beside.open("wb") as file:
            file.write(b"#!/usr/bin/env python3\n")
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                _add(archive, "__main__.py", MAIN.encode())
                for name, path in sorted(_files(site)):
                    _add(archive, name, path.read_bytes())
                    if name.endswith(".py"):
                        _add(archive, name + "c", _compile(name, path.read_bytes()))
        beside.chmod(0o755)
        beside.replace(target)


def _install(site: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    options = ["--disable-pip-version-check", "--require-hashes", "--target", str(site)]
    if subprocess.run([*pip, *options, "--requirement", str(LOCK)], check=False).returncode:
        sys.exit(f"onefile: pip of {sys.executable} failed: run it with a Python that has pip")


def _files(site: Path) -> list[tuple[str, Path]]:
    """Return the names in the archive: our package, theirs, and their licences."""
    found = [(path, path.relative_to(ROOT)) for path in (ROOT / "tdxreclaim").rglob("*")]
    found += [(path, path.relative_to(site)) for path in site.rglob("*")]
    found += [(ROOT / "LICENSE", Path("LICENSE"))]
    return [
        (name.as_posix(), path)
        for path, name in found
        if path.is_file()
        and "__pycache__" not in name.parts
        and name.parts[0] != "bin"
        and (".dist-info" not in name.parts[0] or "licen" in name.as_posix().lower())
        and (path.suffix in _KEPT or ".dist-info" in name.parts[0])
    ]


def _compile(name: str, source: bytes) -> bytes:
    """Return byte code that is not checked against its source."""
    code = compile(source, f"tdxreclaim.pyz/{name}", "exec", dont_inherit=True, optimize=0)
    source_hash = importlib.util.source_hash(source)
    # PEP 552: hash-based, unchecked.
    import marshal

    flags = (1).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + flags + source_hash + marshal.dumps(code)


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.create_system = 3  # Unix
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    archive.writestr(entry, data)


def main() -> None:
    """Build where the command line says; sets in byte code need a fixed hash seed."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "dist/tdxreclaim.pyz")
    build(target)
    sys.stdout.write(f"{target}: {target.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
