package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
)

// messages keeps the log's texts.
type messages struct {
	slog.Handler
	all *[]string
}

func (messages) Enabled(context.Context, slog.Level) bool { return true }
func (m messages) Handle(_ context.Context, r slog.Record) error {
	*m.all = append(*m.all, r.Message)
	return nil
}

// audited is the spec of proof with rules for the odd ids.
func (p *proof) audited(rules string) *config.Spec {
	p.Helper()
	return p.respec(`iceberg: {catalog: lake, table: a.odd}}`, `audit: {`+rules+`}, iceberg: {catalog: lake, table: a.odd}}`)
}

// TestAudit: rows that a rule holds back are on their branch and not in the
// table; when the rule is corrected they are published as they are.
func TestAudit(t *testing.T) {
	p := newProof(t)
	p.spec = p.audited(`small: "SELECT * FROM odd WHERE id > 50", once: "SELECT id FROM a.odd GROUP BY id HAVING count(*) > 1"`)
	p.produce(40)
	p.run()
	p.clean(p.open(Options{ReadOnly: true}))
	p.produce(40)
	held := p.open(Options{AvailableNow: true, Takeover: true})
	err := held.Run(p.Context(), p.Context())
	if !errors.Is(err, batch.ErrInvalid) {
		t.Fatal(err)
	}
	for _, part := range []string{"the audit of sink odd holds the batch back", "small: 15 rows, for instance id 51, kind k0", "branch frazil-proof.audit of table a.odd"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
	counts := func() string {
		return fmt.Sprint(lines(t, p.open(Options{ReadOnly: true}), "SELECT concat(count(*), ' to ', max(id)) FROM odd"))
	}
	if got := counts(); got != "[20 to 39]" {
		t.Fatal(got)
	}
	p.clean(p.open(Options{ReadOnly: true}))

	p.spec = p.audited(`once: "SELECT id FROM a.odd GROUP BY id HAVING count(*) > 1"`)
	var log []string
	next, err := New(t.Context(), p.spec, Options{AvailableNow: true, Takeover: true, Log: slog.New(messages{slog.DiscardHandler, &log})})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if err := next.Run(t.Context(), t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(log, "\n"), "what was staged of this batch is used again") {
		t.Errorf("the batch was executed again: %q", log)
	}
	if got := counts(); got != "[40 to 79]" {
		t.Fatal(got)
	}
	p.clean(p.open(Options{ReadOnly: true}))
}

// TestAuditOfTheTable: a rule over the whole table sees the batch in it.
func TestAuditOfTheTable(t *testing.T) {
	p := newProof(t)
	p.spec = p.audited(`few: "SELECT 'too many' AS what FROM (SELECT count(*) AS n FROM a.odd) WHERE n > 25"`)
	p.produce(40)
	p.run()
	p.produce(20)
	err := p.open(Options{AvailableNow: true, Takeover: true}).Run(p.Context(), p.Context())
	if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "few: 1 row, for instance what too many") {
		t.Fatal(err)
	}
}

