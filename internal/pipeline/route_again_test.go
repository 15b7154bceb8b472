package pipeline

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go/table"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/verify"
)

// killedTables are the tables of a sink that feeds many, in a process that dies.
type killedTables struct {
	driver.Tables
	k *killer
}

// Table implements driver.Tables.
func (t killedTables) Table(name string) driver.Table {
	return killedTable{t.Tables.Table(name), "raw", t.k}
}

// letters is a pipeline of topics whose records may be rejected.
type letters struct {
	*routing
	rows map[string][]int64 // that only a replay brings, by table
}

// send produces records. A bad one is for its table when the SQL is mended.
func (l *letters) send(topic, table string, n int, bad bool) {
	l.Helper()
	for range n {
		l.next++
		value := fmt.Sprintf(`{"id":%d,"n":"%d"}`, l.next, l.next)
		if bad {
			value = fmt.Sprintf(`{"id":%d,"n":"none"}`, l.next)
		}
		rec := &kgo.Record{Topic: topic, Partition: int32(l.next % 2), Value: []byte(value)}
		if err := l.client.ProduceSync(l.Context(), rec).FirstErr(); err != nil {
			l.Fatal(err)
		}
		if bad {
			l.rows[table] = append(l.rows[table], l.next)
		} else {
			l.want[table] = append(l.want[table], l.next)
		}
	}
}

// of is the spec with one or the other SQL.
func (l *letters) of(sql string, bytes int) *config.Spec {
	l.Helper()
	spec, err := config.Parse("spec.yaml", fmt.Appendf(nil, `
name: routes
trigger: {available_now: true}
limits: {max_records: 12}
checkpoint: "%[1]s/checkpoint"
catalogs: {lake: {type: sql, uri: "%[1]s/catalog.db", warehouse: "%[1]s/warehouse"}}
sources: {events: {kafka: {brokers: [%[2]q], topic_pattern: "^ev.*", start: earliest}, format: json, columns: "id BIGINT, n VARCHAR", metadata: true}}
sinks: {raw: {sql: %[3]q, iceberg: {catalog: lake, table: "raw.${_topic}"}}}
dead_letter: {iceberg: {catalog: lake, table: ops.dead_letters}, max_fraction: 1}
`, l.dir, l.broker, sql), func(string) (string, bool) { return "", false })
	if err != nil {
		l.Fatal(err)
	}
	if bytes > 0 {
		spec.Limits.MaxBytes = config.Bytes(bytes)
	}
	return spec
}

const (
	strictSQL = "SELECT id, n::INTEGER AS n, _topic FROM events"
	mendedSQL = "SELECT id, TRY_CAST(n AS INTEGER) AS n, _topic FROM events"
)

// live runs the pipeline itself.
func (l *letters) live() {
	l.Helper()
	if err := l.run(l.of(strictSQL, 0), "", 0); err != nil {
		l.Fatal(err)
	}
}

// again runs the letters again, in processes that die after a few calls.
func (l *letters) again(r *rand.Rand) (deaths int) {
	l.Helper()
	for {
		k := &killer{left: 2 + r.IntN(20)}
		rooms := func(rooms driver.Rooms) driver.Rooms {
			for i := range rooms.Sinks {
				if many := rooms.Sinks[i].Tables; many != nil {
					rooms.Sinks[i].Tables = killedTables{many, k}
					continue
				}
				rooms.Sinks[i].Table = killedTable{rooms.Sinks[i].Table, rooms.Sinks[i].Name, k}
			}
			rooms.Checkpoint, rooms.Executor, rooms.Tasks = killedCheckpoint{rooms.Checkpoint, k}, killedExecutor{rooms.Executor, k}, inTurn{}
			return rooms
		}
		p, err := New(l.Context(), l.of(mendedSQL, 500), Options{Rooms: rooms, Stream: batch.StreamReplay, Takeover: true})
		if err != nil {
			l.Fatal(err)
		}
		_, err = p.ReplayLetters(l.Context(), l.Context())
		p.Close()
		if err == nil {
			return deaths
		}
		if deaths++; !errors.Is(err, errKilled) || deaths > 500 {
			l.Fatalf("after %d deaths: %v", deaths, err)
		}
	}
}

// tried asks what would become of n letters, and makes no table.
func (l *letters) tried(n int64) {
	l.Helper()
	p, err := New(l.Context(), l.of(mendedSQL, 0), Options{Stream: batch.StreamReplay})
	if err != nil {
		l.Fatal(err)
	}
	defer p.Close()
	got, err := p.TryLetters(l.Context())
	if err != nil || got.Letters != n || got.Rows["raw"] != n || got.Again != 0 {
		l.Errorf("%d letters would become %+v: %v", n, got, err)
	}
	l.whole(1, false)
}

// whole compares the tables with what was sent, with the letters run again or not,
// and audits them.
func (l *letters) whole(tables int, again bool) {
	l.Helper()
	p, err := New(l.Context(), l.of(strictSQL, 0), Options{ReadOnly: true})
	if err != nil {
		l.Fatal(err)
	}
	defer p.Close()
	names := map[string]bool{}
	rows := map[string][]int64{}
	if again {
		rows = l.rows
	}
	for _, by := range []map[string][]int64{l.want, rows} {
		for name := range by {
			names[name] = true
		}
	}
	for name := range names {
		ids, _ := l.read(p, name)
		if want := slices.Sorted(slices.Values(slices.Concat(l.want[name], rows[name]))); !slices.Equal(ids, want) {
			l.Errorf("table %s has %v, not %v", name, ids, want)
		}
	}
	report, err := p.Verify(l.Context(), time.Now(), false)
	if err != nil {
		l.Fatal(err)
	}
	if len(report.Tables) != tables+1 {
		l.Errorf("%d tables are audited, not %d", len(report.Tables), tables+1)
	}
	for _, one := range report.Tables {
		for _, f := range one.Findings {
			l.Errorf("%s: %s: %s: %s", one.Table, f.Code, f.Where, f.What)
		}
	}
}

