package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// attachPause keeps an attach without stdin open long enough for its output to be seen.
const attachPause = time.Second

// exitError is the end of a process in the form that the streaming server reports as an exit code.
type exitError struct{ code int }

func (e exitError) Error() string   { return fmt.Sprintf("command terminated with exit code %d", e.code) }
func (e exitError) String() string  { return e.Error() }
func (e exitError) Exited() bool    { return true }
func (e exitError) ExitStatus() int { return e.code }

// exitStatus turns a process's end into an exitError; death by a signal is 128 and its number, as in a shell.
func exitStatus(err error) error {
	var ended *exec.ExitError
	if !errors.As(err, &ended) {
		return err
	}
	if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitError{128 + int(status.Signal())}
	}
	return exitError{ended.ExitCode()}
}

// node answers the streaming server. It remembers the process groups it started, to leave none behind.
type node struct {
	mu     sync.Mutex
	groups map[int]struct{}
	closed bool
}

func newNode() *node { return &node{groups: map[int]struct{}{}} }

// start runs begin, which must start c as the leader of a process group of its own.
func (n *node) start(c *exec.Cmd, begin func() error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return errors.New("the kubelet is stopping")
	}
	if err := begin(); err != nil {
		return err
	}
	n.groups[c.Process.Pid] = struct{}{}
	return nil
}

// wait returns how c ended. The pid is forgotten only then: until it is waited for it cannot be another process's.
func (n *node) wait(c *exec.Cmd) error {
	err := c.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.groups, c.Process.Pid)
	return exitStatus(err)
}

// close kills everything that is still running and refuses what comes later.
func (n *node) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for group := range n.groups {
		_ = syscall.Kill(-group, syscall.SIGKILL)
	}
}

// ExecInContainer runs argv as a local process and returns when it and its output have ended.
func (n *node) ExecInContainer(_ context.Context, _, _, _ string, argv []string, in io.Reader, out, errOut io.WriteCloser,
	tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	if len(argv) == 0 {
		return errors.New("no command was given")
	}
	c := exec.Command(argv[0], argv[1:]...)
	c.Env = append(os.Environ(), "TERM=xterm")
	if tty {
		return n.execTerminal(c, in, out, resize)
	}
	c.SysProcAttr = processGroup()
	// A nil io.WriteCloser in an io.Writer field would not be nil, and the process would write to it.
	if out != nil {
		c.Stdout = out
	}
	if errOut != nil {
		c.Stderr = errOut
	}
	if in != nil {
		// Not c.Stdin: Wait would then wait for the client to close its side, even after the process has ended.
		pipe, err := c.StdinPipe()
		if err != nil {
			return err
		}
		defer pipe.Close()
		go func() {
			_, _ = io.Copy(pipe, in)
			_ = pipe.Close()
		}()
	}
	if err := n.start(c, c.Start); err != nil {
		return err
	}
	return n.wait(c)
}

func (n *node) execTerminal(c *exec.Cmd, in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize) error {
	var terminal *os.File
	err := n.start(c, func() (err error) { // a terminal's process leads a session, and so a group, of its own
		terminal, err = pty.Start(c)
		return err
	})
	if err != nil {
		return err
	}
	defer terminal.Close()
	go func() {
		for size := range resize {
			_ = pty.Setsize(terminal, &pty.Winsize{Rows: size.Height, Cols: size.Width})
		}
	}()
	if in != nil {
		go func() { _, _ = io.Copy(terminal, in) }()
	}
	if out != nil {
		_, _ = io.Copy(out, terminal) // ends, with EIO, when the last holder of the terminal exits
	}
	return n.wait(c)
}

// AttachContainer plays a process that echoes its input line by line.
func (n *node) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, _ io.WriteCloser,
	_ bool, _ <-chan remotecommand.TerminalSize) error {
	var output io.Writer = io.Discard
	if out != nil {
		output = out
	}
	fmt.Fprintln(output, "attached")
	if in == nil {
		select {
		case <-time.After(attachPause):
		case <-ctx.Done():
		}
		return nil
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		fmt.Fprintf(output, "got:%s\n", lines.Text())
	}
	return lines.Err()
}

// PortForward joins the stream to a port of this host.
func (n *node) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return fmt.Errorf("failed to connect to port %d: %w", port, err)
	}
	defer conn.Close()
	defer stream.Close()
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(stream, conn)
		done <- err
	}()
	go func() {
		_, _ = io.Copy(conn, stream)
		_ = conn.(*net.TCPConn).CloseWrite() // the client has finished; the server may still answer
	}()
	return <-done
}
