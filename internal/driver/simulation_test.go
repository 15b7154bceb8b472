package driver_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
)

var (
	simSeeds = flag.Uint64("seeds", 200, "simulated runs")
	simFirst = flag.Uint64("first", 1, "first seed")
	simShow  = flag.Bool("shrink", true, "look for the shortest way to a violation, and print it")
	simPairs = flag.Bool("pairs", false, "kill at each pair of calls; where a letter is run again, which takes many, at one of 29 or 97")
	simOnly  = flag.String("focus", "", "only this focus: random, lagging, revising, joining, lettering, routing, routed-letters, replaying, routed-replay or exhaustive")
)

// event lets one thing happen.
func (w *world) event() {
	c := w.cfg
	b := func(on bool, weight int) int {
		if on {
			return weight
		}
		return 0
	}
	ti := 0
	if len(w.tables) > 1 && c.foreign {
		ti = w.any(len(w.tables))
	}
	undo := slices.ContainsFunc(w.tables, func(t *simTable) bool { return t.before != 0 })
	switch w.pick(100, b(len(w.procs) > 1, 8+2*c.hot), b(len(w.pending) > 0, 8), b(len(w.pending) > 1, 8), 12, 4,
		b(c.foreign, 2), b(c.foreign, 2), b(c.foreign, 2), b(c.foreign, 1), b(undo, 12), b(c.foreign, 1),
		b(c.retention, 1+c.hot), b(c.loss && w.losses < 2 && !(c.deploy && c.routed && c.letters), 1), b(c.rewind && len(w.procs) <= c.daemons(), 2),
		3, b(c.remake && w.topicID < 2, 1), b(c.foreign && c.remake && w.drops < 1, 1), b(c.deploy, 3), b(c.foreign && w.untagged < 2, 1),
		b(c.joins && w.mayJoin(), 2), b(c.remake && w.topicID < 2 && !w.deleted, 1), 2, b(c.schemas, 3), b(c.replays > 0, 1), b(c.replays > 0 && c.loss && w.losses < 3, 2)) {
	case 0:
		w.turn(w.cur)
	case 1:
		w.cur = (w.cur + 1) % len(w.procs)
		w.turn(w.cur)
	case 2:
		w.deliver(0)
	case 3:
		w.deliver(1 + w.any(len(w.pending)-1))
	case 4:
		w.produce(int32(w.any(simPartitions)))
	case 5:
		w.procs[w.cur].kill()
	case 6:
		w.foreignAppend(ti)
	case 7:
		w.compact(ti)
	case 8:
		w.expire(ti)
	case 9:
		w.rollback(ti)
	case 10:
		for i := range w.tables {
			w.undo(i)
		}
	case 11:
		if w.tables[ti].missing {
			return
		}
		w.tables[ti].schema++
		w.note("foreign: t%d schema %d", ti, w.tables[ti].schema)
	case 12:
		part := w.part(w.tp(int32(w.any(simPartitions))))
		part.start = min(int64(len(part.records)), part.start+1+int64(w.any(3)))
		w.note("kafka: retention, log start %d", part.start)
	case 13:
		w.loseCheckpoint()
	case 14:
		w.startRewind()
	case 15:
		w.now = w.now.Add(6 * 60e9)
		w.note("six minutes pass")
	case 16:
		w.makeTopic()
		w.note("kafka: the topic is deleted and made again as %s", w.topic())
	case 17:
		w.remakeTable(ti)
	case 18:
		s := w.any(w.sinks())
		w.spec[s] = 3 - w.spec[s]
		w.note("operator: sink %d gets spec %d", s, w.spec[s])
	case 19:
		w.removeTag(ti)
	case 20:
		w.join()
	case 21:
		w.deleted = true
		w.note("kafka: the topic is deleted")
	case 22:
		w.procs[w.cur].terminate()
	case 23:
		w.register()
	case 24:
		w.mended = !w.mended
		w.note("operator: the source is mended: %v", w.mended)
	case 25:
		w.loseReplay()
	}
}

// turn lets process i make one step; a driver that has ended is started again.
func (w *world) turn(i int) {
	p := w.procs[i]
	switch {
	case p.alive:
		p.step()
	case p.command == nil:
		p.start()
	default:
		w.cur = 0
	}
}

