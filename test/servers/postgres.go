//go:build integration

package servers

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the pgx driver
)

// PostgresPassword is that of the superuser of StartPostgres.
const PostgresPassword = "frazil-secret"

// StartPostgres starts a PostgreSQL server with a cluster of its own and returns
// the address of its database, with user and password. The server refuses to
// run as root, so root starts it as the user postgres of the package.
func StartPostgres(t testing.TB) (dsn string) {
	t.Helper()
	bin := postgresBin(t)
	// Not t.TempDir: only its owner may enter that, and the server is another.
	dir, err := os.MkdirTemp("", "frazil-postgres-") //nolint:usetesting // as said above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if os.Geteuid() == 0 {
		attr.Credential = postgresUser(t)
		if err := os.Chown(dir, int(attr.Credential.Uid), int(attr.Credential.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte(PostgresPassword), 0o644); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "frazil", "--pwfile", password, "--auth=scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C")
	initdb.Dir, initdb.SysProcAttr = dir, &syscall.SysProcAttr{Credential: attr.Credential}
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	port := Port(t)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the server has its own
	cmd := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-k", "", "-F")
	cmd.Dir, cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = dir, attr, log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start postgres: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGQUIT) // ends its children, too
		_ = cmd.Wait()
	})
	dsn = fmt.Sprintf("postgres://frazil:%s@127.0.0.1:%d/postgres?sslmode=disable", PostgresPassword, port)
	waitPostgres(t, dsn, log.Name())
	return dsn
}

// postgresBin is the folder with initdb and postgres. Debian keeps them out of
// the path.
func postgresBin(t testing.TB) string {
	t.Helper()
	folders, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is right
	slices.Sort(folders)
	slices.Reverse(folders)
	if path, err := exec.LookPath("initdb"); err == nil {
		folders = append([]string{filepath.Dir(path)}, folders...)
	}
	for _, dir := range folders {
		_, server := os.Stat(filepath.Join(dir, "postgres"))
		_, initdb := os.Stat(filepath.Join(dir, "initdb"))
		if server == nil && initdb == nil {
			return dir
		}
	}
	t.Fatal("PostgreSQL is missing: install its server (apt-get install postgresql), or put initdb and postgres on the PATH")
	return ""
}

func postgresUser(t testing.TB) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatalf("PostgreSQL does not run as root, and there is no user postgres: %v; install the package postgresql, or test as another user", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// waitPostgres waits until the server answers a query.
func waitPostgres(t testing.TB, dsn, log string) {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err = db.PingContext(ctx); err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			said, _ := os.ReadFile(log)
			t.Fatalf("PostgreSQL does not answer: %v; its log says:\n%s", err, said[max(0, len(said)-4000):])
		}
	}
}
