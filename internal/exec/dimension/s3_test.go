package dimension

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/frazil-io/frazil/internal/batch"
)

// TestFromS3: files lie in buckets, too.
func TestFromS3(t *testing.T) {
	backend := s3mem.New()
	if err := backend.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server())
	t.Cleanup(server.Close)
	properties := map[string]string{"s3.endpoint": server.URL, "s3.access-key-id": "k", "s3.secret-access-key": "s", "s3.region": "us-east-1"}
	text := "a,b\n1,x\n"
	if _, err := backend.PutObject("bucket", "dim/d.csv", nil, strings.NewReader(text), int64(len(text)), nil); err != nil {
		t.Fatal(err)
	}
	w := newWorld()
	c, err := CSV(t.Context(), CSVOptions{Path: "s3://bucket/dim/d.csv", Properties: properties}, w.options())
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, c, v); got != "1|x" {
		t.Errorf("%s", got)
	}
	if _, err := backend.PutObject("bucket", "d.parquet", nil, strings.NewReader(string(w.kept[v])), int64(len(w.kept[v])), nil); err != nil {
		t.Fatal(err)
	}
	p, err := Parquet(t.Context(), "s3://bucket/d.parquet", properties, w.options())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := p.Version(t.Context()); err != nil || again != v || content(t, p, v) != "1|x" {
		t.Errorf("a Parquet file is its own copy: %s %v", again, err)
	}
	if _, err := Parquet(t.Context(), "s3://bucket/none.parquet", properties, w.options()); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "s3://bucket/none.parquet") {
		t.Errorf("no object: %v", err)
	}
	server.Close()
	if _, err := p.Version(t.Context()); !errors.Is(err, batch.ErrUnavailable) {
		t.Errorf("away: %v", err)
	}
}
