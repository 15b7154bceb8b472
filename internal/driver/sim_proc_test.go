package driver_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/checkpoint"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/planner"
)

// proc is one process: the driver, or an operator's command. Its calls that
// leave the process yield first, so that anything can happen in between; a kill
// unwinds it at such a call.
type proc struct {
	id     int
	w      *world
	pipe   int // which of the pipelines
	host   string
	stands bool // by
	// command is what an operator asked for; nil: run.
	command  func(ctx context.Context, d *driver.Driver) error
	main     *coroutine
	tasks    []*coroutine // beside main, unfinished
	current  *coroutine
	joining  *coroutine // main waits for it
	alive    bool
	err      error
	runs     int
	ids      int
	spec     [simSinks]int
	onLoss   bool
	exec     *simExecutor
	reader   int32 // the schema that its rooms read with
	poisoned int
	plan     *batch.Plan // the newest it logged or found
	inc      batch.Incarnation
	sawBack  bool   // a table that was rolled back
	sawStamp bool   // in a table
	calm     bool   // Kafka had nothing new
	waiting  string // for a server
	outcome  []batch.Outcome
	stop     context.CancelFunc
	stopped  bool
	hooks    []func()
	reading  int // reads of Kafka under way
	rests    int // calm sleeps since faults stopped
	mended   bool
	batches  map[string]made // by attempt
}

type coroutine struct {
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	done  bool
	call  string // the one before which it waits, in a scenario
}

// crash unwinds a killed process.
type crash struct{}

func (p *proc) spawn(f func()) *coroutine {
	c := &coroutine{}
	c.next, c.stop = iter.Pull(func(yield func(struct{}) bool) {
		defer func() {
			c.done = true
			switch r := recover().(type) {
			case nil, crash:
			default:
				panic(r)
			}
		}()
		c.yield = yield
		f()
	})
	return c
}

// io is called before each call that leaves the process.
func (p *proc) io(format string, args ...any) {
	if p.w.scripted {
		p.current.call = fmt.Sprintf(format, args...)
	}
	if !p.current.yield(struct{}{}) {
		panic(crash{})
	}
	if p.w.tracing {
		p.w.note("d%d: "+format, append([]any{p.id}, args...)...)
	}
}

// Go runs f as a coroutine beside the others: driver.Tasks.
func (p *proc) Go(f func()) (wait func()) {
	c := p.spawn(f)
	p.tasks = append(p.tasks, c)
	return func() {
		for !c.done {
			p.joining = c
			if !p.current.yield(struct{}{}) {
				panic(crash{})
			}
		}
		p.joining = nil
	}
}

// After runs f as a coroutine when the end is asked for: driver.Tasks.
func (p *proc) After(_ context.Context, f func()) (cancel func() bool) {
	i := len(p.hooks)
	p.hooks = append(p.hooks, f)
	return func() bool { p.hooks[i] = func() {}; return true }
}

// terminate asks the driver to end.
func (p *proc) terminate() {
	if !p.alive || p.stopped {
		return
	}
	p.w.note("process %d is asked to end", p.id)
	p.stopped = true
	p.stop()
	for _, f := range p.hooks {
		p.Go(f)
	}
}

// Now and Sleep are driver.Clock.
func (p *proc) Now() time.Time { return p.w.now }

func (p *proc) Sleep(ctx context.Context, d time.Duration) error {
	p.io("sleep %s", d)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	p.w.now = p.w.now.Add(d)
	if p.calm {
		p.rests++
	}
	return context.Cause(ctx)
}

// The observer.

func (p *proc) Batch(g driver.Progress) {
	p.w.toldAhead = p.w.toldAhead || p.reading > 0
	p.outcome = g.Outcome
	if p.plan != nil && p.plan.Batch == g.Batch {
		p.w.checkKnown(p, p.plan)
	}
}
func (p *proc) Listed(_ time.Time, lag int64) { p.calm = lag == 0 }
func (p *proc) Waiting(reason string) {
	p.waiting = reason
	p.calm = p.calm && reason == ""
}
func (p *proc) Standby(reason string) { p.stands = reason != "" }

// simCheckpoint is the real checkpoint, watched.
type simCheckpoint struct {
	*checkpoint.Checkpoint
	p *proc
}

