package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	routingv1 "load/gen/clustergateway/routing/v1"
)

// exchangeOptions say how a core is reached without the hub in between.
type exchangeOptions struct {
	address, ca, certificate, key, cluster string
}

// exchangeTransport sends HTTP requests as exchanges of RoutingService; each is one call.
type exchangeTransport struct {
	client  routingv1.RoutingServiceClient
	cluster string
}

func newExchangeTransport(options exchangeOptions) (http.RoundTripper, error) {
	certificate, err := tls.LoadX509KeyPair(options.certificate, options.key)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(options.ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	connection, err := grpc.NewClient(options.address, grpc.WithTransportCredentials(credentials.NewTLS(
		&tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: roots})))
	if err != nil {
		return nil, err
	}
	return &exchangeTransport{client: routingv1.NewRoutingServiceClient(connection), cluster: options.cluster}, nil
}

// RoundTrip sends one request.
func (t *exchangeTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(request.Context())
	stream, err := t.client.Exchange(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	if err := send(stream, t.cluster, request); err != nil {
		cancel()
		return nil, err
	}
	piece, err := receive(stream)
	if err != nil {
		cancel()
		return nil, err
	}
	header := http.Header{}
	for _, line := range piece.Head.GetHeaders() {
		header.Add(string(line.Name), string(line.Value))
	}
	return &http.Response{
		StatusCode: int(piece.Head.GetStatus()),
		Status:     fmt.Sprintf("%d %s", piece.Head.GetStatus(), piece.Head.GetReason()),
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, ContentLength: -1, Request: request,
		Body: &exchangeBody{stream: stream, cancel: cancel, rest: piece.Body, ended: piece.End != nil},
	}, nil
}

func send(stream routingv1.RoutingService_ExchangeClient, cluster string, request *http.Request) error {
	head := &routingv1.RequestHead{
		ClusterName: cluster, Method: request.Method, Target: []byte(request.URL.RequestURI()),
	}
	for name, values := range request.Header {
		for _, value := range values {
			head.Headers = append(head.Headers, &routingv1.Header{Name: []byte(name), Value: []byte(value)})
		}
	}
	piece := &routingv1.ExchangeRequest{Head: head}
	if request.Body == nil {
		piece.End = &routingv1.RequestEnd{}
		return stream.Send(piece)
	}
	defer request.Body.Close()
	buffer := make([]byte, 512*1024)
	for {
		n, err := io.ReadFull(request.Body, buffer)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		piece.Body = buffer[:n]
		if last {
			piece.End = &routingv1.RequestEnd{}
		}
		if err := stream.Send(piece); err != nil || last {
			return err
		}
		piece = &routingv1.ExchangeRequest{}
	}
}

func receive(stream routingv1.RoutingService_ExchangeClient) (*routingv1.ExchangeResponse, error) {
	piece, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if failure := piece.GetEnd().GetError(); failure != nil {
		return nil, errors.New(failure.GetMessage())
	}
	return piece, nil
}

// exchangeBody is a response's body.
type exchangeBody struct {
	stream routingv1.RoutingService_ExchangeClient
	cancel context.CancelFunc
	rest   []byte
	ended  bool
}

func (b *exchangeBody) Read(into []byte) (int, error) {
	for len(b.rest) == 0 {
		if b.ended {
			return 0, io.EOF
		}
		piece, err := receive(b.stream)
		if err != nil {
			return 0, err
		}
		b.rest, b.ended = piece.Body, piece.End != nil
	}
	n := copy(into, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *exchangeBody) Close() error {
	b.cancel()
	return nil
}
