package pipeline

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/driver"
)

// mended is the spec with SQL that takes every record which is JSON.
func (p *poisoned) mended(t *testing.T, dir string) *config.Spec {
	t.Helper()
	spec := p.spec(t, dir, toTable)
	for name, sql := range map[string]string{
		"numbers": "SELECT id, TRY_CAST(n AS INTEGER) AS n FROM things",
		"roots":   "SELECT id, sqrt(abs(TRY_CAST(n AS DOUBLE))) AS root FROM things",
	} {
		s := spec.Sinks.By[name]
		s.SQL = sql
		spec.Sinks.By[name] = s
	}
	spec.Limits.MaxBytes = 3000
	return spec
}

// run runs the pipeline, with its dead letters in a table.
func (p *poisoned) run(t *testing.T, dir string) *Pipeline {
	t.Helper()
	pl, err := New(t.Context(), p.spec(t, dir, toTable), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pl.Close)
	if err := pl.Run(t.Context(), t.Context()); err != nil {
		t.Fatal(err)
	}
	return pl
}

// TestLettersAreRunAgain: with a corrected spec each letter goes to the sink that
// rejected it, once, wherever the replay dies; what cannot be decoded waits again, also
// for runs that know of none before them.
func TestLettersAreRunAgain(t *testing.T) {
	p := newPoisoned(t)
	dir := t.TempDir()
	p.check(t, p.run(t, dir))
	undecoded := p.mendedRows()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	deaths := 0
	for run := 0; run < 4; {
		c := &killer{left: 2 + r.IntN(16)}
		pl, err := New(t.Context(), p.mended(t, dir), Options{Rooms: c.rooms, Stream: batch.StreamReplay, Takeover: true})
		if err != nil {
			t.Fatal(err)
		}
		got, err := pl.ReplayLetters(t.Context(), t.Context())
		switch {
		case errors.Is(err, errKilled):
			if deaths++; deaths > 500 {
				t.Fatalf("seed %d: it never ends", seed)
			}
		case err != nil:
			t.Fatalf("seed %d: %v", seed, err)
		default:
			if run++; run == 2 { // each one takes what the one before rejected, and rejects it again
				forgetRuns(t, dir)
			}
			if got.Dropped != 0 {
				t.Errorf("%+v", got)
			}
			p.replayed(t, pl, undecoded)
		}
		pl.Close()
	}
	if t.Failed() || deaths < 2 {
		t.Errorf("seed %d, %d deaths", seed, deaths)
	}
}

// forgetRuns takes the checkpoint of the replays away.
func forgetRuns(t *testing.T, checkpoint string) {
	t.Helper()
	runs, err := filepath.Glob(filepath.Join(checkpoint, "*."+batch.StreamReplay))
	if err != nil || len(runs) != 1 {
		t.Fatalf("%q, %v", runs, err)
	}
	if err := os.RemoveAll(runs[0]); err != nil {
		t.Fatal(err)
	}
}

// overtaken runs another replay to its end before one of its own plans is logged.
type overtaken struct {
	driver.Checkpoint
	left  int
	other func()
}

// Append implements driver.Checkpoint.
func (o *overtaken) Append(ctx context.Context, p *batch.Plan) error {
	if o.left--; o.left == 0 {
		o.other()
	}
	return o.Checkpoint.Append(ctx, p)
}

// TestReplayThatIsOvertaken: of two replays the one that the other overtakes, with its
// first plan or in the middle, stands by and ends well; each letter is run once.
func TestReplayThatIsOvertaken(t *testing.T) {
	for _, at := range []int{1, 2} {
		p := newPoisoned(t)
		dir := t.TempDir()
		p.run(t, dir)
		undecoded := p.mendedRows()
		replay := func(rooms func(driver.Rooms) driver.Rooms) {
			pl, err := New(t.Context(), p.mended(t, dir), Options{Rooms: rooms, Stream: batch.StreamReplay, Takeover: true})
			if err != nil {
				t.Fatal(err)
			}
			defer pl.Close()
			if _, err := pl.ReplayLetters(t.Context(), t.Context()); err != nil {
				t.Errorf("plan %d: %v", at, err)
			}
			p.replayed(t, pl, undecoded)
		}
		o := &overtaken{left: at, other: func() { replay(nil) }}
		replay(func(r driver.Rooms) driver.Rooms {
			o.Checkpoint = r.Checkpoint
			r.Checkpoint = o
			return r
		})
		if o.left > 0 {
			t.Errorf("there was no plan %d", at)
		}
	}
}

