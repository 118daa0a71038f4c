// load does one kind of work against one cluster, as client-go users do it (protobuf, keep-alive, HTTP/2 where
// offered), and prints what it saw as a line of JSON.
//
//	load -kubeconfig FILE -context NAME -case get -clients 16 -seconds 5
//	load -grpc ADDRESS -ca FILE -cert FILE -key FILE -cluster NAME -case list ...
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// work is what every case gets.
type work struct {
	config  *rest.Config
	client  kubernetes.Interface
	clients int
	seconds float64
	count   int
	size    int
}

// result is what a case saw; latencies are of single operations.
type result struct {
	latencies []time.Duration
	errors    int
	bytes     int64
	elapsed   time.Duration
}

var cases = map[string]func(context.Context, *work) (result, error){
	"prepare": prepare,
	"get":     getNamespace,
	"crud":    createUpdateDelete,
	"list":    listConfigMaps,
	"watch":   watchConfigMaps,
	"exec":    execRoundTrips,
	"upload":  upload,
}

func main() {
	var w work
	var kubeconfig, kubecontext, name string
	var direct exchangeOptions
	flag.StringVar(&kubeconfig, "kubeconfig", "", "path of a kubeconfig")
	flag.StringVar(&kubecontext, "context", "", "context; the current one by default")
	flag.StringVar(&direct.address, "grpc", "", "host:port of a core; instead of a kubeconfig")
	flag.StringVar(&direct.ca, "ca", "", "CA of the core's certificate")
	flag.StringVar(&direct.certificate, "cert", "", "client certificate for the core")
	flag.StringVar(&direct.key, "key", "", "its key")
	flag.StringVar(&direct.cluster, "cluster", "", "cluster to reach through the core")
	flag.StringVar(&name, "case", "get", "prepare, get, crud, list, watch, exec or upload")
	flag.IntVar(&w.clients, "clients", 1, "concurrent clients")
	flag.Float64Var(&w.seconds, "seconds", 5, "how long to work")
	flag.IntVar(&w.count, "count", 100, "objects (prepare, list, crud) or watches")
	flag.IntVar(&w.size, "size", 100, "bytes of an object (prepare, list) or of an upload")
	flag.Parse()

	run, known := cases[name]
	if !known {
		log.Fatalf("there is no case %q", name)
	}
	config, err := clientConfig(kubeconfig, kubecontext, direct)
	if err != nil {
		log.Fatal(err)
	}
	w.config = config
	if w.client, err = kubernetes.NewForConfig(config); err != nil {
		log.Fatal(err)
	}
	seen, err := run(context.Background(), &w)
	if err != nil {
		log.Fatal(err)
	}
	if err := report(seen); err != nil {
		log.Fatal(err)
	}
}

func clientConfig(kubeconfig, kubecontext string, direct exchangeOptions) (*rest.Config, error) {
	config := &rest.Config{Host: "http://core"}
	var err error
	if direct.address != "" {
		config.Transport, err = newExchangeTransport(direct)
	} else {
		config, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
			&clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig},
			&clientcmd.ConfigOverrides{CurrentContext: kubecontext}).ClientConfig()
	}
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	return config, nil
}

// repeat lets each client do an operation again and again until the time is up; it returns the bytes that it moved.
func repeat(w *work, operation func(client int) (int64, error)) result {
	results := make([]result, w.clients)
	start := time.Now()
	end := start.Add(time.Duration(w.seconds * float64(time.Second)))
	var group sync.WaitGroup
	for i := range results {
		group.Go(func() {
			for time.Now().Before(end) {
				results[i].add(func() (int64, error) { return operation(i) })
			}
		})
	}
	group.Wait()
	return merge(results, time.Since(start))
}

func (r *result) add(operation func() (int64, error)) {
	start := time.Now()
	moved, err := operation()
	if err != nil {
		if r.errors++; r.errors == 1 {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	r.bytes += moved
	r.latencies = append(r.latencies, time.Since(start))
}

func merge(results []result, elapsed time.Duration) result {
	all := result{elapsed: elapsed}
	for _, r := range results {
		all.latencies = append(all.latencies, r.latencies...)
		all.errors += r.errors
		all.bytes += r.bytes
	}
	return all
}

func report(seen result) error {
	slices.Sort(seen.latencies)
	at := func(share float64) float64 {
		if len(seen.latencies) == 0 {
			return 0
		}
		return float64(seen.latencies[int(share*float64(len(seen.latencies)-1))].Microseconds()) / 1000
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"operations": len(seen.latencies), "errors": seen.errors, "seconds": seen.elapsed.Seconds(),
		"bytes": seen.bytes, "p50_ms": at(0.5), "p99_ms": at(0.99),
	})
}
