// load sends GET requests for one namespace, as client-go users do (protobuf, keep-alive, HTTP/2 where offered), and
// prints one line of JSON: requests, errors, seconds, p50_ms and p99_ms.
//
//	load -kubeconfig FILE -context NAME -clients 16 -seconds 5
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

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

type result struct {
	latencies []time.Duration
	errors    int
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "path of a kubeconfig")
	kubecontext := flag.String("context", "", "context; the current one by default")
	clients := flag.Int("clients", 1, "concurrent clients")
	seconds := flag.Float64("seconds", 5, "how long to send")
	flag.Parse()

	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: *kubeconfig},
		&clientcmd.ConfigOverrides{CurrentContext: *kubecontext}).ClientConfig()
	if err != nil {
		log.Fatal(err)
	}
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if _, err := client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{}); err != nil {
		log.Fatal(err)
	}

	results := make([]result, *clients)
	start := time.Now()
	end := start.Add(time.Duration(*seconds * float64(time.Second)))
	var group sync.WaitGroup
	for i := range results {
		group.Go(func() { results[i] = send(ctx, client, end) })
	}
	group.Wait()
	if err := report(results, time.Since(start)); err != nil {
		log.Fatal(err)
	}
}

func send(ctx context.Context, client kubernetes.Interface, end time.Time) (r result) {
	for time.Now().Before(end) {
		start := time.Now()
		if _, err := client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{}); err != nil {
			if r.errors++; r.errors == 1 {
				fmt.Fprintln(os.Stderr, err)
			}
		}
		r.latencies = append(r.latencies, time.Since(start))
	}
	return r
}

func report(results []result, elapsed time.Duration) error {
	var all []time.Duration
	errors := 0
	for _, r := range results {
		all = append(all, r.latencies...)
		errors += r.errors
	}
	slices.Sort(all)
	at := func(share float64) float64 { return float64(all[int(share*float64(len(all)-1))].Microseconds()) / 1000 }
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests": len(all), "errors": errors, "seconds": elapsed.Seconds(), "p50_ms": at(0.5), "p99_ms": at(0.99),
	})
}
