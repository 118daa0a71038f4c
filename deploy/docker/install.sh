#!/bin/sh
# Installs the gateway from this checkout into an empty root folder, which the image then takes as its own root.
#
# usage: install.sh ROOT
#
# Nothing installed knows ROOT's path, so the folder may be moved. PYTHON names the interpreter (python3).
set -eu
root=${1:?usage: install.sh ROOT}
checkout=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
library=usr/lib/cluster-gateway

mkdir -p "$root/$library" "$root/usr/local/bin" "$root/tmp"
chmod 1777 "$root/tmp"
"${PYTHON:-python3}" -m pip install --quiet --no-input --disable-pip-version-check --root-user-action=ignore \
    --no-warn-script-location --constraint "$checkout/constraints.txt" --target "$root/$library" "$checkout"

# pip's own scripts name the interpreter of the build; these find it, and the library, from where they lie.
write_launcher() { # PATH-BELOW-ROOT WAY-TO-ROOT [SUBCOMMAND]
    cat >"$root/$1" <<EOF
#!/bin/sh
set -eu
directory=\$(dirname -- "\$(readlink -f -- "\$0")")
export PYTHONPATH="\$directory/$2$library"
exec python3 -P -m cluster_gateway ${3:+$3 }"\$@"
EOF
    chmod 755 "$root/$1"
}
write_launcher usr/local/bin/cluster-gateway ../../../
# The original's image has /apiserver as its entry point and as ./apiserver in its working directory.
write_launcher apiserver "" apiserver
# Where the original's published Deployment, which names no certificate, lets each replica make its own.
mkdir -p "$root/apiserver.local.config/certificates"
