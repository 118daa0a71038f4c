#!/usr/bin/env bash
# Writes constraints.txt anew: the newest versions of everything that pyproject.toml allows.
#
# usage: update-constraints.sh PYTHON
set -euo pipefail
python=${1:?usage: update-constraints.sh PYTHON}
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install --quiet --editable '.[dev,fuzz]'
{
  head -n 1 constraints.txt
  "$scratch/venv/bin/python" -m pip freeze --exclude-editable | sort -f
} > "$scratch/constraints.txt"
mv "$scratch/constraints.txt" constraints.txt
