#!/usr/bin/env bash
# Checks the .proto files, and that proto/gen is what they generate.
set -euo pipefail
cd "$(dirname "$0")/.."
buf lint
buf format --diff --exit-code
committed=$(mktemp -d)
trap 'rm -rf "$committed"' EXIT
cp -R proto/gen "$committed/gen"
find "$committed/gen" -name __pycache__ -type d -prune -exec rm -rf {} +
proto/generate.sh >/dev/null 2>&1
if ! diff -r --exclude=__pycache__ "$committed/gen" proto/gen; then
  echo "error: proto/gen is not what the .proto files generate; run 'make format' and commit the result" >&2
  exit 1
fi
