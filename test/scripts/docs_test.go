package scripts

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// commands are the lines of a page's indented blocks that run frazil.
func commands(t *testing.T, page string) (all []string) {
	t.Helper()
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		command, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "    ")
		if command = strings.TrimPrefix(command, "bin/"); ok && strings.HasPrefix(command, "frazil ") {
			all = append(all, command)
		}
	}
	return all
}

// lasting are commands that go on until they are interrupted.
func lasting(command string) bool {
	return strings.Contains(command, "--watch") || strings.Contains(command, "--serve") ||
		strings.HasPrefix(command, "frazil run") && !strings.Contains(command, "--available-now")
}

// TestDocs runs each command of the pages, in order, as a reader would, with a
// broker in place of localhost:9092.
func TestDocs(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for page, least := range map[string]int{"../../README.md": 6, "../../docs/cli.md": 15, "../../examples/etl/README.md": 6, "../../examples/changes/README.md": 2} {
		t.Run(filepath.Base(filepath.Dir(page))+"/"+filepath.Base(page), func(t *testing.T) {
			all := commands(t, page)
			if len(all) < least {
				t.Fatalf("only %d commands were found: %q", len(all), all)
			}
			dir, bin := t.TempDir(), t.TempDir()
			if err := os.Symlink(self, filepath.Join(bin, "frazil")); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(dir, "examples"), os.DirFS("../../examples")); err != nil {
				t.Fatal(err)
			}
			broker := clicksBroker(t)
			for _, command := range all {
				command = strings.ReplaceAll(command, "localhost:9092", broker)
				command = strings.ReplaceAll(command, "127.0.0.1:8080", "127.0.0.1:0")
				cmd := exec.Command("sh", "-c", "exec "+command)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+dir)
				if err := runCommand(cmd, lasting(command)); err != nil {
					t.Fatalf("%s: %v", command, err)
				}
			}
		})
	}
}

// clicksBroker is an embedded Kafka with a topic of clicks.
func clicksBroker(t *testing.T) string {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "clicks"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("clicks"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for i := range 100 {
		record := &kgo.Record{Value: fmt.Appendf(nil, `{"id":%d,"kind":"a"}`, i)}
		if err := client.ProduceSync(context.Background(), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	return c.ListenAddrs()[0]
}

// signs is a buffer that tells when something new was written to it.
type signs struct {
	mu   sync.Mutex
	all  bytes.Buffer
	news chan struct{}
}

func (s *signs) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.news <- struct{}{}:
	default:
	}
	return s.all.Write(p)
}

func (s *signs) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.String()
}

// runCommand runs a command to its end; one that lasts is interrupted when it has
// shown something on the standard output, and must end in order.
func runCommand(cmd *exec.Cmd, lasts bool) error {
	out, errOut := &signs{news: make(chan struct{}, 1)}, &signs{news: make(chan struct{}, 1)}
	cmd.Stdout, cmd.Stderr = out, errOut
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	if lasts {
		select {
		case <-out.news:
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				return err
			}
		case err := <-done:
			return fmt.Errorf("it ended by itself: %w\n%s", err, errOut)
		}
	}
	if err := <-done; err != nil {
		return fmt.Errorf("%w\n%s\n%s", err, out, errOut)
	}
	return nil
}
