#!/bin/sh
# Which changed lines no test notices: [MOST=100] mutate.sh MODULE.py TEST...
# Works on a copy; needs cosmic-ray in .venv.  MOST draws that many changes at
# random; without it all are tried, which may take hours.
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
"$python" - "${MOST:-0}" <<'PYTHON'
import random, sqlite3, sys

most = int(sys.argv[1])
with sqlite3.connect("mutate.sqlite") as session:
    jobs = [row[0] for row in session.execute("SELECT job_id FROM work_items ORDER BY job_id")]
    drawn = sorted(jobs)
    random.Random(0).shuffle(drawn)
    for job in drawn[most:] if most else ():
        session.execute("DELETE FROM mutation_specs WHERE job_id = ?", (job,))
        session.execute("DELETE FROM work_items WHERE job_id = ?", (job,))
    print(f"{len(jobs)} changes, {min(most, len(jobs)) or len(jobs)} tried")
PYTHON
"$python" -m cosmic_ray.cli exec mutate.toml mutate.sqlite
"$python" -m cosmic_ray.tools.report --show-diff --surviving-only mutate.sqlite
