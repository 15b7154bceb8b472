//go:build integration

package servers

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
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

// runMax is how long a download or a build may take.
const runMax = 15 * time.Minute

func run(t testing.TB, dir string, env []string, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out.String())
	}
}

// once makes a folder of the cache if it was not finished before. Two test
// processes may ask for it at once: one of them waits.
func once(t testing.TB, name string, fill func(dir string)) string {
	t.Helper()
	dir := filepath.Join(Cache(t), name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }() // the lock ends with it
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatalf("lock %s: %v", lock.Name(), err)
	}
	done := filepath.Join(dir, ".done")
	if _, err := os.Stat(done); err == nil {
		return dir
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
		need(t, "java", "install Java 17, which Kafka and the REST catalog run on; or set FRAZIL_TEST_DOCKER=1 where Docker can pull their images")
		need(t, "mvn", "install Maven, which fetches Kafka and the REST catalog; or set FRAZIL_TEST_DOCKER=1 where Docker can pull their images")
		data, err := os.ReadFile(pom)
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(dir, "pom.xml")
		if err := os.WriteFile(copied, data, 0o644); err != nil {
			t.Fatal(err)
		}
		run(t, dir, nil, "mvn", "-q", "-B", "-f", copied, "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+dir)
	})
}

// Python returns the interpreter of an environment with the readers, and with a
// producer that has serializers of its own. A change of the packages takes another
// name: an environment that is there is used as it is.
func Python(t testing.TB) string {
	t.Helper()
	dir := once(t, "venv-2", func(dir string) {
		need(t, "python3", "install Python 3.11 or newer with venv; topics are written with confluent-kafka, and tables read back with pyiceberg and DuckDB")
		run(t, dir, nil, "python3", "-m", "venv", dir)
		run(t, dir, nil, filepath.Join(dir, "bin", "pip"), "install", "-q", "pyiceberg[pyarrow,s3fs]==0.12.*", "duckdb==1.5.5",
			"duckdb-extension-iceberg==1.5.5", "duckdb-extension-avro==1.5.5", "duckdb-extension-httpfs==1.5.5", "duckdb-extensions",
			"confluent-kafka[avro,protobuf,json]==2.16.*", "grpcio-tools==1.85.*", "googleapis-common-protos==1.76.*")
	})
	return filepath.Join(dir, "bin", "python3")
}