func (w *world) startRewind() {
	pipe := w.any(w.cfg.pipes())
	st := w.tables[0].stamp(pipe)
	if st == nil {
		return
	}
	to := max(0, st.Last-1-batch.ID(w.any(3)))
	w.rewound = to
	w.operator(pipe, fmt.Sprintf("rewind to batch %d", to), func(ctx context.Context, d *driver.Driver) error { return d.Rewind(ctx, to, w.drop) })
}

// simulate makes one run: chaos for cfg.steps events, then quiet until all is
// committed, or a driver has stopped for good reason.
func simulate(c *chooser, cfg simConfig, tracing bool) *world {
	w := newWorld(c, cfg)
	w.tracing = tracing
	defer func() {
		for _, p := range w.procs {
			if p.alive {
				p.end()
			}
		}
	}()
	for p := range int32(simPartitions) {
		for range 2 + cfg.backlog {
			w.produce(p)
		}
	}
	for i := range cfg.steps {
		if cfg.replays > 0 && cfg.kills != nil { // the drivers take turns, and the replay dies
			w.cur = i % len(w.procs)
		}
		if slices.Contains(cfg.kills, i) {
			if cfg.replays > 0 {
				w.cur = cfg.drivers + (i+1)%cfg.replays
			}
			w.procs[w.cur].kill()
			switch {
			case cfg.forgets && cfg.replays > 0:
				w.loseReplay()
			case cfg.forgets:
				w.loseCheckpoint()
			}
		} else {
			w.event()
		}
		w.steps++
		if w.checkFiles(); w.bad != nil {
			return w
		}
	}
	for len(w.pending) > 0 {
		if w.pick(1, 1) == 1 {
			w.deliver(0)
		} else {
			w.pending = w.pending[1:]
		}
	}
	w.settle()
	return w
}

// settle runs all processes without faults until one is idle.
func (w *world) settle() {
	w.quiet = true
	w.note("--- quiet")
	for i := range w.tables {
		w.undo(i)
	}
	w.putTagsBack()
	if w.deleted {
		w.makeTopic()
	}
	if w.out[1] {
		w.join()
	}
	for _, p := range w.procs {
		p.rests = 0
	}
	idle := make([]bool, w.cfg.pipes())
	w.mended = true
	ends := 0 // how often all letters had been run when the drivers were idle
	for i := range 12000 {
		w.turn(i % len(w.procs))
		w.steps++
		if w.checkFiles(); w.bad != nil {
			return
		}
		if i > 3000 && (!w.allTruly() || w.drops > 0) {
			w.note("a table stays rolled back or dropped")
			return
		}
		p := w.procs[i%len(w.procs)]
		if p.pipe == simReplays {
			continue
		}
		idle[p.pipe] = idle[p.pipe] || p.rests > 30 && p.alive && p.command == nil && w.isNewest(p.inc)
		if idle[p.pipe] && p.calm && p.rests > 30 && p.alive && p.waiting != "" {
			w.fail("not ready", "process %d is idle, but waits for %s", p.id, p.waiting)
			return
		}
		if !slices.Contains(idle, false) {
			if w.cfg.replays > 0 {
				if ends == 0 {
					ends = w.replayed + w.cfg.replays + 1 // one that begins now
				}
				if w.replayed < ends {
					continue
				}
				w.checkAllReplayed()
			}
			for pipe := range idle {
				w.checkEnd(pipe)
			}
			return
		}
	}
	w.fail("no progress", "not all records are committed though faults have stopped")
}

// isNewest says whether no record is higher than this one.
func (w *world) isNewest(i batch.Incarnation) bool {
	newest := ""
	for k := range w.store {
		if strings.HasPrefix(k, i.Name+"/pipeline/") && k > newest {
			newest = k
		}
	}
	return strings.Contains(string(w.store[newest]), fmt.Sprintf("%q", i.ID))
}

// vary spreads seeds over configurations, from small to everything at once.
func vary(seed uint64) simConfig {
	return simConfig{
		tables: 1 + int(seed%2), drivers: 1 + int(seed/2%2), steps: 60 + int(seed/4%5)*60, delays: int(seed/20%3) * 3,
		poison: seed/3%2 == 0, foreign: seed/5%2 == 0, retention: seed/7%3 == 0, loss: seed/11%3 == 0, rewind: seed/13%3 == 0,
		sparse: seed/17%2 == 0, hot: int(seed / 19 % 2 * 6), stale: seed/23%2 == 0, remake: seed/29%4 == 0, standby: seed/31%4 == 0,
		shared: seed/37%4 == 0, deploy: seed/41%3 == 0, schemas: seed/43%3 == 0,
		interval: time.Duration(seed/43%3) * 500 * time.Millisecond,
		joins:    seed%2 == 1 && seed/2%3 == 0, latest: seed/47%4 == 0, letters: seed/53%2 == 0, audits: seed/59%3 == 0,
	}
}

