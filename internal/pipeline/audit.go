package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/exec"
	"github.com/frazil-io/frazil/internal/query"
	"github.com/frazil-io/frazil/internal/sink"
)

// checkAudits binds the rules of all sinks.
func (p *Pipeline) checkAudits(ctx context.Context) error {
	for _, name := range p.spec.Sinks.Names {
		s := p.spec.Sinks.By[name]
		for _, rule := range s.Audit.Names {
			if err := exec.CheckAudit(ctx, name, strings.Split(s.Iceberg.Table, "."), p.Schema(name), rule, s.Audit.By[rule].SQL); err != nil {
				return err
			}
		}
	}
	return nil
}

// auditCacheBytes bounds the copies of data files from an object store.
const auditCacheBytes = 1 << 30

// auditor runs a sink's rules over what is staged: driver.Auditor.
type auditor struct {
	p      *Pipeline
	sink   string
	rules  config.Ordered[config.Audit]
	branch string

	mu     sync.Mutex
	engine *query.Engine
}

// auditor is nil for a sink without rules.
func (p *Pipeline) auditor(name string, t *sink.Table) driver.Auditor {
	a := p.newAuditor(name, t)
	if a == nil {
		return nil
	}
	p.closers = append(p.closers, a.close)
	return a
}

func (p *Pipeline) newAuditor(name string, t *sink.Table) *auditor {
	rules := p.spec.Sinks.By[name].Audit
	if len(rules.Names) == 0 {
		return nil
	}
	return &auditor{p: p, sink: name, rules: rules, branch: t.AuditBranch()}
}

// open opens DuckDB over what is staged, once.
func (a *auditor) open(ctx context.Context) (*query.Engine, error) {
	if a.engine != nil {
		return a.engine, nil
	}
	i := a.p.spec.Sinks.By[a.sink].Iceberg
	c, err := a.p.Catalog(ctx, i.Catalog)
	if err != nil {
		return nil, err
	}
	batch := query.Table{Alias: a.sink, Ident: strings.Split(i.Table, "."), Branch: a.branch, Catalog: c, Added: true}
	whole := batch
	whole.Alias, whole.Added = "", false
	a.engine, err = query.Open(ctx, []query.Table{batch, whole}, query.Options{
		Cache: filepath.Join(os.TempDir(), "frazil-audit-"+a.p.spec.Name), CacheBytes: auditCacheBytes,
		MemoryBytes: int64(a.p.spec.Memory) / shareOfTables, Log: a.p.log,
	})
	return a.engine, err
}

func (a *auditor) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.engine != nil {
		a.engine.Close()
	}
}

// broken runs all rules, and returns those that hold what is staged back.
func (a *auditor) broken(ctx context.Context) (broken []HeldBy, err error) {
	e, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	for _, rule := range a.rules.Names {
		rows, example, err := wrongRows(ctx, e, a.rules.By[rule].SQL)
		if err != nil {
			return nil, fmt.Errorf("audit %s: %w\nWhere it is a file of the staged batch that is gone, start again: what is staged is looked at then, and executed again where it lacks a file", rule, err)
		}
		if rows > 0 {
			broken = append(broken, HeldBy{Audit: rule, Rows: rows, Example: example, OnFail: a.rules.By[rule].OnFail})
		}
	}
	return broken, nil
}

// Audit implements driver.Auditor.
func (a *auditor) Audit(ctx context.Context, snapshot int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	broken, err := a.broken(ctx)
	if err != nil || len(broken) == 0 {
		return err
	}
	var texts []string
	stops := false
	for _, b := range broken {
		texts = append(texts, b.Audit+": "+b.found())
		stops = stops || b.OnFail == "stop"
	}
	held := batch.Held{Rule: broken[0].Audit, Reason: fmt.Sprintf("audit %s holds the batch back: %s: %s", broken[0].Audit, oneLine(a.rules.By[broken[0].Audit].SQL), broken[0].found())}
	i := a.p.spec.Sinks.By[a.sink].Iceberg
	stop := fmt.Errorf("%w: the audit of sink %s holds the batch back:\n  %s\nIts rows are in snapshot %d, on branch %s of table %s; nothing of it is on branch %s. "+
		"Correct the SQL or the rule and start again: the batch goes on", batch.ErrInvalid, a.sink, strings.Join(texts, "\n  "), snapshot, a.branch, i.Table, i.Branch)
	if stops {
		return stop
	}
	return &driver.HeldBack{Held: held, Sink: a.sink, Else: stop}
}

func (b HeldBy) found() string {
	return fmt.Sprintf("%s, for instance %s", counted(b.Rows, "row"), b.Example)
}

// wrongRowsMax is how many rows of a rule are counted.
const wrongRowsMax = 1000

var errManyRows = errors.New("many rows")

// wrongRows runs a rule, and returns how many rows came back, and the first one.
func wrongRows(ctx context.Context, e *query.Engine, sql string) (n int64, example string, err error) {
	err = e.Query(ctx, sql, func(*arrow.Schema) error { return nil }, func(rows arrow.RecordBatch) error {
		if n == 0 && rows.NumRows() > 0 {
			example = rowText(rows)
		}
		if n += rows.NumRows(); n >= wrongRowsMax {
			return errManyRows
		}
		return nil
	})
	if errors.Is(err, errManyRows) {
		err = nil
	}
	return n, example, err
}

// valueShown is how much of a value a row shows.
const valueShown = 60

// rowText is the first row, column by column.
func rowText(rows arrow.RecordBatch) string {
	var parts []string
	for c, f := range rows.Schema().Fields() {
		text := "NULL"
		if !rows.Column(c).IsNull(0) {
			text = rows.Column(c).ValueStr(0)
		}
		if cut := []rune(text); len(cut) > valueShown {
			text = string(cut[:valueShown]) + "…"
		}
		parts = append(parts, f.Name+" "+text)
	}
	return strings.Join(parts, ", ")
}

func counted(n int64, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case n >= wrongRowsMax:
		return fmt.Sprintf("%d %ss or more", wrongRowsMax, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
