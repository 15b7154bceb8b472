//go:build integration

package servers

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// server is a process or a container.
type server interface {
	// kill ends it at once; what it wrote stays.
	kill(t testing.TB)
	// log returns the end of what it said.
	log() string
}

// logMax is how much of a server's log a failure shows.
const logMax = 4000

func tail(s string) string { return s[max(0, len(s)-logMax):] }

// Port returns a free port.
func Port(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// process is a server that ends with the test, and with the test's process.
type process struct {
	cmd  *exec.Cmd
	path string // of its log
}

func start(t testing.TB, log string, env []string, name string, args ...string) *process {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }() // the process has its own
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	p := &process{cmd, log}
	t.Cleanup(func() { p.kill(t) })
	return p
}

func (p *process) kill(testing.TB) {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *process) log() string {
	data, err := os.ReadFile(p.path)
	if err != nil {
		return err.Error()
	}
	return tail(string(data))
}

// startMax is how long a server may take until it answers.
const startMax = 2 * time.Minute

// wait tries until a server answers.
func wait(t testing.TB, s server, what string, answers func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startMax)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := answers()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s does not answer within %s: %v; its log says:\n%s", what, startMax, err, s.log())
		}
	}
}

// listens says whether something accepts connections.
func listens(address string) func() error {
	return func() error {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err
	}
}

// speaks says whether an HTTP server answers, whatever it says. A container's
// port accepts connections before there is anyone behind it.
func speaks(url string) func() error {
	client := &http.Client{Timeout: 5 * time.Second}
	return func() error {
		r, err := client.Get(url)
		if err == nil {
			_ = r.Body.Close()
		}
		return err
	}
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
