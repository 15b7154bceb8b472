package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
	"github.com/frazil-io/frazil/test/fakes"
)

// vending is a table behind a catalog that gives the keys of its warehouse away
// with each load.
type vending struct {
	*fixture
	s3   *fakes.S3
	rest *fakes.REST
}

var admin = fakes.Keys{ID: "admin", Secret: "s"}

func newVending(t *testing.T) *vending {
	t.Helper()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	s3 := fakes.NewS3(t)
	rest := fakes.NewREST(t, "s3://"+fakes.Bucket, "", map[string]string{
		"s3.endpoint": s3.URL, "s3.region": "us-east-1", "s3.access-key-id": admin.ID, "s3.secret-access-key": admin.Secret,
	})
	c, err := lake.Open(t.Context(), lake.Options{Name: "lake", Type: "rest", URI: rest.URL}) // without keys
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &vending{&fixture{T: t, catalog: c, now: time.Now()}, s3, rest}
}

func (v *vending) config(k fakes.Keys) map[string]string {
	return map[string]string{
		"s3.endpoint": v.s3.URL, "s3.region": "us-east-1",
		"s3.access-key-id": k.ID, "s3.secret-access-key": k.Secret, "s3.session-token": k.Token,
	}
}

// TestVendedKeys: data files and metadata are written with the keys that came
// with the load, and with new ones when those end.
func TestVendedKeys(t *testing.T) {
	for name, with := range map[string]func(v *vending, k fakes.Keys) (map[string]string, []map[string]any){
		"config": func(v *vending, k fakes.Keys) (map[string]string, []map[string]any) { return v.config(k), nil },
		"storage-credentials": func(v *vending, k fakes.Keys) (map[string]string, []map[string]any) {
			return nil, []map[string]any{
				{"prefix": "s3://", "config": v.config(fakes.Keys{ID: "wrong", Secret: "x", Token: "x"})},
				{"prefix": "s3://" + fakes.Bucket, "config": v.config(k)}, // the longest prefix counts
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVending(t)
			current := fakes.Keys{ID: "vended", Secret: "s", Token: "1"}
			v.rest.Vend(func() (map[string]string, []map[string]any) { return with(v, current) })
			v.s3.Accept(admin, current)
			tbl := v.mustOpen(nil)
			v.commit(tbl, "a0", makeRows(0, 10))

			// The keys end while a batch is written: the step fails as one to repeat,
			// and the next load brings new ones.
			w, err := tbl.Writer(context.Background(), "a1")
			if err != nil {
				t.Fatal(err)
			}
			next := fakes.Keys{ID: "vended", Secret: "s", Token: "2"}
			v.s3.Accept(admin, next)
			rows := makeRows(10, 20)
			defer rows.Release()
			err = w.Write(rows)
			if err == nil {
				_, err = w.Close(context.Background())
			}
			if !errors.Is(err, batch.ErrUnavailable) {
				t.Fatalf("with ended keys: %v", err)
			}
			w.Abort()
			current = next
			v.s3.Seen()
			v.commit(tbl, "a2", makeRows(10, 20))
			if got := v.ids(nil); !slices.Equal(got, count(20)) {
				t.Fatalf("%v", got)
			}
			seen := v.s3.Seen()
			if !slices.Contains(seen, fakes.Keys{ID: "vended", Token: "2"}) {
				t.Fatalf("the new keys were not used: %v", seen)
			}
		})
	}
}

// TestOneS3Client: iceberg-go would open new connections for each commit and
// never close them.
func TestOneS3Client(t *testing.T) {
	for name, open := range map[string]func(*testing.T) (*fixture, *fakes.S3){
		"rest": func(t *testing.T) (*fixture, *fakes.S3) {
			v := newVending(t)
			v.rest.Vend(func() (map[string]string, []map[string]any) { return v.config(admin), nil })
			return v.fixture, v.s3
		},
		"sql": func(t *testing.T) (*fixture, *fakes.S3) {
			s3 := fakes.NewS3(t)
			c, err := lake.Open(t.Context(), lake.Options{Name: "lake", Type: "sql", URI: t.TempDir() + "/c.db", Warehouse: "s3://" + fakes.Bucket, Properties: map[string]string{
				"s3.endpoint": s3.URL, "s3.access-key-id": "k", "s3.secret-access-key": "s",
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			return &fixture{T: t, catalog: c, now: time.Now()}, s3
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_DEFAULTS_MODE", "standard") // for which the SDK copies clients
			f, s3 := open(t)
			tbl, err := Open(t.Context(), f.catalog, Options{Pipeline: "p", Table: "ns.t", Create: true}, rowSchema, time.Now, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			f.commit(tbl, "first", makeRows(0, 1))
			before := s3.Connections()
			for i := range 20 {
				f.commit(tbl, fmt.Sprint("a", i), makeRows(i, i+1))
			}
			if opened := s3.Connections() - before; opened > 5 {
				t.Fatalf("%d connections were opened for 20 commits", opened)
			}
		})
	}
}
