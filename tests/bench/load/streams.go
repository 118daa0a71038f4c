package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
)

// watchConfigMaps opens watches, says so with a line, waits for a line on standard input, and then measures how long
// one new object takes to reach each of them.
func watchConfigMaps(ctx context.Context, w *work) (result, error) {
	name := "watched-" + utilrand.String(10)
	options := metav1.ListOptions{FieldSelector: "metadata.name=" + name}
	maps := w.client.CoreV1().ConfigMaps(namespace)
	watches := make([]watch.Interface, w.count)
	results := make([]result, w.count)
	start := time.Now()
	var group sync.WaitGroup
	places := make(chan struct{}, 32)
	for i := range watches {
		group.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			var err error
			if watches[i], err = maps.Watch(ctx, options); err != nil {
				results[i].errors++
				fmt.Fprintln(os.Stderr, err)
			}
		})
	}
	group.Wait()
	opened := time.Since(start)
	fmt.Printf("{\"opened_seconds\": %f}\n", opened.Seconds())
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return result{}, err
	}
	start = time.Now()
	for i, one := range watches {
		if one != nil {
			group.Go(func() { results[i].await(one, start) })
		}
	}
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := maps.Create(ctx, object, metav1.CreateOptions{}); err != nil {
		return result{}, err
	}
	group.Wait()
	seen := merge(results, time.Since(start))
	return seen, maps.Delete(ctx, name, metav1.DeleteOptions{})
}

// await waits for the one event of a watch.
func (r *result) await(one watch.Interface, start time.Time) {
	defer one.Stop()
	select {
	case event := <-one.ResultChan():
		if event.Type != watch.Added {
			r.errors++
		}
	case <-time.After(30 * time.Second):
		r.errors++
	}
	r.latencies = append(r.latencies, time.Since(start))
}

// execRoundTrips lets `cat` in a container send back one line after the other.
func execRoundTrips(ctx context.Context, w *work) (result, error) {
	request := w.client.CoreV1().RESTClient().Post().Namespace("default").Resource("pods").Name("bench").
		SubResource("exec").VersionedParams(&corev1.PodExecOptions{
		Command: []string{"cat"}, Stdin: true, Stdout: true,
	}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(w.config, "GET", request.URL().String())
	if err != nil {
		return result{}, err
	}
	inReader, in := io.Pipe()
	out, outWriter := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: inReader, Stdout: outWriter})
	}()
	lines := bufio.NewReader(out)
	seen := repeat(w, func(int) (int64, error) {
		if _, err := io.WriteString(in, "a line there and back\n"); err != nil {
			return 0, err
		}
		line, err := lines.ReadString('\n')
		return int64(len(line)), err
	})
	in.Close()
	return seen, <-ended
}
