package main

import (
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// followInterval is how often a followed log is looked at for new lines.
const followInterval = 20 * time.Millisecond

// containerLogs serves log files from one directory, out of which no path leads.
type containerLogs struct{ root *os.Root }

func (l containerLogs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := path.Join(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")+".log")
	file, err := l.root.Open(name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	defer file.Close()
	if err := writeLog(w, file, r.FormValue("tailLines")); err != nil {
		return // the reader has gone: nobody is left to tell
	}
	if r.FormValue("follow") == "true" {
		l.follow(w, r, file, name)
	}
}

// writeLog writes what the log holds now: all of it, or its last lines.
func writeLog(w io.Writer, file fs.File, tailLines string) error {
	if tailLines == "" {
		_, err := io.Copy(w, file)
		return err
	}
	count, err := strconv.Atoi(tailLines)
	if err != nil || count < 0 {
		count = 0
	}
	content, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	lines := strings.SplitAfter(string(content), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	_, err = io.WriteString(w, strings.Join(lines[max(0, len(lines)-count):], ""))
	return err
}

// follow writes new lines until the log is marked as done or the reader goes away.
func (l containerLogs) follow(w http.ResponseWriter, r *http.Request, file io.Reader, name string) {
	controller := http.NewResponseController(w)
	for controller.Flush() == nil {
		// Looked at before the last read, so that no line written before the mark is lost.
		_, notDone := l.root.Stat(name + ".done")
		written, err := io.Copy(w, file)
		if err != nil || (written == 0 && notDone == nil) {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(followInterval):
		}
	}
}