// TestAuditToDeadLetters: of a batch that an audit holds back for good, every record
// that has a row in it is a dead letter, once, and the table gets nothing of it,
// wherever the process dies. Later runs of the batch say the same, also when the table
// is such that the audit would.
func TestAuditToDeadLetters(t *testing.T) {
	for name, sql := range map[string]string{"filtered": "", "unnested": `sql: "SELECT id, kind, unnest([1, 2]) AS n FROM clicks WHERE id % 2 = 1"`} {
		t.Run(name, func(t *testing.T) {
			p := newProof(t)
			audit := "audit: {small: {sql: 'SELECT * FROM odd WHERE id BETWEEN 50 AND 60', on_fail: dead_letter}, few: 'SELECT 1 FROM a.odd HAVING count(*) > 100000'}, iceberg: {catalog: lake, table: a.odd}}"
			text := strings.Replace(fmt.Sprintf(proofSpec, p.spec.Checkpoint, p.cluster.ListenAddrs()[0]), "iceberg: {catalog: lake, table: a.odd}}", audit, 1) + "dead_letter: {iceberg: {catalog: lake, table: a.bad}}\n"
			rows := 1
			if sql != "" {
				text = strings.Replace(text, `sql: "SELECT id, kind FROM clicks WHERE id % 2 = 1"`, sql, 1)
				rows = 2
			}
			p.spec = p.parse(text)
			seed := rand.Uint64()
			rnd := rand.New(rand.NewPCG(seed, 1))
			deaths := 0
			for range 4 {
				p.produce(1000)
				for first := true; ; deaths++ {
					c := &killer{left: 2 + rnd.IntN(16)}
					if first { // no batch is done before a death
						c.left, first = 2+rnd.IntN(5), false
					}
					pl, err := New(t.Context(), p.spec, Options{AvailableNow: true, Takeover: true, Rooms: c.rooms})
					if err != nil {
						t.Fatal(err)
					}
					err = pl.Run(t.Context(), t.Context())
					pl.Close()
					if err == nil {
						break
					}
					if !errors.Is(err, errKilled) || deaths > 300 {
						t.Fatalf("seed %d: %v", seed, err)
					}
				}
			}
			looking := p.open(Options{ReadOnly: true})
			got := fmt.Sprint(lines(t, looking, "SELECT concat(count(*), ' from ', min(id), ' to ', max(id), ' sum ', sum(id)) FROM odd"))
			if want := fmt.Sprintf("[%d from 1001 to 3999 sum %d]", rows*1500, rows*(1500*2500)); got != want {
				t.Errorf("seed %d: table: %s, want %s", seed, got, want)
			}
			got = fmt.Sprint(lines(t, looking, `SELECT concat_ws('|', count(*), count(DISTINCT (partition, "offset")), min(json_extract(decode(value), '$.id')::BIGINT), max(json_extract(decode(value), '$.id')::BIGINT), sum(json_extract(decode(value), '$.id')::BIGINT), code, sink, reason)
				FROM dead_letters GROUP BY code, sink, reason`))
			reason := fmt.Sprintf("audit small holds the batch back: SELECT * FROM odd WHERE id BETWEEN 50 AND 60: %d rows, for instance id 51, kind k0", rows*5)
			if want := "[500|500|1|999|250000|constraint|odd|" + reason; !strings.HasPrefix(got, want) {
				t.Errorf("seed %d: letters: %s, want %s", seed, got, want)
			}
			intent, err := looking.Intent(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			told := ""
			for _, s := range intent.Sinks {
				told += fmt.Sprintln(s.Rules)
			}
			if want := "rule audit small: SELECT * FROM odd WHERE id BETWEEN 50 AND 60, else dead_letter; failed so far: 500"; !strings.Contains(told, want) {
				t.Errorf("seed %d: the plan says %q, want %q", seed, told, want)
			}
			p.clean(looking)
			report, err := p.open(Options{ReadOnly: true}).Verify(t.Context(), time.Now(), true)
			if err != nil {
				t.Fatal(err)
			}
			for _, table := range report.Tables {
				for _, f := range table.Findings {
					t.Errorf("seed %d: %s: %s: %s", seed, table.Table, f.Where, f.What)
				}
			}
			for id := range batch.ID(4) {
				if r := p.mustReplay(ReplayOptions{Batch: id}); !r.Equal() {
					t.Errorf("seed %d: batch %d: %+v", seed, id, r.Diffs)
				}
			}
			if deaths < 4 {
				t.Errorf("seed %d: %d deaths", seed, deaths)
			}
		})
	}
}

// TestAuditToDeadLettersAsks: what it needs.
func TestAuditToDeadLettersAsks(t *testing.T) {
	p := newProof(t)
	spec := fmt.Sprintf(proofSpec, p.spec.Checkpoint, p.cluster.ListenAddrs()[0])
	spec = strings.Replace(spec, "table: a.odd}}", "table: a.odd}, audit: {small: {sql: SELECT * FROM odd WHERE id > 50, on_fail: dead_letter}}}", 1)
	_, err := config.Parse("spec.yaml", []byte(spec), nil)
	if err == nil || !strings.Contains(err.Error(), "sinks.odd.audit.small.on_fail: dead_letter needs a place for them") {
		t.Error(err)
	}
	spec += "dead_letter: {iceberg: {catalog: lake, table: a.bad}}\n"
	for change, want := range map[[2]string]string{
		{"SELECT id, kind FROM clicks", "SELECT COLUMNS('id|kind') FROM clicks"}: "cannot be told from which record a row comes",
		{"format: json", "format: json, on_bad_record: fail"}:                    "which needs on_bad_record: dead_letter of source clicks",
		{"WHERE id > 50", "WHERE idd > 50"}:                                      `sinks.odd.audit.small.sql: Binder Error: Referenced column "idd"`,
	} {
		_, err := New(t.Context(), p.parse(strings.Replace(spec, change[0], change[1], 1)), Options{ReadOnly: true})
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", change, err)
		}
	}
}