func (c simCheckpoint) Append(ctx context.Context, plan *batch.Plan) error {
	if c.p.stopped && c.p.w.plans[plan.Hash()] == nil && plan.Revision == 0 {
		c.p.w.fail("begins at the end", "process %d plans batch %d though it was asked to end", c.p.id, plan.Batch)
	}
	c.p.w.plans[plan.Hash()] = plan
	err := c.Checkpoint.Append(ctx, plan)
	if err == nil {
		c.p.plan = plan
		c.p.w.checkRanges(plan)
		c.p.w.noteLogged(plan)
	}
	return err
}

func (c simCheckpoint) CreateIncarnation(ctx context.Context, i batch.Incarnation) error {
	if i.Kind == batch.First && c.p.sawStamp {
		c.p.w.fail("forgotten", "process %d begins a new pipeline, though a table carries a stamp", c.p.id)
	}
	return c.Checkpoint.CreateIncarnation(ctx, i)
}

func (c simCheckpoint) Newest(ctx context.Context, i batch.Incarnation) (*batch.Plan, error) {
	c.p.inc = i
	plan, err := c.Checkpoint.Newest(ctx, i)
	if err == nil && plan != nil {
		c.p.w.noteLogged(plan)
		c.p.plan = plan
	}
	return plan, err
}

func (p *proc) newer(st *batch.Stamp) bool { return p.inc.Newer(st.Incarnation, st.IncarnationID) }

func (p *proc) start() {
	w := p.w
	*p = proc{id: p.id, w: w, pipe: p.pipe, host: p.host, command: p.command, runs: p.runs + 1, alive: true, spec: w.spec, onLoss: w.onLoss, reader: w.schema, mended: w.mended, batches: map[string]made{}}
	if p.pipe == simReplays && w.cfg.forgets { // without a checkpoint nothing tells that the spec was changed
		p.mended, p.spec = true, [simSinks]int{2, 2, 2}
	}
	p.exec = &simExecutor{p: p, overlays: map[string]*overlay{}}
	w.note("process %d starts (spec %v)", p.id, p.spec)
	rooms, opts := p.rooms()
	if w.between != nil {
		w.between(&rooms)
	}
	d := driver.New(rooms, opts, slog.New(slog.DiscardHandler), p)
	var stop context.Context
	stop, p.stop = context.WithCancel(context.Background())
	p.main = p.spawn(func() {
		if p.command != nil {
			p.err = p.command(context.Background(), d)
			return
		}
		p.err = d.Run(context.Background(), stop)
	})
}

// rooms is the world as the process sees it.
func (p *proc) rooms() (driver.Rooms, driver.Options) {
	w := p.w
	rooms := driver.Rooms{
		Source: simSource{p}, Readers: simReaders{p}, Executor: p.exec, Checkpoint: simCheckpoint{checkpoint.New(simStore{p}, simPipelines[p.pipe]), p},
		Clock: p, Tasks: p, NewID: func() string { p.ids++; return fmt.Sprintf("p%d.%d.%d", p.id, p.runs, p.ids) },
		Alive: func(wr batch.Writer) bool {
			return w.procs[wr.PID].alive && wr.ID == fmt.Sprintf("w%d.%d", wr.PID, w.procs[wr.PID].runs)
		},
	}
	opts := driver.Options{
		Name: p.name(), Stream: p.stream(), Writer: batch.Writer{ID: fmt.Sprintf("w%d.%d", p.id, p.runs), Host: p.host, PID: p.id},
		Limits: planner.Limits{RecordsMax: 2 * simPartitions, BytesMax: 2 * simPartitions}, Sources: planner.Sources{simRelation: {RecordLoss: p.onLoss}}, KeepBatches: 3, Trigger: driver.Trigger{Interval: w.cfg.interval}, Takeover: !w.cfg.standby,
		StartTimeout: time.Hour,
	}
	if w.cfg.letters {
		opts.DeadLetters, opts.MaxFraction = sinkName(w.letterSink()), 1
	}
	for i := range w.tables {
		if w.adopt[i] != 0 {
			opts.Adopt = append(opts.Adopt, fmt.Sprintf("%s@%d", w.nameOf(i), w.adopt[i]))
		}
		s := w.sinkIndexOf(i)
		switch {
		case w.out[s], w.routed(i) && i > 1:
		case w.routed(i):
			rooms.Sinks = append(rooms.Sinks, driver.Sink{Name: sinkName(s), Hash: p.hash(s), Tables: simRouter{p}})
		default:
			one := driver.Sink{Name: sinkName(s), Hash: p.hash(s), Table: simSink{p, i}}
			if w.audits(i) {
				one.Audit = simAuditor{simSink{p, i}}
			}
			rooms.Sinks = append(rooms.Sinks, one)
		}
	}
	if p.pipe == simReplays {
		p.replays(&rooms, &opts)
	}
	return rooms, opts
}

