#!/bin/sh
# Which changed lines no test notices: [MOST=100] mutate.sh MODULE.py TEST...
# Works on a copy; needs cosmic-ray in .venv.  MOST draws that many changes at
# random; without it all are tried, which may take hours.  What changes nothing is
# left out: annotations, `if TYPE_CHECKING`, == for the `is` of an enum.
set -eu
module=$1
shift
here=$(cd "$(dirname "$0")/.." && pwd)
python="$here/.venv/bin/python"
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir "$copy/project"
(cd "$here" && git ls-files -z | xargs -0 cp --parents -t "$copy/project")
if [ -d "$here/../shared" ]; then ln -s "$(cd "$here/../shared" && pwd)" "$copy/shared"; fi
cd "$copy/project"
cat >mutate.toml <<TOML
[cosmic-ray]
module-path = "$module"
timeout = 60.0
excluded-modules = []
test-command = "$python -m pytest -q -x -p no:cacheprovider $*"
distributor.name = "local"
TOML
PYTHONPATH=$PWD PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH PYTHONDONTWRITEBYTECODE
"$python" -m cosmic_ray.cli init mutate.toml mutate.sqlite
"$python" - "${MOST:-0}" "$module" <<'PYTHON'
import ast, random, sqlite3, sys

most, module = int(sys.argv[1]), ast.parse(open(sys.argv[2]).read())
idle = []
for node in ast.walk(module):
    idle += [getattr(node, name, None) for name in ("annotation", "returns")]
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        idle.append(node)
spans = [
    ((each.lineno, each.col_offset), (each.end_lineno, each.end_col_offset))
    for each in idle
    if each is not None
]


def is_idle(operator, *at):
    return operator.endswith(("_Is_Eq", "_IsNot_NotEq")) or any(
        first <= at < last for first, last in spans
    )


with sqlite3.connect("mutate.sqlite") as session:
    rows = session.execute(
        "SELECT job_id, operator_name, start_pos_row, start_pos_col FROM mutation_specs"
    )
    jobs = {job: not is_idle(*rest) for job, *rest in rows}
    wanted = sorted(job for job, changes in jobs.items() if changes)
    random.Random(0).shuffle(wanted)
    tried = set(wanted[:most] if most else wanted)
    for job in jobs.keys() - tried:
        session.execute("DELETE FROM mutation_specs WHERE job_id = ?", (job,))
        session.execute("DELETE FROM work_items WHERE job_id = ?", (job,))
    print(f"{len(wanted)} changes, {len(tried)} tried")
PYTHON
"$python" -m cosmic_ray.cli exec mutate.toml mutate.sqlite
"$python" -m cosmic_ray.tools.report --show-diff --surviving-only mutate.sqlite