// lagging is where the rarest holes were found: two busy drivers, sinks that
// seldom commit, retention at their heels.
func lagging(seed uint64) simConfig {
	return simConfig{tables: 2, drivers: 2, steps: 400, delays: 6, retention: true, sparse: true, hot: 6, audits: seed%3 == 1, letters: seed%3 == 0, poison: seed%6 == 0}
}

// revising is two drivers that seldom have the same spec, and commits on their
// way: all that can be in the log and in the tables of one batch.
func revising(seed uint64) simConfig {
	return simConfig{
		tables: 2, drivers: 2, steps: 300, delays: 6, retention: true, poison: true, deploy: true, schemas: true, sparse: seed%2 == 0,
		foreign: seed%3 == 0, loss: seed%5 == 0, hot: 6, audits: seed%4 == 0, letters: seed%7 < 4,
	}
}

// routing is a sink that feeds many tables, some of them seldom, alone or beside
// another one.
func routing(seed uint64) simConfig {
	return simConfig{
		tables: 1, routed: true, alone: seed%3 == 0, drivers: 1 + int(seed/2%2), steps: 60 + int(seed/4%5)*80, delays: int(seed/20%3) * 3,
		sparse: seed/3%2 == 0, loss: seed/5%2 == 0, retention: seed/7%3 == 0, foreign: seed/11%3 == 0, poison: seed/13%3 == 0,
		deploy: seed/17%3 == 0, stale: seed/19%3 == 0, remake: seed/23%4 == 0, standby: seed/29%4 == 0, joins: seed/31%3 == 0 && seed%3 != 0,
		latest: seed/37%4 == 0, hot: int(seed / 41 % 2 * 6), interval: time.Duration(seed/43%3) * 500 * time.Millisecond,
		shared: seed/47%4 == 0 && seed%3 != 0, schemas: seed/53%3 == 0,
	}
}

// joining is a sink that leaves and joins, checkpoints that are lost, and so
// tables that lag by more than a batch.
func joining(seed uint64) simConfig {
	return simConfig{
		tables: 2, drivers: 1 + int(seed%2), steps: 400, delays: int(seed % 3), joins: true, sparse: seed%3 == 0, loss: seed%5 < 2,
		retention: seed%7 == 0, remake: seed%11 == 0, rewind: seed%13 == 0, latest: seed%4 == 0, deploy: seed%17 == 0, letters: seed%19 < 7, poison: seed%19 < 7,
	}
}

// lettering is drivers that die, or change their spec, between a table's commit
// and that of the dead letters.
func lettering(seed uint64) simConfig {
	return simConfig{
		tables: 1 + int(seed%2), drivers: 1 + int(seed/2%2), steps: 300, delays: int(seed % 5), letters: true, poison: true, deploy: seed%4 > 0,
		sparse: seed%3 == 0, foreign: seed%7 == 0, loss: seed%11 == 0, hot: int(seed % 13 / 10 * 6),
	}
}

// routedLettering is a sink that feeds many tables, with dead letters beside it.
func routedLettering(seed uint64) simConfig {
	return simConfig{
		tables: 1, routed: true, letters: true, poison: true, alone: seed%3 == 0, drivers: 1 + int(seed/2%2), steps: 300, delays: int(seed % 5),
		deploy: seed%4 > 1, loss: seed%4 == 0, joins: seed%4 == 1 && seed%3 != 0, sparse: seed/3%2 == 0, retention: seed%7 == 0, foreign: seed%11 == 0,
		schemas: seed%5 == 0, audits: seed%6 == 1, stale: seed%13 == 0, latest: seed%17 == 0, remake: seed%19 == 0, standby: seed%23 == 0,
		interval: time.Duration(seed/43%3) * 500 * time.Millisecond,
	}
}

// replaying is dead letters that are run again beside drivers that make new ones.
func replaying(seed uint64) simConfig {
	return simConfig{
		tables: 1 + int(seed%2), drivers: 1 + int(seed/2%3/2), replays: 1 + int(seed/3%2), steps: 300, delays: int(seed % 4), letters: true, poison: true, deploy: seed%5 > 1,
		sparse: seed%3 == 0, loss: seed%7 == 0, rewind: seed%3 == 0, standby: seed%13 < 6,
	}
}

