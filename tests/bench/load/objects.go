package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
)

const namespace = "bench"

// sizeLabel tells the objects of one size from those of another.
const sizeLabel = "bench-size"

// prepare creates the objects that are listed and the namespace that everything happens in.
func prepare(ctx context.Context, w *work) (result, error) {
	_, err := w.client.CoreV1().Namespaces().Create(
		ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return result{}, err
	}
	var group sync.WaitGroup
	results := make([]result, 8)
	start := time.Now()
	for i := range results {
		group.Go(func() {
			for number := i; number < w.count; number += len(results) {
				name := fmt.Sprintf("listed-%d-%d", w.size, number)
				results[i].add(func() (int64, error) { return 0, createConfigMap(ctx, w, name, w.size) })
			}
		})
	}
	group.Wait()
	return merge(results, time.Since(start)), nil
}

func createConfigMap(ctx context.Context, w *work, name string, size int) error {
	labels := map[string]string{sizeLabel: strconv.Itoa(size)}
	_, err := w.client.CoreV1().ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Data:       map[string]string{"data": noise(size)},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// noise is text that does not compress well.
func noise(size int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	var text strings.Builder
	for range size {
		text.WriteByte(letters[rand.IntN(len(letters))])
	}
	return text.String()
}

func getNamespace(ctx context.Context, w *work) (result, error) {
	read := func(int) (int64, error) {
		_, err := w.client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{})
		return 0, err
	}
	if _, err := read(0); err != nil { // connects
		return result{}, err
	}
	return repeat(w, read), nil
}

// createUpdateDelete takes one ConfigMap after the other through its life; each step is an operation.
func createUpdateDelete(ctx context.Context, w *work) (result, error) {
	maps := w.client.CoreV1().ConfigMaps(namespace)
	results := make([]result, w.clients)
	start := time.Now()
	var group sync.WaitGroup
	for i := range results {
		group.Go(func() {
			seen := &results[i]
			for range w.count / w.clients {
				object := &corev1.ConfigMap{
					ObjectMeta: metav1.ObjectMeta{Name: "changed-" + utilrand.String(10)},
					Data:       map[string]string{"key": "value"},
				}
				seen.add(func() (n int64, err error) { object, err = maps.Create(ctx, object, metav1.CreateOptions{}); return })
				object.Data["key"] = "changed"
				seen.add(func() (n int64, err error) { object, err = maps.Update(ctx, object, metav1.UpdateOptions{}); return })
				seen.add(func() (int64, error) { return 0, maps.Delete(ctx, object.Name, metav1.DeleteOptions{}) })
			}
		})
	}
	group.Wait()
	return merge(results, time.Since(start)), nil
}

// listConfigMaps lists the objects of one size and counts bytes; nothing is decoded, which would cost more than all else.
func listConfigMaps(ctx context.Context, w *work) (result, error) {
	return repeat(w, func(int) (int64, error) {
		body, err := w.client.CoreV1().RESTClient().Get().Namespace(namespace).Resource("configmaps").
			Param("labelSelector", fmt.Sprintf("%s=%d", sizeLabel, w.size)).
			SetHeader("Accept-Encoding", "identity").Stream(ctx)
		if err != nil {
			return 0, err
		}
		defer body.Close()
		return io.Copy(io.Discard, body)
	}), nil
}

// upload sends a body that the cluster reads whole and keeps nothing of.
func upload(ctx context.Context, w *work) (result, error) {
	body := []byte(fmt.Sprintf(
		`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview","padding":%q}`, noise(w.size)))
	return repeat(w, func(int) (int64, error) {
		err := w.client.AuthenticationV1().RESTClient().Post().Resource("selfsubjectreviews").
			SetHeader("Content-Type", "application/json").Body(bytes.Clone(body)).Do(ctx).Error()
		return int64(len(body)), err
	}), nil
}
