package driver

import (
	"context"
	"sync/atomic"

	"github.com/frazil-io/frazil/internal/batch"
)

// Of one batch the tables of a sink that feeds many do not wait for each other: a
// row is in one of them only, and each commit asserts its own table. So the first
// try of several is made at once. What does not go through, for whatever reason,
// is left to commitSink, table by table: it looks, it waits, it judges. That all
// of them are known before the next plan is logged holds as before, and dead
// letters, which come last, wait for all.

// atOnce is how many tables are loaded, or committed to, at once where a sink
// feeds many.
const atOnce = 16

// firstTry is what the first try of a commit came to.
type firstTry struct {
	view   View // of the table before it; nil: not loaded, or a commit was sent since
	sent   int
	failed error    // of what was sent
	landed *outcome // nil: it is not known
}

// oneSink is how many tables at the front are of one sink.
func oneSink(parts []*sink) int {
	n := 1
	for n < len(parts) && parts[0].of != nil && parts[n].of == parts[0].of {
		n++
	}
	return n
}

// beside runs f for 0 to n-1, several at once; whoever f says has failed does not
// go on, so that a server that is away is not asked for each.
func (d *Driver) beside(n int, f func(i int) (ok bool)) {
	var next atomic.Int64
	var waits []func()
	for range min(atOnce, n) {
		waits = append(waits, d.rooms.Tasks.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && f(i); i = int(next.Add(1)) - 1 {
			}
		}))
	}
	for _, wait := range waits {
		wait()
	}
}

// tryAtOnce sends the commits of a batch to the tables of one sink, where there
// are several.
func (d *Driver) tryAtOnce(ctx context.Context, p *batch.Plan, ready *prepared, parts []*sink, watch *progress) []firstTry {
	tries := make([]firstTry, len(parts))
	if len(parts) == 1 {
		return tries
	}
	d.beside(len(parts), func(i int) bool { return d.tryFirst(ctx, p, ready, parts[i], &tries[i]) })
	for _, try := range tries {
		watch.tries += try.sent
	}
	return tries
}

// tryFirst sends the commit of one table, unless something about it wants to be
// judged first.
func (d *Driver) tryFirst(ctx context.Context, p *batch.Plan, ready *prepared, s *sink, try *firstTry) (ok bool) {
	view, err := s.Table.Load(ctx)
	if err != nil {
		return false
	}
	s.see(view)
	res := ready.sinks[s.Name]
	if res == nil || res.stamp == nil || !d.waitsFor(ctx, view, s, p.Sink(s.Name)) || !view.Fits(res.files) {
		try.view = view
		return true
	}
	d.log.Debug("commit sent", "sink", s.Name, "batch", p.Batch, "head", view.Head())
	try.sent = 1
	snapshot, err := view.Commit(ctx, res.stamp, res.files)
	if err != nil {
		try.failed = err
		return false
	}
	d.log.Debug("commit applied", "sink", s.Name, "batch", p.Batch, "snapshot", snapshot)
	try.landed = &outcome{sink: s, landed: res.stamp, snapshot: snapshot}
	return true
}

// waitsFor says whether a table is as the plan says that it is before the commit,
// with nothing that a look would stop at.
func (d *Driver) waitsFor(ctx context.Context, view View, s *sink, sp *batch.SinkPlan) bool {
	if view.Stamp().Hash() != sp.Before.Hash || d.checkUntagged(s, view) != nil || d.checkTag(s, view) != nil {
		return false
	}
	copies, err := view.Copied(ctx)
	return err == nil && len(copies) == 0
}