// hash is that of a sink's spec.
func (p *proc) hash(i int) string {
	if p.pipe == simReplays { // what the source can decode counts, too
		return fmt.Sprint(p.spec[:p.w.sinks()], p.mended, i == p.w.letterSink())
	}
	if p.w.cfg.letters && i == p.w.letterSink() {
		return p.w.lettersHash(p.spec)
	}
	return specHash(p.spec[i])
}

func (p *proc) kill() {
	if !p.alive {
		return
	}
	p.end()
	p.err = nil
	p.w.note("process %d crashes", p.id)
}

func (p *proc) end() {
	p.main.stop()
	for _, c := range p.tasks {
		c.stop()
	}
	p.alive = false
}

// ready returns the coroutines that can run, the driver itself last.
func (p *proc) ready() []*coroutine {
	run := p.tasks
	if p.joining == nil || p.joining.done {
		run = append(run[:len(run):len(run)], p.main)
	}
	return run
}

// step runs one of the process's coroutines up to its next call.
func (p *proc) step() {
	run := p.ready()
	p.run(run[p.w.any(len(run))])
}

// run runs one coroutine up to its next call.
func (p *proc) run(c *coroutine) {
	p.current = c
	c.next()
	if !c.done {
		return
	}
	if c != p.main {
		for i := range p.tasks {
			if p.tasks[i] == c {
				p.tasks = append(p.tasks[:i:i], p.tasks[i+1:]...)
				break
			}
		}
		return
	}
	p.end()
	if p.err == nil && p.pipe == simReplays && !p.stopped {
		p.w.replayed++
		p.w.note("process %d has run all letters", p.id)
	}
	if p.err != nil {
		p.w.note("process %d stops: %v", p.id, p.err)
		p.w.judge(p)
	}
}

