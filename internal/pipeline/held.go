package pipeline

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/sink"
)

// HeldStatus is a batch that is staged on its branch and not in the table: an audit
// held it back, or a driver audits it at this moment.
type HeldStatus struct {
	Batch    batch.ID  `json:"batch"`
	Rows     int64     `json:"rows"`
	Snapshot int64     `json:"snapshot"`
	Branch   string    `json:"branch"`
	Time     time.Time `json:"time"` // when it was staged
	// Audits are the rules of the spec as it is now that hold it back.
	Audits []HeldBy `json:"audits"`
	// Error says why the rules could not be asked.
	Error string `json:"error,omitempty"`
	Todo  string `json:"todo"`
}

// HeldBy is a rule that holds a batch back.
type HeldBy struct {
	Audit string `json:"audit"`
	// Rows is how many the rule returned; those behind the first thousand are not
	// counted.
	Rows    int64  `json:"rows"`
	Example string `json:"example"`
	OnFail  string `json:"on_fail"`
}

// String is the batch as people read it.
func (h *HeldStatus) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "batch %d is staged and not published: %s in snapshot %d on branch %s", h.Batch, counted(h.Rows, "row"), h.Snapshot, h.Branch)
	for _, a := range h.Audits {
		fmt.Fprintf(&text, "; audit %s holds it back: %s, for instance %s", a.Audit, counted(a.Rows, "row"), a.Example)
	}
	if h.Error != "" {
		text.WriteString("; its audits could not be asked: " + h.Error)
	}
	return text.String() + ". " + h.Todo
}

// held is what is staged in a sink's table; nil if nothing is. Its rules are asked as
// they are in the spec now. newest is the newest logged plan.
func (p *Pipeline) held(ctx context.Context, name string, newest *batch.Plan) (*HeldStatus, error) {
	tbl, err := p.loadTable(ctx, name)
	if err != nil || tbl == nil {
		return nil, err
	}
	branch := batch.AuditBranch(batch.Tag(p.spec.Name, batch.StreamMain))
	s := tbl.Metadata().SnapshotByName(branch)
	if s == nil || s.Summary == nil || published(tbl.Metadata(), s, p.spec.Sinks.By[name].Iceberg.Branch) {
		return nil, nil
	}
	st, err := batch.ParseStamp(s.Summary.Properties)
	if err != nil || st == nil {
		return nil, err // somebody else's: the next staging takes its place
	}
	h := &HeldStatus{Batch: st.Last, Snapshot: s.SnapshotID, Branch: branch, Time: time.UnixMilli(s.TimestampMs).UTC(), Audits: []HeldBy{}}
	h.Rows, _ = strconv.ParseInt(s.Summary.Properties["added-records"], 10, 64)
	h.ask(ctx, p, name)
	h.say(p, name, st, newest)
	return h, nil
}

// published says whether a snapshot is part of a branch.
func published(meta table.Metadata, of *table.Snapshot, branch string) bool {
	s := meta.SnapshotByName(branch)
	if s == nil && branch == table.MainBranch {
		s = meta.CurrentSnapshot()
	}
	for s != nil {
		if s.SnapshotID == of.SnapshotID {
			return true
		}
		if s.ParentSnapshotID == nil {
			return false
		}
		s = meta.SnapshotByID(*s.ParentSnapshotID)
	}
	return false
}

// ask runs the sink's rules over what is staged.
func (h *HeldStatus) ask(ctx context.Context, p *Pipeline, name string) {
	t, err := p.Table(ctx, name)
	if err == nil {
		h.Audits, err = p.askAudits(ctx, name, t)
	}
	if err != nil {
		h.Error = oneLine(strings.ReplaceAll(err.Error(), "\n", " "))
	}
}

func (p *Pipeline) askAudits(ctx context.Context, name string, t *sink.Table) ([]HeldBy, error) {
	a := p.newAuditor(name, t)
	if a == nil {
		return []HeldBy{}, nil
	}
	defer a.close()
	a.mu.Lock()
	defer a.mu.Unlock()
	broken, err := a.broken(ctx)
	if broken == nil {
		broken = []HeldBy{}
	}
	return broken, err
}

// say tells what the next run does with it, and what a person can do.
func (h *HeldStatus) say(p *Pipeline, name string, st *batch.Stamp, newest *batch.Plan) {
	stops := false
	var rules []string
	for _, a := range h.Audits {
		rules = append(rules, a.Audit)
		stops = stops || a.OnFail == "stop"
	}
	sp := (*batch.SinkPlan)(nil)
	if newest != nil {
		sp = newest.Sink(name)
	}
	switch {
	case newest != nil && (st.Plan != newest.Hash() || sp == nil):
		h.Todo = "It is not of the newest plan: the next run executes the batch again and removes what is staged"
	case newest != nil && sp.Hash != p.sinkHash(name):
		h.Todo = "The sink's spec is another one now: the next run executes the batch again with it, and audits it anew"
	case h.Error != "":
		h.Todo = "The next run audits it again"
	case stops:
		h.Todo = fmt.Sprintf("Correct the SQL of the sink or rule %s and run again; or take the rule out to publish the batch as it is", strings.Join(rules, ", "))
	case len(rules) > 0:
		h.Todo = "The next run makes dead letters of its records"
	default:
		h.Todo = "No rule of the spec holds it back: a driver is about to publish it, or the next run does"
	}
}