// stagedFiles are the data files on the branch where a batch waits for its audit, that
// the table does not have.
func (p *proof) stagedFiles(pl *Pipeline) (names []string) {
	p.Helper()
	tbl, err := pl.loadNamed(p.Context(), "lake", "a.odd")
	if err != nil {
		p.Fatal(err)
	}
	meta := tbl.Metadata()
	s := meta.SnapshotByName("frazil-proof.audit")
	if s == nil {
		p.Fatal("nothing is staged")
	}
	files, err := tbl.FS(p.Context())
	if err != nil {
		p.Fatal(err)
	}
	manifests, err := s.Manifests(files)
	if err != nil {
		p.Fatal(err)
	}
	for _, m := range manifests {
		if m.SnapshotID() != s.SnapshotID {
			continue
		}
		for e, err := range m.Entries(files, true) {
			if err != nil {
				p.Fatal(err)
			}
			names = append(names, strings.TrimPrefix(e.DataFile().FilePath(), "file://"))
		}
	}
	return names
}

// TestStagedFileDeleted: a batch that was held back, and of which somebody deleted a
// file, is executed again from its plan.
func TestStagedFileDeleted(t *testing.T) {
	p := newProof(t)
	rules := p.audited(`small: "SELECT * FROM odd WHERE id > 50"`)
	p.spec = rules
	p.produce(40)
	p.run()
	p.produce(40)
	if err := p.open(Options{AvailableNow: true, Takeover: true}).Run(p.Context(), p.Context()); !errors.Is(err, batch.ErrInvalid) {
		t.Fatal(err)
	}
	for _, name := range p.stagedFiles(p.open(Options{ReadOnly: true})) {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	err := p.open(Options{AvailableNow: true, Takeover: true}).Run(p.Context(), p.Context())
	if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "small: 15 rows") {
		t.Fatalf("it was not executed and audited again: %v", err)
	}
	for _, name := range p.stagedFiles(p.open(Options{ReadOnly: true})) {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	p.spec = p.audited(`small: "SELECT * FROM odd WHERE id > 500"`)
	p.run()
	if got := fmt.Sprint(lines(t, p.open(Options{ReadOnly: true}), "SELECT concat(count(*), ' to ', max(id), ' sum ', sum(id)) FROM odd")); got != "[40 to 79 sum 1600]" {
		t.Fatal(got)
	}
	p.clean(p.open(Options{ReadOnly: true}))
}

// TestHeldIsTold: status and plan say which batch waits on its branch, what holds it
// back by the rules as they are now, and what comes next.
func TestHeldIsTold(t *testing.T) {
	p := newProof(t)
	rules := `small: "SELECT * FROM odd WHERE id > 50", few: "SELECT count(*) AS n FROM a.odd HAVING count(*) > 1000"`
	p.spec = p.audited(rules)
	p.produce(40)
	p.run()
	told := func() *HeldStatus {
		t.Helper()
		s := p.open(Options{ReadOnly: true}).Status(p.Context(), time.Now())
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		i := p.intent()
		if a, b := fmt.Sprint(s.Sinks[1].Held), fmt.Sprint(i.Sinks[1].Held); a != b || s.Sinks[0].Held != nil {
			t.Fatalf("status says %s, plan %s", a, b)
		}
		if h := i.Sinks[1].Held; h != nil && !strings.Contains(strings.Join(i.Steps, "\n"), h.Todo) {
			t.Errorf("no step of the plan is %q: %q", h.Todo, i.Steps)
		}
		return s.Sinks[1].Held
	}
	if h := told(); h != nil {
		t.Fatal(h)
	}
	p.produce(40)
	if err := p.open(Options{AvailableNow: true, Takeover: true}).Run(p.Context(), p.Context()); !errors.Is(err, batch.ErrInvalid) {
		t.Fatal(err)
	}
	is := func(parts ...string) {
		t.Helper()
		h := told()
		text := fmt.Sprint(h)
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%q is not in: %s", part, text)
			}
		}
		if h == nil || h.Batch != 1 || h.Rows != 20 || h.Branch != "frazil-proof.audit" || h.Snapshot == 0 {
			t.Fatalf("%+v", h)
		}
	}
	is("batch 1 is staged and not published: 20 rows in snapshot", "audit small holds it back: 15 rows, for instance id 51, kind k0", "or rule small and run again; or take the rule out")
	held := p.spec
	p.spec = p.respec("SELECT id, kind FROM clicks WHERE id % 2 = 1", "SELECT id, kind FROM clicks WHERE id % 2 = 1 AND id <= 50")
	is("The sink's spec is another one now")
	p.spec = held
	p.spec = p.audited(`small: "SELECT * FROM odd WHERE id > 500"`)
	is("No rule of the spec holds it back")
	p.run()
	if h := told(); h != nil {
		t.Fatal(h)
	}
}
