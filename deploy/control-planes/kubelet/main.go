// Command kubelet is the smallest node that `kubectl exec`, `attach`, `cp`, `port-forward` and `logs` cannot tell from a
// real one: streams end, fail and report exit codes exactly as there, because the streaming server is the library that
// container runtimes use (k8s.io/cri-streaming). It registers nothing and runs no containers.
//
//	kubelet -listen 127.0.0.1:10260 -logs DIR -cert FILE -key FILE -client-ca FILE -client-name NAME
//
//	/exec/NS/POD/C           runs the command as a local process, with a pseudo-terminal when one is asked for
//	/attach/NS/POD/C         prints "attached", then "got:LINE" for every line of stdin, until stdin ends
//	/portForward/NS/POD      connects to that port on 127.0.0.1
//	/containerLogs/NS/POD/C  serves DIR/NS/POD/C.log; a follower ends once DIR/NS/POD/C.log.done exists
//
// An exec is a command run as the user who started the program, so only one client may ask for it: the apiserver, known
// by the common name of a certificate signed by -client-ca.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

type options struct {
	listen, logs, certificate, key, clientCA, clientName string
}

func parseOptions() options {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:10260", "address to serve on")
	flag.StringVar(&o.logs, "logs", ".", "directory of the container logs")
	flag.StringVar(&o.certificate, "cert", "", "serving certificate (PEM)")
	flag.StringVar(&o.key, "key", "", "key of the serving certificate (PEM)")
	flag.StringVar(&o.clientCA, "client-ca", "", "CA bundle that signs the apiserver's client certificate (PEM)")
	flag.StringVar(&o.clientName, "client-name", "kube-apiserver-kubelet-client", "common name of that certificate")
	flag.Parse()
	return o
}

// tlsConfig accepts the one client that may run commands here.
func tlsConfig(o options) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(o.certificate, o.key)
	if err != nil {
		return nil, err
	}
	bundle, err := os.ReadFile(o.clientCA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(bundle) {
		return nil, fmt.Errorf("%s holds no certificate", o.clientCA)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		MinVersion:   tls.VersionTLS12,
		// SPDY streams take over the connection, which HTTP/2 does not allow.
		NextProtos: []string{"http/1.1"},
		VerifyConnection: func(state tls.ConnectionState) error {
			if name := state.PeerCertificates[0].Subject.CommonName; name != o.clientName {
				return fmt.Errorf("client %q may not use this kubelet", name)
			}
			return nil
		},
	}, nil
}

func run(o options) error {
	config, err := tlsConfig(o)
	if err != nil {
		return err
	}
	logs, err := os.OpenRoot(o.logs)
	if err != nil {
		return err
	}
	defer logs.Close()
	n := newNode()
	server := &http.Server{
		Addr:              o.listen,
		Handler:           routes(n, logs),
		TLSConfig:         config,
		ReadHeaderTimeout: 10 * time.Second,
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, func() { server.Close() })
	err = server.ListenAndServeTLS("", "")
	n.close()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func main() {
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)
	if err := run(parseOptions()); err != nil {
		log.Fatalf("kubelet: %v", err)
	}
}
