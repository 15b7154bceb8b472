package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

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
