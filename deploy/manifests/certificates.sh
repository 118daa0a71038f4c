#!/bin/sh
# Makes the gateway's certificates and writes them as a Kustomize component.
#
# usage: certificates.sh DIRECTORY
#
# DIRECTORY gets kustomization.yaml and the files it names: the Secrets cluster-gateway-serving-cert (for the hub),
# cluster-gateway-core-cert and cluster-gateway-facade-cert (between facades and cores, used by components/split
# alone), and the caBundle of the APIService. Each has a CA of its own, whose key is thrown away: to renew, run this
# again. Certificates last a year. DIRECTORY then holds private keys: keep it out of version control.
set -eu
umask 077
directory=${1:?usage: certificates.sh DIRECTORY}
mkdir -p "$directory"
cd "$directory"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

make_authority() { # NAME
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=$1" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout "$scratch/$1.key" -out "$scratch/$1.crt" 2>"$scratch/log" || { cat "$scratch/log" >&2; exit 1; }
}

make_certificate() { # AUTHORITY NAME USAGE DNS-NAME
    mkdir -p "$2"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" \
        -keyout "$2/tls.key" -out "$scratch/$2.csr" 2>"$scratch/log" || { cat "$scratch/log" >&2; exit 1; }
    {
        echo "basicConstraints=critical,CA:FALSE"
        echo "keyUsage=critical,digitalSignature"
        echo "extendedKeyUsage=$3"
        echo "authorityKeyIdentifier=keyid"
        echo "subjectAltName=DNS:$4"
    } >"$scratch/extensions"
    openssl x509 -req -in "$scratch/$2.csr" -CA "$scratch/$1.crt" -CAkey "$scratch/$1.key" -CAcreateserial \
        -days 365 -extfile "$scratch/extensions" -out "$2/tls.crt" 2>"$scratch/log" || { cat "$scratch/log" >&2; exit 1; }
}

make_authority cluster-gateway-serving-ca
make_authority cluster-gateway-core-ca
make_authority cluster-gateway-facade-ca
make_certificate cluster-gateway-serving-ca cluster-gateway serverAuth cluster-gateway.cluster-gateway-system.svc
make_certificate cluster-gateway-core-ca cluster-gateway-core serverAuth \
    cluster-gateway-core.cluster-gateway-system.svc
make_certificate cluster-gateway-facade-ca cluster-gateway-facade clientAuth cluster-gateway-facade
# Each side is given the CA of the other.
cp "$scratch/cluster-gateway-facade-ca.crt" cluster-gateway-core/ca.crt
cp "$scratch/cluster-gateway-core-ca.crt" cluster-gateway-facade/ca.crt

cat >kustomization.yaml <<EOF
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
generatorOptions:
  disableNameSuffixHash: true
secretGenerator:
  - name: cluster-gateway-serving-cert
    namespace: cluster-gateway-system
    type: kubernetes.io/tls
    files: [cluster-gateway/tls.crt, cluster-gateway/tls.key]
  - name: cluster-gateway-core-cert
    namespace: cluster-gateway-system
    type: kubernetes.io/tls
    files: [cluster-gateway-core/tls.crt, cluster-gateway-core/tls.key, cluster-gateway-core/ca.crt]
  - name: cluster-gateway-facade-cert
    namespace: cluster-gateway-system
    type: kubernetes.io/tls
    files: [cluster-gateway-facade/tls.crt, cluster-gateway-facade/tls.key, cluster-gateway-facade/ca.crt]
patches:
  - target: {kind: APIService, name: v1alpha1.cluster.core.oam.dev}
    patch: |-
      - op: add
        path: /spec/caBundle
        value: $(openssl base64 -A -in "$scratch/cluster-gateway-serving-ca.crt")
EOF