// routedReplaying is dead letters that are run again into a sink that feeds many
// tables, beside drivers that make the same tables and new letters.
func routedReplaying(seed uint64) simConfig {
	return simConfig{
		tables: 1, routed: true, alone: seed%3 == 0, drivers: 1 + int(seed/2%3/2), replays: 1 + int(seed/3%2), steps: 300, delays: int(seed % 4), letters: true, poison: true,
		deploy: seed%5 > 1, sparse: seed/3%3 == 0, loss: seed%4 == 0, standby: seed%13 < 6, foreign: seed%11 == 0, remake: seed%22 == 0, stale: seed%17 == 0,
	}
}

func runSeed(seed uint64, cfg simConfig, tracing bool) *world {
	return simulate(&chooser{rng: rand.New(rand.NewPCG(seed, 7))}, cfg, tracing)
}

func TestSimulation(t *testing.T) {
	var failed atomic.Bool // one violation is enough for both
	for name, config := range map[string]func(uint64) simConfig{
		"random": vary, "lagging": lagging, "revising": revising, "joining": joining, "lettering": lettering, "routing": routing, "routed-letters": routedLettering, "replaying": replaying, "routed-replay": routedReplaying,
	} {
		if *simOnly != "" && *simOnly != name {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seeds, steps := 0, 0
			for seed := *simFirst; seed < *simFirst+*simSeeds && !failed.Load(); seed++ {
				w := runSeed(seed, config(seed), false)
				seeds++
				steps += w.steps
				if w.bad != nil {
					failed.Store(true)
					t.Fatalf("seed %d: %s: %s\nagain with: go test ./internal/driver -run TestSimulation -args -focus %s -first %d -seeds 1\n%s",
						seed, w.bad.kind, w.bad.text, name, seed, explain(w, config(seed)))
				}
			}
			t.Logf("%d seeds, %d steps, nothing lost, nothing repeated", seeds, steps)
		})
	}
}

// TestBatchIsToldBeforeWorkAheadEnds: people and metrics hear of a commit when it
// is known, though the driver is busy with the batch behind it.
func TestBatchIsToldBeforeWorkAheadEnds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		if runSeed(seed, simConfig{tables: 1, drivers: 1, steps: 200}, false).toldAhead {
			return
		}
	}
	t.Error("in 50 runs no batch was reported while the next one was read")
}

