//go:build integration

package integration

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/objstore"
	"github.com/frazil-io/frazil/test/servers"
)

// routed is a pipeline whose rows choose their table: what was produced for each.
type routed struct {
	*lab
	client  *kgo.Client
	admin   *kadm.Client
	next    int64
	ids     map[string][]int64 // by table
	letters map[string]int     // by topic
}

// more makes one more topic, whose records need a table that is not there yet.
func (r *routed) more(name string) {
	r.Helper()
	if _, err := r.admin.CreateTopic(r.Context(), 2, 1, nil, name); err != nil {
		r.Fatal(err)
	}
}

// send produces records to a topic, and some that cannot be decoded.
func (r *routed) send(topic string, good, bad int) {
	r.Helper()
	table := strings.NewReplacer(".", "_", "-", "_").Replace(strings.ToLower(topic))
	for i := range good + bad {
		rec := &kgo.Record{Topic: topic, Key: fmt.Append(nil, i), Value: fmt.Appendf(nil, `{"id":%d}`, r.next)}
		if i < good {
			r.ids[table] = append(r.ids[table], r.next)
			r.next++
		} else {
			rec.Value = []byte(`{"id":`)
			r.letters[topic]++
		}
		r.client.Produce(r.Context(), rec, nil)
	}
	if err := r.client.Flush(r.Context()); err != nil {
		r.Fatal(err)
	}
}

// reads compares the tables with what was produced, by key, as other engines read them.
func (r *routed) reads() {
	r.Helper()
	var got struct {
		Tables  map[string][]int64        // ids, as pyiceberg reads them
		Counts  map[string]map[string]int // rows, as DuckDB does: of a table, by topic
		Letters map[string]int            // by topic; each offset once
	}
	r.answer(&got, "routed.py", r.direct, r.s3, "routed", "ops.routed_letters")
	for table, ids := range r.ids {
		slices.Sort(ids)
		if !slices.Equal(got.Tables[table], ids) {
			r.Errorf("table %s has %d rows, not the %d that were produced for it", table, len(got.Tables[table]), len(ids))
		}
		if of := got.Counts[table]; len(of) != 1 || slices.Collect(maps.Values(of))[0] != len(ids) {
			r.Errorf("table %s has rows %v, as DuckDB says", table, of)
		}
	}
	if len(got.Tables) != len(r.ids) {
		r.Errorf("there are %d tables, not %d", len(got.Tables), len(r.ids))
	}
	if !maps.Equal(got.Letters, r.letters) {
		r.Errorf("the dead letters are %v, not %v", got.Letters, r.letters)
	}
	r.Logf("%d records in %d tables, each once, and %d dead letters", r.next, len(r.ids), len(r.letters))
}

// holder is a proxy before the catalog that can hold a commit to a table.
type holder struct {
	catalog http.Handler
	mu      sync.Mutex
	table   string // "": none
	path    string // of the request that is held
	body    []byte
}

func (h *holder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	if h.table == "" || r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/tables/"+h.table) {
		h.mu.Unlock()
		h.catalog.ServeHTTP(w, r)
		return
	}
	h.body, _ = io.ReadAll(r.Body)
	h.path, h.table = r.URL.Path, ""
	h.mu.Unlock()
	<-r.Context().Done() // until whoever sent it is gone
}

// release sends the request that was held, and returns what the catalog answers.
func (h *holder) release(r *routed) (status int, text string) {
	r.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.path == "" {
		r.Fatal("no commit was held")
	}
	answer, err := http.Post(r.direct+h.path, "application/json", strings.NewReader(string(h.body)))
	if err != nil {
		r.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, string(tail(body))
}

// hold puts such a proxy between the pipeline and its catalog.
func (r *routed) hold() *holder {
	r.Helper()
	h := &holder{catalog: r.proxy()}
	r.behind(h)
	return h
}

// forget deletes the pipeline's checkpoint.
func (r *routed) forget() {
	r.Helper()
	store, err := objstore.Open(r.Context(), "s3://"+servers.Bucket+"/checkpoints", map[string]string{
		"s3.endpoint": r.s3, "s3.access-key-id": servers.S3Key, "s3.secret-access-key": servers.S3Secret, "s3.region": "us-east-1",
	})
	if err != nil {
		r.Fatal(err)
	}
	keys, err := store.List(r.Context(), "routed/", "")
	if err != nil || len(keys) == 0 {
		r.Fatalf("the checkpoint has %d files: %v", len(keys), err)
	}
	for _, key := range keys {
		if err := store.Delete(r.Context(), key); err != nil {
			r.Fatal(err)
		}
	}
}

// routedKills is killed while tables are made on demand, and between the commits of
// a batch to them. At last it loses its checkpoint while a batch is in some of its
// tables, and the commit to one more is on its way to a catalog that lists them all.
func routedKills(l *lab) {
	client, err := kgo.NewClient(kgo.SeedBrokers(l.kafka.Addr()))
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(client.Close)
	r := &routed{lab: l, client: client, admin: kadm.NewClient(client), ids: map[string][]int64{}, letters: map[string]int{}}
	h := r.hold()
	r.pipeline("routed", fmt.Sprintf(`limits: {max_records: 150}
sources:
  records: {kafka: {brokers: ["%s"], topic_pattern: '^routed\..*', start: earliest}, format: json, columns: id BIGINT, metadata: true}
sinks:
  raw: {sql: "SELECT id, _topic FROM records", iceberg: {catalog: lake, table: "routed.${_topic}"}}
dead_letter: {iceberg: {catalog: lake, table: ops.routed_letters}, max_fraction: 1}
`, l.kafka.Addr()))
	topics := []string{"routed.A-1"}
	r.more(topics[0])
	r.send(topics[0], 300, 1)
	histogram := map[string]int{}
	for i := range len(moments) {
		topics = append(topics, fmt.Sprintf("routed.more-%d", i))
		r.more(topics[i+1])
		for _, topic := range topics[max(0, i-4):] {
			r.send(topic, 60, 1)
		}
		d := r.start("--takeover")
		moment, nth := moments[(i+3)%len(moments)], 1
		if strings.HasPrefix(moment, "commit") { // of the batch, in so many tables
			nth += i % 4
		}
		if !r.until(d, moment, nth) {
			r.Fatalf("it ended by itself before %q:\n%s", moment, tail(d.log.Bytes()))
		}
		_ = d.cmd.Process.Kill()
		<-d.done
		histogram[moment]++
	}
	r.Logf("killed at %v", histogram)
	r.drain()
	for _, topic := range topics[:4] {
		r.send(topic, 5, 1)
	}
	h.mu.Lock()
	h.table = "routed_more_1"
	h.mu.Unlock()
	d := r.start("--takeover")
	if !r.until(d, "commit applied", 3) {
		r.Fatalf("it ended by itself:\n%s", tail(d.log.Bytes()))
	}
	_ = d.cmd.Process.Kill()
	<-d.done
	r.forget()
	r.send(topics[2], 5, 0)
	r.drain()
	if status, text := h.release(r); status != http.StatusConflict {
		r.Errorf("the commit that comes after the recovery is answered with %d: %s", status, text)
	}
	r.reads()
	r.verify()
}
