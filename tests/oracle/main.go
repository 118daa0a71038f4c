// oracle says what kube-apiserver makes of requests: it reads lines of JSON with method and target, and answers each with
// a line that holds the fields of k8s.io/apiserver's RequestInfo, or an error.
package main

import (
	"bufio"
	"encoding/json"
	"log"
	"net/http"
	"net/url"
	"os"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
)

type question struct {
	Method string `json:"method"`
	Target string `json:"target"`
}

type answer struct {
	Error             string `json:"error,omitempty"`
	IsResourceRequest bool   `json:"is_resource_request"`
	Path              string `json:"path"`
	Verb              string `json:"verb"`
	APIPrefix         string `json:"api_prefix"`
	APIGroup          string `json:"api_group"`
	APIVersion        string `json:"api_version"`
	Namespace         string `json:"namespace"`
	Resource          string `json:"resource"`
	Subresource       string `json:"subresource"`
	Name              string `json:"name"`
}

func main() {
	// As kube-apiserver builds it: k8s.io/apiserver, pkg/server/config.go, NewRequestInfoResolver.
	factory := &request.RequestInfoFactory{
		APIPrefixes:          sets.NewString("api", "apis"),
		GrouplessAPIPrefixes: sets.NewString("api"),
	}
	out := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			log.Fatal(err)
		}
		if err := out.Encode(ask(factory, q)); err != nil {
			log.Fatal(err)
		}
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
}

func ask(factory *request.RequestInfoFactory, q question) answer {
	target, err := url.ParseRequestURI(q.Target) // what net/http does with a request line
	if err != nil {
		return answer{Error: err.Error()}
	}
	info, err := factory.NewRequestInfo(&http.Request{Method: q.Method, URL: target})
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{
		IsResourceRequest: info.IsResourceRequest,
		Path:              info.Path,
		Verb:              info.Verb,
		APIPrefix:         info.APIPrefix,
		APIGroup:          info.APIGroup,
		APIVersion:        info.APIVersion,
		Namespace:         info.Namespace,
		Resource:          info.Resource,
		Subresource:       info.Subresource,
		Name:              info.Name,
	}
}