// judge asks whether a stop is justified, and lets the operator act.
func (w *world) judge(p *proc) {
	says := func(s string) bool { return strings.Contains(p.err.Error(), s) }
	switch {
	case errors.Is(p.err, batch.ErrFenced):
		w.expect(p, !w.alone(p))
	case errors.Is(p.err, batch.ErrInvalid) && says("is at work"):
		w.expect(p, w.cfg.replays > 0 && p.command != nil)
	case says("letters were run again in the table") && p.command != nil:
		w.expect(p, w.cfg.replays > 0)
	case says("dead letters were run again in"):
		w.expect(p, w.cfg.rewind && w.cfg.replays > 0)
		w.operator(p.pipe, "recover", func(ctx context.Context, d *driver.Driver) error { return d.Recover(ctx, "") })
	case p.pipe == simReplays && says("no stamp"): // it will come
	case says("letters of stream"):
		w.expect(p, w.cfg.rewind && w.cfg.replays > 0)
	case errors.Is(p.err, batch.ErrInvalid) && says("left the spec"):
		w.expect(p, w.out[1])
		w.join()
	case errors.Is(p.err, batch.ErrInvalid) && says("under another spec"):
		w.respec(p)
	case errors.Is(p.err, batch.ErrInvalid) && says("was planned with another spec"):
		w.expect(p, w.cfg.deploy || w.cfg.poison)
		w.reroute(p)
	case errors.Is(p.err, batch.ErrInvalid) && says("does not name"):
		w.expect(p, w.fickle > 0)
	case errors.Is(p.err, batch.ErrInvalid) && says("in some of its tables only"):
		w.expect(p, (w.cfg.deploy || w.cfg.poison) && (w.losses > 0 || w.cfg.joins))
		w.reroute(p)
	case errors.Is(p.err, batch.ErrInvalid) && says("record"):
		w.spec[p.poisoned] = 2
	case errors.Is(p.err, batch.ErrInvalid) && says("a rule holds"): // started again, it is asked again
	case errors.Is(p.err, batch.ErrInvalid) && says("was dropped and made again"):
		w.expect(p, w.drops > 0)
	case errors.Is(p.err, batch.ErrInvalid) && says("does not exist"):
		w.expect(p, w.deleted)
	case errors.Is(p.err, batch.ErrInvalid) && p.command != nil:
	case !errors.Is(p.err, batch.ErrDataLost):
		w.fail("unjustified stop", "process %d: %v", p.id, p.err)
	case says("was rolled back."), says("rolled back behind"):
		w.expect(p, p.sawBack)
	case says("cannot be told"):
		for i, t := range w.tables {
			if t.ancestry(p.pipe) == batch.UnknownAncestor && t.truly() {
				w.adopt[i] = t.head
			}
		}
	case says("no longer retained"), says("was deleted"):
		w.onLoss = true
	case says("offset ") && says("of t/"): // a logged batch is lost
		w.onLoss = true
	case says("lost the record that it acknowledged"):
		w.expect(p, w.losses > 0)
	case says("committed by another writer"), says("another writer's"):
		w.drop = true
		if p.command == nil { // a rewind was recorded that cannot be completed as it is
			w.operator(p.pipe, "rewind, dropping foreign snapshots", func(ctx context.Context, d *driver.Driver) error {
				err := d.Rewind(ctx, w.rewound, true)
				if errors.Is(err, batch.ErrInvalid) { // what it went back to has expired: stay instead
					err = d.Recover(ctx, "")
				}
				return err
			})
		}
	case says("has expired"):
		w.expect(p, p.command != nil || w.drops > 0)
		w.operator(p.pipe, "recover", func(ctx context.Context, d *driver.Driver) error { return d.Recover(ctx, "") })
	case says("two histories"):
		w.expect(p, w.drops > 0 || p.sawBack)
		w.operator(p.pipe, "recover", func(ctx context.Context, d *driver.Driver) error { return d.Recover(ctx, "") })
	case says("put the tag back"):
		w.expect(p, w.untagged > 0)
		w.putTagsBack()
	case says("put the tag on snapshot"):
		w.expect(p, w.byHand)
	case says("that this pipeline has not committed"):
		w.expect(p, w.byHand)
	case says("frazil checkpoint recover"):
		w.expect(p, w.losses+w.drops > 0 || p.sawBack)
		w.operator(p.pipe, "recover", func(ctx context.Context, d *driver.Driver) error { return d.Recover(ctx, "") })
	case says("its tag was moved back"):
		w.expect(p, w.drops > 0)
	default:
		w.expect(p, false)
	}
}

// reroute gives the sink that feeds many its former spec back.
func (w *world) reroute(p *proc) {
	if p.pipe == simReplays {
		w.respec(p)
		return
	}
	w.spec[1] = 3 - p.spec[1]
}

// respec gives a sink the spec back that its dead letters wait for.
func (w *world) respec(p *proc) {
	if p.pipe == simReplays { // it does not know what it was: it tries all
		w.tried++
		w.mended = w.tried&1 != 0
		for i := range w.sinks() {
			w.spec[i] = 1 + w.tried>>(1+i)&1
		}
		w.note("operator: the source is mended: %v, specs %v", w.mended, w.spec)
		return
	}
	for i := range w.sinks() {
		if strings.Contains(p.err.Error(), "sink "+sinkName(i)+" has batch") {
			w.spec[i] = 3 - p.spec[i]
			w.note("operator: sink %d gets spec %d back", i, w.spec[i])
		}
	}
}

func (w *world) expect(p *proc, justified bool) {
	if !justified {
		w.fail("unjustified stop", "process %d: %v", p.id, p.err)
	}
}

func (w *world) allTruly() bool {
	for _, t := range w.tables {
		if !t.truly() {
			return false
		}
	}
	return true
}

// operator starts a command.
func (w *world) operator(pipe int, what string, command func(context.Context, *driver.Driver) error) {
	for _, p := range w.procs[w.cfg.daemons():] {
		if p.alive {
			return
		}
	}
	w.note("operator: %s", what)
	p := &proc{id: len(w.procs), w: w, pipe: pipe, command: command}
	w.procs = append(w.procs, p)
	p.start()
}
