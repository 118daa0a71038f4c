#!/usr/bin/env bash
# Generates proto/gen from the .proto files with the tools of the active virtual environment; needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."
buf generate --path proto/clustergateway
mapfile -t services < <(cd proto && find clustergateway -name '*_service.proto' | sort)
python -m grpc_tools.protoc --proto_path=proto --grpc_python_out=proto/gen "${services[@]}"
for folder in $(cd proto && find clustergateway -type d | sort); do
  version=${folder##*/}
  printf '"""Generated messages%s; never edited by hand."""\n' "$([[ $version == v* ]] && echo " of ${folder//\//.}")" > "proto/gen/$folder/__init__.py"
done
touch proto/gen/clustergateway/py.typed
