package lake

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
)

// TestCommitKeepsNoBuilder: the metadata that a commit returns does not keep
// alive what its snapshot was built in; of a thousand generations of metadata
// each would hold the one before.
func TestCommitKeepsNoBuilder(t *testing.T) {
	c, err := open(t, Options{Type: "sql", URI: filepath.Join(t.TempDir(), "c.db"), Warehouse: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, c)
	type builder struct {
		schema int
		_      [1 << 20]byte
	}
	freed := make(chan struct{})
	commit := func() table.Metadata {
		b := &builder{}
		runtime.AddCleanup(b, func(c chan struct{}) { close(c) }, freed)
		s := &table.Snapshot{
			SnapshotID: 7, SequenceNumber: 1, TimestampMs: 4102444800000, ManifestList: "file:///none", Summary: &table.Summary{Operation: table.OpAppend},
			SchemaID: &b.schema,
		}
		meta, err := c.Commit(t.Context(), ident, nil, []table.Update{table.NewAddSnapshotUpdate(s)})
		if err != nil {
			t.Fatal(err)
		}
		return meta
	}
	meta := commit()
	for range 20 {
		runtime.GC()
		select {
		case <-freed:
			runtime.KeepAlive(meta)
			return
		default:
			runtime.Gosched()
		}
	}
	t.Fatalf("the builder is alive beside %d snapshots", len(meta.Snapshots()))
}

// TestTwoProcessesOneSQLite: whoever finds the file locked waits, and does not
// fail.
func TestTwoProcessesOneSQLite(t *testing.T) {
	file, warehouse := filepath.Join(t.TempDir(), "c.db"), t.TempDir()
	var group sync.WaitGroup
	for p := range 3 {
		c, err := open(t, Options{Type: "sql", URI: file, Warehouse: warehouse})
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			for i := range 20 {
				if err := c.CreateNamespace(t.Context(), table.Identifier{fmt.Sprint("n", p, "x", i)}, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

// TestConflict: that another commit came first is found by looking, whatever the
// error is; a SQL catalog's is a plain one.
func TestConflict(t *testing.T) {
	c, err := open(t, Options{Type: "sql", URI: filepath.Join(t.TempDir(), "c.db"), Warehouse: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, c)
	wrong := int64(42)
	_, err = c.Commit(t.Context(), ident, []table.Requirement{table.AssertRefSnapshotID("main", &wrong)},
		[]table.Update{table.NewSetPropertiesUpdate(iceberg.Properties{"a": "b"})})
	if !errors.Is(err, batch.ErrUnavailable) {
		t.Fatalf("error %v", err)
	}
	if tbl, err := c.Load(t.Context(), ident); err != nil || tbl.Properties()["a"] != "" {
		t.Fatalf("it was applied, %v", err)
	}
}

// TestCatalogFileReplaced: SQLite goes on in a file that was deleted, where nobody
// else looks; that is noticed at the next load and at the next commit.
func TestCatalogFileReplaced(t *testing.T) {
	for name, change := range map[string]func(file string) error{
		"deleted": os.Remove,
		"replaced": func(file string) error {
			return errors.Join(os.Rename(file, file+".old"), os.WriteFile(file, nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "c.db")
			c, err := open(t, Options{Type: "sql", URI: file, Warehouse: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			fill(t, c)
			if _, err := c.Load(t.Context(), ident); err != nil {
				t.Fatal(err)
			}
			if err := change(file); err != nil {
				t.Fatal(err)
			}
			_, err = c.Commit(t.Context(), ident, nil, []table.Update{table.NewSetPropertiesUpdate(iceberg.Properties{"a": "b"})})
			wants(t, err, batch.ErrDataLost, "was deleted or replaced while it was open")
			_, err = c.Load(t.Context(), ident)
			wants(t, err, batch.ErrDataLost, file)
		})
	}
}

// TestDamagedMetadata: a metadata file that cannot be read is no server that is away.
func TestDamagedMetadata(t *testing.T) {
	for text, kind := range map[string]error{`{"format-version": 2, "table`: batch.ErrDataLost, `{"format-version": 2}`: batch.ErrDataLost, "": batch.ErrDataLost, `{"format-version": 9}`: batch.ErrInvalid} {
		c, err := open(t, Options{Type: "sql", URI: filepath.Join(t.TempDir(), "c.db"), Warehouse: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		fill(t, c)
		tbl, err := c.Load(t.Context(), ident)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(localPath(tbl.MetadataLocation()), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = c.Load(t.Context(), ident)
		wants(t, err, kind, "damaged")
	}
}