// TestSimulationExhaustive runs every schedule of a small world that differs
// from the fault-free one in one of its first choices.
func TestSimulationExhaustive(t *testing.T) {
	if *simOnly != "" && *simOnly != "exhaustive" {
		return
	}
	t.Parallel()
	runs := 0
	for _, cfg := range []simConfig{
		{tables: 1, drivers: 2, steps: 60, delays: 1},
		{tables: 2, drivers: 1, steps: 80, delays: 1, foreign: true, rewind: true, loss: true, joins: true, schemas: true},
		{tables: 1, drivers: 1, steps: 60, delays: 1, poison: true, letters: true, deploy: true},
		{tables: 1, routed: true, backlog: 1, drivers: 2, steps: 80, delays: 1, loss: true, joins: true},
		{tables: 1, routed: true, alone: true, backlog: 1, drivers: 1, steps: 60, delays: 1, poison: true, letters: true, deploy: true},
	} {
		for i := range 60 {
			for v := 1; v <= 23; v++ {
				runs += deviate(t, cfg, map[int]int{i: v})
			}
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("%d runs", runs)
}

// TestSimulationKills kills the driver at each of its calls while it drains a
// backlog of four batches, each of them running ahead of the last, and at
// pairs of calls: at some of them; with -pairs at all of them, and where letters are
// run again beside it, which makes a million pairs, at many.
func TestSimulationKills(t *testing.T) {
	if *simOnly != "" && *simOnly != "exhaustive" {
		return
	}
	for name, c := range map[string]struct {
		cfg   simConfig
		each  int // of so many pairs one is tried
		pairs int // the same, with -pairs
	}{
		"two":                               {simConfig{tables: 2, drivers: 1, backlog: 6, steps: 1}, 7, 1},
		"routed":                            {simConfig{tables: 1, routed: true, drivers: 1, backlog: 6, steps: 1}, 29, 1},
		"replay":                            {simConfig{tables: 2, drivers: 1, replays: 1, backlog: 6, steps: 1, letters: true, poison: true, rejects: true, kills: []int{}}, 997, 29},
		"replay, without checkpoint":        {simConfig{tables: 1, drivers: 1, replays: 1, backlog: 6, steps: 1, letters: true, poison: true, rejects: true, forgets: true, kills: []int{}}, 997, 29},
		"two replays":                       {simConfig{tables: 1, drivers: 1, replays: 2, backlog: 6, steps: 1, letters: true, poison: true, rejects: true, kills: []int{}}, 1999, 97},
		"routed replay":                     {simConfig{tables: 1, routed: true, drivers: 1, replays: 1, backlog: 6, steps: 1, letters: true, poison: true, rejects: true, kills: []int{}}, 997, 29},
		"routed replay, without checkpoint": {simConfig{tables: 1, routed: true, alone: true, drivers: 1, replays: 1, backlog: 6, steps: 1, letters: true, poison: true, rejects: true, forgets: true, kills: []int{}}, 997, 29},
		"routed, without checkpoint":        {simConfig{tables: 1, routed: true, drivers: 1, backlog: 6, steps: 1, forgets: true}, 31, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each := c.each
			if *simPairs {
				each = c.pairs
			}
			killed(t, c.cfg, each)
		})
	}
}

func killed(t *testing.T, cfg simConfig, each int) {
	whole := simulate(&chooser{}, cfg, false) // undisturbed
	if whole.bad != nil {
		t.Fatalf("without kills: %s: %s", whole.bad.kind, whole.bad.text)
	}
	calls := whole.steps - 40 // at the end it is idle
	if cfg.replays > 0 && whole.replayed == 0 {
		t.Fatal("no letter was run again")
	}
	cfg.steps = calls
	runs := 0
	for i := range calls {
		for j := i; j < calls && !t.Failed(); j++ {
			if cfg.replays > 0 && !*simPairs && i%4 != 0 { // these runs are long
				continue
			}
			if j > i && (i*calls+j)%each != 0 {
				continue
			}
			cfg.kills = []int{i, j}
			runs++
			if w := simulate(&chooser{}, cfg, false); w.bad != nil {
				t.Errorf("killed at %v: %s: %s\n%s", cfg.kills, w.bad.kind, w.bad.text, explain(w, cfg))
			}
		}
	}
	t.Logf("%d calls, %d runs", calls, runs)
}

func deviate(t *testing.T, cfg simConfig, at map[int]int) int {
	script := make([]int, 0, 64)
	for i, v := range at {
		for len(script) <= i {
			script = append(script, 0)
		}
		script[i] = v
	}
	w := simulate(&chooser{script: script}, cfg, false)
	if w.bad != nil {
		t.Errorf("choices %v: %s: %s\n%s", script, w.bad.kind, w.bad.text, explain(w, cfg))
	}
	return 1
}

// explain replays a failing run, shrunk, with its trace.
func explain(w *world, cfg simConfig) string {
	if !*simShow {
		return ""
	}
	s := shrink(w.taken, w.bad.kind, cfg)
	x := simulate(&chooser{script: s}, cfg, true)
	out := &strings.Builder{}
	fmt.Fprintf(out, "%+v choices %v\n", cfg, s)
	for _, l := range x.trace {
		if !strings.Contains(l, ": sleep ") && (out.Len() < 30000 || strings.HasPrefix(l, "VIO")) {
			fmt.Fprintln(out, l)
		}
	}
	return out.String()
}

// shrink looks for a shorter list of choices with the same kind of violation.
func shrink(script []int, kind string, cfg simConfig) []int {
	tries := 0
	fails := func(s []int) bool {
		tries++
		w := simulate(&chooser{script: s}, cfg, false)
		return w.bad != nil && w.bad.kind == kind
	}
	best := slices.Clone(script)
	for again := true; again && tries < 3000; {
		again = false
		for size := len(best); size > 0 && tries < 3000; size /= 2 {
			for i := 0; i+size <= len(best) && tries < 3000; i += max(1, size/2) {
				if cut := slices.Delete(slices.Clone(best), i, i+size); fails(cut) {
					best, again = cut, true
					continue
				}
				zeroed := slices.Clone(best)
				clear(zeroed[i : i+size])
				if !slices.Equal(zeroed, best) && fails(zeroed) {
					best, again = zeroed, true
				}
			}
		}
	}
	return best
}
