#!/bin/sh
# Which changed lines no test notices: mutate.sh MODULE.py TESTS…
# Works on a copy; needs cosmic-ray in .venv.  Minutes to hours: see the count.
set -eu
module=$1
shift
here=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir "$copy/project"
(cd "$here" && git ls-files -z | xargs -0 cp --parents -t "$copy/project")
if [ -d "$here/../shared" ]; then ln -s "$(cd "$here/../shared" && pwd)" "$copy/shared"; fi
cd "$copy/project"
python="$here/.venv/bin/python"
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
"$python" -m cosmic_ray.cli exec mutate.toml mutate.sqlite
"$python" -m cosmic_ray.tools.report --show-diff --surviving-only mutate.sqlite