// mendedRows makes the rows those that the tables have after a replay with the mended
// spec, and returns how many letters wait then.
func (p *poisoned) mendedRows() (undecoded int64) {
	for _, l := range p.letters {
		at, rest, _ := strings.Cut(l, "|")
		if sink, _, _ := strings.Cut(rest, "|"); sink != "" {
			p.rows[sink] = append(p.rows[sink], at)
		} else {
			undecoded++
		}
	}
	for _, ids := range p.rows {
		slices.SortFunc(ids, func(a, b string) int { x, _ := strconv.Atoi(a); y, _ := strconv.Atoi(b); return x - y })
	}
	return undecoded
}

// replayed compares the tables with what they should have after a replay.
func (p *poisoned) replayed(t *testing.T, pl *Pipeline, undecoded int64) {
	t.Helper()
	for sink, want := range p.rows {
		if got := lines(t, pl, "SELECT id::VARCHAR FROM "+sink+" ORDER BY id"); !slices.Equal(got, want) {
			t.Errorf("table %s has %d rows, want %d", sink, len(got), len(want))
		}
	}
	waiting := lines(t, pl, `SELECT concat(code, ' ', stream, ' ', array_to_string(sinks, '+')) FROM dead_letters l WHERE code <> 'replayed' AND NOT EXISTS (
		FROM dead_letters m WHERE m.pipeline = l.pipeline AND m.replayed_stream = l.stream AND l.batch < m.replayed_to)`)
	if int64(len(waiting)) != undecoded || slices.ContainsFunc(waiting, func(l string) bool { return l != "decode dead-letter-replay numbers+roots" }) {
		t.Errorf("%d letters wait, want %d: %q", len(waiting), undecoded, slices.Compact(waiting))
	}
	look, err := New(t.Context(), pl.spec, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	for _, l := range p.letters[:12] {
		parts := strings.Split(l, "|")
		offset, err := strconv.ParseInt(parts[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"numbers": "of a replay, and its dead letter waits", "roots": "of a replay, and its dead letter waits"}
		if parts[1] != "" {
			want = map[string]string{parts[1]: "rejected (cast) in batch 0, and a replay of its dead letter has taken it"}
		}
		got, err := look.LetterOf(t.Context(), "things", 0, offset)
		if err != nil || len(got) != len(want) {
			t.Errorf("%s: %v %v", l, got, err)
		}
		for sink, text := range want {
			if !strings.Contains(got[sink], text) && !strings.Contains(got[sink], strings.Replace(text, "batch 0", "batch 1", 1)) {
				t.Errorf("%s: %s: %q is not in %q", l, sink, text, got[sink])
			}
		}
	}
	report, err := look.Verify(t.Context(), time.Now(), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range report.Tables {
		for _, f := range table.Findings {
			t.Errorf("%s: %s: %.300s", table.Table, f.Where, f.What)
		}
	}
}

// sealed are the letters of the first batches of a pipeline that has run, as a plan
// names them.
func sealed(t *testing.T, batches int64) (*waiting, []batch.Range) {
	t.Helper()
	pl, err := New(t.Context(), newPoisoned(t).spec(t, t.TempDir(), toTable), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pl.Close)
	if err := pl.Run(t.Context(), t.Context()); err != nil {
		t.Fatal(err)
	}
	w := pl.newWaiting()
	ranges := []batch.Range{{TopicPartition: streamPartition(batch.StreamMain), End: batches}}
	if err := w.Seal(t.Context(), ranges); err != nil {
		t.Fatal(err)
	}
	if _, err := w.job(t.Context(), batch.Job{Ranges: ranges}); err != nil {
		t.Fatal(err)
	}
	return w, ranges
}

// TestLettersDeleted: a batch whose letters are not those that it was planned with is
// not run.
func TestLettersDeleted(t *testing.T) {
	w, ranges := sealed(t, 5)
	none := func(arrow.RecordBatch) error { return nil }
	if tally, err := w.Read(t.Context(), ranges, none, none); err != nil || tally.Data != ranges[0].Records || tally.Data == 0 {
		t.Errorf("%d letters were read of %d: %v", tally.Data, ranges[0].Records, err)
	}
	for name, change := range map[string]func(r *batch.Range){"others": func(r *batch.Range) { r.Digest = "00" + r.Digest[2:] + "0" }, "fewer": func(r *batch.Range) { r.Records++ }} {
		other := slices.Clone(ranges)
		change(&other[0])
		if _, err := w.Read(t.Context(), other, none, none); !errors.Is(err, batch.ErrDataLost) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLettersInSlices: letters that are large are read a few at a time, each once.
func TestLettersInSlices(t *testing.T) {
	w, ranges := sealed(t, 8)
	none := func(arrow.RecordBatch) error { return nil }
	for most, atLeast := range map[int64]int{1: 60, 100: 15, 1000: 2, 1 << 20: 1} {
		w.most = most
		total := 0
		for _, g := range w.groups {
			slices, err := w.slices(t.Context(), g, ranges)
			if err != nil {
				t.Fatal(err)
			}
			total += len(slices)
			for _, slice := range slices {
				err := w.query(t.Context(), "SELECT sum("+payloadBytes+")::BIGINT, count(*) FROM letters WHERE "+w.ofGroup(g, ranges)+slice, func(rows arrow.RecordBatch) error {
					bytes, n := rows.Column(0).(*array.Int64).Value(0), rows.Column(1).(*array.Int64).Value(0)
					if n == 0 || n > 1 && bytes > most {
						t.Errorf("%d letters of %d bytes at once, and the most are %d", n, bytes, most)
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		if total < atLeast {
			t.Errorf("%d slices of at most %d bytes", total, most)
		}
		if tally, err := w.Read(t.Context(), ranges, none, none); err != nil || tally.Data != ranges[0].Records || tally.Data == 0 {
			t.Errorf("%d letters were read of %d: %v", tally.Data, ranges[0].Records, err)
		}
	}
}

// TestLettersOfAnotherColumn: another engine renamed a column of letters, and evolve
// brought it back. Letters from before have no value there now: they are not run as
// what they are not, unless they have got their values back.
func TestLettersOfAnotherColumn(t *testing.T) {
	for _, name := range []string{"value", "code", "headers"} {
		p := newPoisoned(t)
		dir := t.TempDir()
		run := func(more string) *Pipeline {
			pl, err := New(t.Context(), p.spec(t, dir, more), Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pl.Close)
			if err := pl.Run(t.Context(), t.Context()); err != nil {
				t.Fatal(err)
			}
			return pl
		}
		pl := run(toTable)
		rename := func(from, to string) {
			loaded, err := pl.loadTable(t.Context(), config.DeadLetters)
			if err != nil {
				t.Fatal(err)
			}
			tx := loaded.NewTransaction()
			if err := tx.UpdateSchema(true, false).RenameColumn([]string{from}, to).Commit(); err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		refused := func(want string) {
			t.Helper()
			for kind, try := range map[string]func() error{
				"dry": func() error { _, err := pl.TryLetters(t.Context()); return err },
				"run": func() error { _, err := pl.ReplayLetters(t.Context(), t.Context()); return err },
			} {
				if err := try(); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), want) {
					t.Errorf("%s, %s: %v, want %q", name, kind, err, want)
				}
			}
		}
		rename(name, "former")
		refused("name it " + name + " again")
		rename("former", name)
		if got, err := pl.TryLetters(t.Context()); err != nil || got.Letters == 0 {
			t.Errorf("%s: with its name again: %+v, %v", name, got, err)
		}
		rename(name, "former")
		bad := kgo.StringRecord("no json")
		bad.Topic = "things"
		if err := p.client.ProduceSync(t.Context(), bad).FirstErr(); err != nil {
			t.Fatal(err)
		}
		pl = run(strings.Replace(toTable, "t.bad", "t.bad, evolve: add", 1))
		refused("letters from before its column")
	}
}
