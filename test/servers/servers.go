//go:build integration

// Package servers starts the real servers of the integration tests and the
package servers

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Keys of the S3 server.
const (
	S3Key    = "admin"
	S3Secret = "password123"
	Bucket   = "warehouse"
)

// Cache is where jars, binaries and the readers' environment are kept.
func Cache(t testing.TB) string {
	t.Helper()
	base, err := os.UserCacheDir()
	if err != nil {
		t.Fatalf("no cache folder: %v", err)
	}
	return filepath.Join(base, "frazil-test")
}

// need fails the test if a program is missing.
func need(t testing.TB, name, why string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is missing: %s", name, why)
	}
}

func run(t testing.TB, dir string, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

// once makes a folder of the cache if it was not finished before.
func once(t testing.TB, name string, fill func(dir string)) string {
	t.Helper()
	dir := filepath.Join(Cache(t), name)
	done := filepath.Join(dir, ".done")
	if _, err := os.Stat(done); err == nil {
		return dir
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fill(dir)
	if err := os.WriteFile(done, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// jars fetches what a POM names.
func jars(t testing.TB, name, pom string) string {
	t.Helper()
	return once(t, name, func(dir string) {
		need(t, "java", "install Java 17")
		need(t, "mvn", "install Maven")
		path, err := filepath.Abs(pom)
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(dir, "pom.xml")
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied, data, 0o644); err != nil {
			t.Fatal(err)
		}
		run(t, dir, nil, "mvn", "-q", "-B", "-f", copied, "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+dir)
	})
}

// Python returns the interpreter of an environment with the readers.
func Python(t testing.TB) string {
	t.Helper()
	dir := once(t, "venv", func(dir string) {
		need(t, "python3", "install Python 3.11 with venv")
		run(t, dir, nil, "python3", "-m", "venv", dir)
		run(t, dir, nil, filepath.Join(dir, "bin", "pip"), "install", "-q", "pyiceberg[pyarrow,s3fs]==0.12.*", "duckdb==1.5.5",
			"duckdb-extension-iceberg==1.5.5", "duckdb-extension-avro==1.5.5", "duckdb-extension-httpfs==1.5.5", "duckdb-extensions")
	})
	return filepath.Join(dir, "bin", "python3")
}

// Port returns a free port.
func Port(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// process is a server that ends with the test, and with the test's process.
type process struct {
	cmd *exec.Cmd
	log string
}

func start(t testing.TB, log string, env []string, name string, args ...string) *process {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	p := &process{cmd, log}
	t.Cleanup(p.stop)
	return p
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// listening waits until something accepts connections.
func (p *process) listening(t testing.TB, port int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second); err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			data, _ := os.ReadFile(p.log)
			t.Fatalf("nothing listens on port %d; the log says:\n%s", port, data[max(0, len(data)-4000):])
		}
	}
}

// Kafka is one broker.
type Kafka struct {
	dir, jars string
	port      int
	process   *process
}

// StartKafka starts Apache Kafka 4.3.1. poms is the folder of the POM files.
func StartKafka(t testing.TB, poms string) *Kafka {
	t.Helper()
	k := &Kafka{dir: t.TempDir(), jars: jars(t, "kafka-4.3.1", filepath.Join(poms, "kafka.pom.xml")), port: Port(t)}
	controller := Port(t)
	properties := fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:%[2]d
listeners=PLAINTEXT://127.0.0.1:%[1]d,CONTROLLER://127.0.0.1:%[2]d
advertised.listeners=PLAINTEXT://127.0.0.1:%[1]d
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=%[3]s/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
log.cleaner.backoff.ms=500
log.retention.check.interval.ms=2000
`, k.port, controller, k.dir)
	log4j := "rootLogger.level=warn\nrootLogger.appenderRef.s.ref=s\nappender.s.type=Console\nappender.s.name=s\nappender.s.layout.type=PatternLayout\nappender.s.layout.pattern=%d %p %c{1} %m%n\n"
	for name, text := range map[string]string{"server.properties": properties, "log4j2.properties": log4j} {
		if err := os.WriteFile(filepath.Join(k.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	id := strings.TrimSpace(k.java(t, "kafka.tools.StorageTool", "random-uuid"))
	k.java(t, "kafka.tools.StorageTool", "format", "-t", id, "-c", filepath.Join(k.dir, "server.properties"))
	k.up(t)
	return k
}

func (k *Kafka) args(main string, args ...string) []string {
	return append([]string{"-Xms512m", "-Xmx1g", "-Dlog4j2.configurationFile=" + filepath.Join(k.dir, "log4j2.properties"), "-cp", k.jars + "/*", main}, args...)
}

func (k *Kafka) java(t testing.TB, main string, args ...string) string {
	t.Helper()
	return run(t, k.dir, nil, "java", k.args(main, args...)...)
}

func (k *Kafka) up(t testing.TB) {
	t.Helper()
	k.process = start(t, filepath.Join(k.dir, "kafka.log"), nil, "java", k.args("kafka.Kafka", filepath.Join(k.dir, "server.properties"))...)
	k.process.listening(t, k.port)
}

// Restart kills the broker and starts it on the same data.
func (k *Kafka) Restart(t testing.TB) {
	t.Helper()
	k.process.stop()
	k.up(t)
}

// Addr is the broker's address.
func (k *Kafka) Addr() string { return fmt.Sprintf("127.0.0.1:%d", k.port) }

// StartS3 starts a server over plain files and returns its endpoint.
func StartS3(t testing.TB) string {
	t.Helper()
	bin := once(t, "versitygw-v1.8.0", func(dir string) {
		run(t, dir, []string{"GOBIN=" + dir, "GOFLAGS="}, "go", "install", "github.com/versity/versitygw/cmd/versitygw@v1.8.0")
	})
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "s3", Bucket), 0o755); err != nil {
		t.Fatal(err)
	}
	port := Port(t)
	start(t, filepath.Join(dir, "s3.log"), nil, filepath.Join(bin, "versitygw"), "--port", fmt.Sprintf("127.0.0.1:%d", port),
		"--access", S3Key, "--secret", S3Secret, "posix", filepath.Join(dir, "s3")).listening(t, port)
	return fmt.Sprintf("http://127.0.0.1:%d", port)
}

// StartREST starts the Java reference of the REST catalog over an S3 server and
// returns its address.
func StartREST(t testing.TB, poms, s3 string) string {
	t.Helper()
	classes := jars(t, "iceberg-rest-1.11.0", filepath.Join(poms, "rest.pom.xml"))
	dir := t.TempDir()
	port := Port(t)
	env := []string{
		"AWS_REGION=us-east-1", "CATALOG_CATALOG__IMPL=org.apache.iceberg.jdbc.JdbcCatalog", "CATALOG_URI=jdbc:sqlite:" + filepath.Join(dir, "catalog.db"),
		"CATALOG_JDBC_USER=u", "CATALOG_JDBC_PASSWORD=p", "CATALOG_WAREHOUSE=s3://" + Bucket + "/w", "CATALOG_IO__IMPL=org.apache.iceberg.aws.s3.S3FileIO",
		"CATALOG_S3_ENDPOINT=" + s3, "CATALOG_S3_ACCESS__KEY__ID=" + S3Key, "CATALOG_S3_SECRET__ACCESS__KEY=" + S3Secret, "CATALOG_S3_PATH__STYLE__ACCESS=true",
		"CATALOG_CLIENT_REGION=us-east-1", fmt.Sprintf("CATALOG_REST_PORT=%d", port),
	}
	start(t, filepath.Join(dir, "rest.log"), env, "java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classes+"/*", "org.apache.iceberg.rest.RESTCatalogServer").listening(t, port)
	return fmt.Sprintf("http://127.0.0.1:%d", port)
}
