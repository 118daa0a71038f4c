//go:build tools

// Package tools names kwok, so that go.mod and go.sum pin it. It has a module of its own because it is built from other
// Kubernetes libraries than the apiserver.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
