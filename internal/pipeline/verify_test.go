package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/driver"
)

// proof is a pipeline over an embedded broker.
type proof struct {
	*testing.T
	spec    *config.Spec
	client  *kgo.Client
	cluster *kfake.Cluster
	made    int
}

const proofSpec = `
name: proof
trigger: {interval: 0s}
checkpoint: %[1]q
catalogs: {lake: {type: sql, uri: "%[1]s/catalog.db", warehouse: "%[1]s/warehouse"}}
sources: {clicks: {kafka: {brokers: [%[2]q], topics: [clicks], start: earliest}, format: json, columns: "id BIGINT, kind VARCHAR"}}
sinks:
  ids: {sql: SELECT id FROM clicks, iceberg: {catalog: lake, table: a.ids}}
  odd: {sql: "SELECT id, kind FROM clicks WHERE id %% 2 = 1", iceberg: {catalog: lake, table: a.odd}}
  never: {sql: "SELECT id FROM clicks WHERE id < 0", iceberg: {catalog: lake, table: a.never}}
`

func newProof(t *testing.T) *proof {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "clicks"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("clicks"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	p := &proof{T: t, client: client, cluster: c}
	p.spec = p.parse(fmt.Sprintf(proofSpec, t.TempDir(), c.ListenAddrs()[0]))
	return p
}

func (p *proof) parse(text string) *config.Spec {
	p.Helper()
	spec, err := config.Parse("spec.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		p.Fatal(err)
	}
	return spec
}

// produce makes records in both partitions.
func (p *proof) produce(n int) {
	p.Helper()
	var records []*kgo.Record
	for range n {
		records = append(records, &kgo.Record{Partition: int32(p.made % 2), Value: fmt.Appendf(nil, `{"id":%d,"kind":"k%d"}`, p.made, p.made%3)})
		p.made++
	}
	if err := p.client.ProduceSync(p.Context(), records...).FirstErr(); err != nil {
		p.Error(err)
	}
}

// open opens the pipeline to run it, or to look at it.
func (p *proof) open(o Options) *Pipeline {
	p.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	opened, err := New(p.Context(), p.spec, o)
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(opened.Close)
	return opened
}

// run takes everything that is there.
func (p *proof) run() {
	p.Helper()
	if err := p.open(Options{AvailableNow: true, Takeover: true}).Run(p.Context(), p.Context()); err != nil {
		p.Fatal(err)
	}
}

func (p *proof) clean(of *Pipeline) {
	p.Helper()
	r, err := of.Verify(p.Context(), time.Now(), false)
	if err != nil {
		p.Fatal(err)
	}
	for _, f := range r.Checkpoint.Findings {
		p.Errorf("checkpoint: %s: %s: %s", f.Code, f.Where, f.What)
	}
	for _, t := range r.Tables {
		for _, f := range t.Findings {
			p.Errorf("%s: %s: %s: %s", t.Sink, f.Code, f.Where, f.What)
		}
	}
}

// TestVerifyBesideDriver: an audit has no finding before the first batch, between
// batches, and while a driver commits one after the other.
func TestVerifyBesideDriver(t *testing.T) {
	p := newProof(t)
	p.clean(p.open(Options{ReadOnly: true}))
	p.produce(10)
	p.run()
	p.clean(p.open(Options{ReadOnly: true}))
	w := watcher{make(chan driver.Progress, 1000), make(chan string, 1)}
	running := p.open(Options{Observer: w, Grace: time.Hour, Takeover: true})
	stop, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- running.Run(t.Context(), stop) }()
	<-w.batches
	produced := make(chan struct{})
	go func() {
		defer close(produced)
		for range 25 {
			p.produce(3)
			<-w.batches
		}
	}()
	looking := p.open(Options{ReadOnly: true})
	audits := 0
	for done := false; !done; audits++ {
		p.clean(looking)
		select {
		case <-produced:
			done = true
		default:
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	p.clean(looking)
	t.Logf("%d audits beside the driver", audits)
}

// TestVerifyAllTypes: what a manifest says of a healthy file's columns is what its
// footer says, whatever they are.
func TestVerifyAllTypes(t *testing.T) {
	p := newProof(t)
	p.spec = p.respec(`sql: SELECT id FROM clicks, iceberg: {catalog: lake, table: a.ids}`, `iceberg: {catalog: lake, table: a.ids, partition_by: [kind, "bucket(4, id)", day(at)], sort_by: [n]}, sql: "
    SELECT id, kind, (40 - id)::SMALLINT AS n, (id - 20)::UTINYINT AS u, (id * 1000000007)::HUGEINT::DECIMAL(38, 2) AS wide, (id - 20)::DECIMAL(9, 3) AS narrow,
    CASE WHEN id % 3 = 0 THEN NULL ELSE 'a text of more than sixteen letters ö ' || id END AS long, repeat('􏿿', (id % 20)::BIGINT) AS far, '' AS empty, NULL::INTEGER AS none,
    CASE WHEN id % 2 = 0 THEN 'NaN'::DOUBLE ELSE -id::DOUBLE END AS d, (id / 7)::FLOAT AS f, id % 2 = 0 AS b, encode(kind) AS bytes,
    DATE '1969-12-25' + id::INTEGER AS day, TIME '23:59:59.999999' AS clock, make_timestamptz(1960 + id::INTEGER, 1, 1, 0, 0, 0) AS at, TIMESTAMP '1969-12-31 23:59:59.5' AS local,
    CASE WHEN id % 4 = 0 THEN NULL ELSE {'x': id, 'y': [id, NULL]} END AS s, map([kind], [id]) AS m, [kind, NULL] AS l, uuid_extract_version(NULL) AS v, '6fa459ea-ee8a-4ca4-894e-db77e160355e'::UUID AS uu
    FROM clicks WHERE id >= 20"`)
	for range 2 {
		p.produce(60)
		p.run()
	}
	p.clean(p.open(Options{ReadOnly: true}))
	report, err := p.open(Options{ReadOnly: true}).Verify(p.Context(), time.Now(), true)
	if err != nil || !report.Clean {
		t.Fatal(report, err)
	}
}

// TestVerifyAsksNoDeadCatalogTwice: one that does not answer for a table, or at all, is
// not asked for all the others, which are named.
func TestVerifyAsksNoDeadCatalogTwice(t *testing.T) {
	for _, c := range []struct {
		name string
		dead func(path string) bool
		asks int // tables that are asked for
	}{
		{"silent", func(string) bool { return true }, 0},
		{"without tables", func(path string) bool { return !strings.HasSuffix(path, "/config") }, auditedAtOnce},
	} {
		var mu sync.Mutex
		configs, asked := 0, map[string]bool{}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if strings.HasSuffix(r.URL.Path, "/config") {
				configs++
			} else {
				asked[r.URL.Path] = true
			}
			if c.dead(r.URL.Path) {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			_, _ = w.Write([]byte(`{"defaults":{},"overrides":{}}`))
		}))
		defer server.Close()
		text := fmt.Sprintf(`
name: p
trigger: {interval: 1s}
checkpoint: %q
catalogs: {lake: {type: rest, uri: %q}}
sources: {things: {kafka: {brokers: ["127.0.0.1:1"], topics: [things], start: earliest}, format: raw}}
sinks:
`, t.TempDir(), server.URL)
		const sinks = 20
		for i := range sinks {
			text += fmt.Sprintf("  s%02d: {sql: FROM things, iceberg: {catalog: lake, table: t.s%02d}}\n", i, i)
		}
		spec, err := config.Parse("spec.yaml", []byte(text), func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatal(err)
		}
		open := func() *Pipeline {
			p, err := New(t.Context(), spec, Options{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		p := open()
		_, _ = p.Catalog(t.Context(), "lake")
		once := configs
		p.Close()
		p = open()
		_, err = p.auditedParts(t.Context(), spec.Sinks.Names)
		p.Close()
		if !errors.Is(err, batch.ErrUnavailable) {
			t.Fatalf("%s: %v", c.name, err)
		}
		if configs != 2*once || len(asked) > c.asks {
			t.Errorf("%s: the catalog was opened %d times, and asked for %d tables, want at most %d", c.name, configs/once-1, len(asked), c.asks)
		}
		for i := range sinks {
			if !strings.Contains(err.Error(), fmt.Sprintf("s%02d", i)) {
				t.Errorf("%s: s%02d is not in %v", c.name, i, err)
			}
		}
	}
}