// newLetters is a pipeline whose letters were run again, then once more after the live
// driver had rows for a table that the first replay made, and then by a replay that
// knows of none before it.
func newLetters(t *testing.T) *letters {
	t.Helper()
	l := &letters{routing: newRouting(t, "ev.a", "ev.b", "ev.c"), rows: map[string][]int64{}}
	l.send("ev.a", "raw.ev_a", 9, false)
	l.send("ev.a", "raw.ev_a", 7, true)
	l.send("ev.b", "raw.ev_b", 8, true)
	l.live()
	l.tried(15)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 2))
	deaths := l.again(r)
	l.whole(2, true)
	l.send("ev.b", "raw.ev_b", 5, false)
	l.send("ev.b", "raw.ev_b", 6, true)
	l.send("ev.c", "raw.ev_c", 3, false)
	l.send("ev.c", "raw.ev_c", 4, true)
	l.live()
	deaths += l.again(r)
	l.whole(3, true)
	forgetRuns(t, filepath.Join(l.dir, "checkpoint"))
	l.send("ev.b", "raw.ev_b", 3, true)
	l.live()
	deaths += l.again(r)
	l.whole(3, true)
	if t.Failed() || deaths < 2 {
		t.Fatalf("seed %d, %d deaths", seed, deaths)
	}
	return l
}

// TestRoutedLettersAreRunAgain: letters go to the tables that their rows choose, once,
// wherever the replay dies: to tables that were there, to one that the replay makes
// itself, and to that again when the live driver has come to it.
func TestRoutedLettersAreRunAgain(t *testing.T) {
	t.Parallel()
	l := newLetters(t)
	p, err := New(t.Context(), l.of(strictSQL, 0), Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := p.Catalog(t.Context(), "lake")
	if err != nil {
		t.Fatal(err)
	}
	for name := range l.rows {
		meta, err := c.Load(t.Context(), strings.Split(name, "."))
		if err != nil {
			t.Fatal(err)
		}
		if meta.Metadata().SnapshotByName(batch.Tag("routes", batch.StreamReplay)) != nil {
			t.Errorf("table %s still has the tag of the replay", name)
		}
	}
}

// TestRoutedReplayTampering: a run that claims letters which a run before it had is
// found.
func TestRoutedReplayTampering(t *testing.T) {
	t.Parallel()
	l := newLetters(t)
	p, err := New(t.Context(), l.of(strictSQL, 0), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := p.Catalog(t.Context(), "lake")
	if err != nil {
		t.Fatal(err)
	}
	ident := table.Identifier{"raw", "ev_b"}
	add := func(change func(*batch.Stamp)) *batch.Stamp {
		t.Helper()
		one, err := c.Load(t.Context(), ident)
		if err != nil {
			t.Fatal(err)
		}
		meta := one.Metadata()
		s := *meta.CurrentSnapshot()
		head := s.SnapshotID
		st, err := batch.ParseStamp(s.Summary.Properties)
		if err != nil || st == nil || st.Stream != batch.StreamReplay {
			t.Fatalf("the newest snapshot carries %v: %v", st, err)
		}
		change(st)
		props := maps.Clone(s.Summary.Properties)
		maps.DeleteFunc(props, func(key, _ string) bool { return strings.HasPrefix(key, "frazil.") })
		maps.Copy(props, st.Properties())
		s.SnapshotID, s.ParentSnapshotID, s.SequenceNumber, s.TimestampMs = head/2+1, &head, meta.LastSequenceNumber()+1, max(time.Now().UnixMilli(), meta.LastUpdatedMillis())
		s.Summary = &table.Summary{Operation: s.Summary.Operation, Properties: props}
		if _, err := c.Commit(t.Context(), ident, nil, []table.Update{table.NewAddSnapshotUpdate(&s), table.NewSetSnapshotRefUpdate("main", s.SnapshotID, table.BranchRef, 0, 0, 0)}); err != nil {
			t.Fatal(err)
		}
		return st
	}
	anchor := add(func(st *batch.Stamp) {
		st.Incarnation, st.IncarnationID, st.Kind, st.Previous, st.Route = st.Incarnation+2, "another", batch.Replay, "", &batch.Route{Sink: "raw"}
		st.First, st.Last, st.Start, st.End, st.Counts = 0, batch.None, batch.Offsets{}, batch.Offsets{}, batch.Counts{}
	})
	add(func(st *batch.Stamp) {
		st.Kind, st.Previous, st.First, st.Last = "", anchor.Hash(), 0, 99
		for tp := range streamsOf() {
			st.Start[tp], st.End[tp] = 0, 99
		}
	})
	report, err := p.Verify(t.Context(), time.Now(), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range report.Tables {
		for _, f := range one.Findings {
			if f.Code == verify.BrokenLink && strings.Contains(f.What, "a run before it had them up to batch") {
				return
			}
			t.Logf("%s: %s: %s: %s", one.Table, f.Code, f.Where, f.What)
		}
	}
	t.Error("letters that are in two runs are not found")
}

func streamsOf() batch.Offsets {
	return batch.Offsets{streamPartition(batch.StreamMain): 0, streamPartition(batch.StreamReplay): 0}
}
