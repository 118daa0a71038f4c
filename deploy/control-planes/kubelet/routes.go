package main

import (
	"net/http"
	"os"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// The limits a real kubelet gives its streams.
const (
	idleTimeout     = 4 * time.Hour
	creationTimeout = 30 * time.Second
)

func routes(n *node, logs *os.Root) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		if options := commandOptions(w, r); options != nil {
			remotecommand.ServeExec(w, r, n, r.PathValue("pod"), "", r.PathValue("container"), r.URL.Query()["command"],
				options, idleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
		}
	})
	mux.HandleFunc("/attach/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		if options := commandOptions(w, r); options != nil {
			remotecommand.ServeAttach(w, r, n, r.PathValue("pod"), "", r.PathValue("container"),
				options, idleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
		}
	})
	mux.HandleFunc("/portForward/{namespace}/{pod}", func(w http.ResponseWriter, r *http.Request) {
		options, err := portforward.NewV4Options(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		portforward.ServePortForward(w, r, n, r.PathValue("pod"), "",
			options, idleTimeout, creationTimeout, portforward.SupportedProtocols)
	})
	mux.Handle("GET /containerLogs/{namespace}/{pod}/{container}", containerLogs{logs})
	return mux
}

// commandOptions reads which streams are wanted; nil means that the request has been answered with an error.
func commandOptions(w http.ResponseWriter, r *http.Request) *remotecommand.Options {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil
	}
	return options
}
