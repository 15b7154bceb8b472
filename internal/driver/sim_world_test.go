package driver_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/objstore"
)

// The simulation runs the real driver, planner and checkpoint over simulated
// rooms and stores. Every decision that the protocol does not take (who runs,
// what fails, what others do) goes through a chooser, so a run is a list of
// small numbers: it is repeated by its seed, shrunk, and explained step by step.

const (
	simPartitions = 2
	simKeys       = 2
	simSinks      = 3 // the last of a world may be its dead letters
	simLetters    = 10
	simRoutes     = 3 // tables of sink 1 where it feeds many
	simTables     = 1 + simRoutes
	simTopic      = "t"
	simRemade     = 100 // uuids of tables that were dropped and made again begin here
	simRelation   = "src"
	simOther      = 1_000_000 // rows of the second pipeline are numbered from here
)

// simPipelines may write into the same tables, each under its own tag.
// The last one is the stream that runs the dead letters of the first one again.
var simPipelines = [...]string{"sim", "two", "sim." + batch.StreamReplay}

const simReplays = len(simPipelines) - 1 // the replay among the pipelines

// chooser takes decisions. Option 0 is always the harmless one.
type chooser struct {
	script []int      // replayed first
	rng    *rand.Rand // then by weight; nil: 0
	taken  []int
	quiet  bool // faults have stopped: always 0, not recorded
}

// pick returns an index into weights; one with weight 0 is never taken.
func (c *chooser) pick(weights ...int) int {
	if c.quiet {
		return 0
	}
	v := 0
	switch i := len(c.taken); {
	case i < len(c.script):
		v = c.script[i]
		if v >= len(weights) || weights[v] == 0 {
			v = 0
		}
	case c.rng != nil:
		sum := 0
		for _, w := range weights {
			sum += w
		}
		r := c.rng.IntN(sum)
		for r >= weights[v] {
			r -= weights[v]
			v++
		}
	}
	c.taken = append(c.taken, v)
	return v
}

// any returns a number below n.
func (c *chooser) any(n int) int {
	w := make([]int, n)
	for i := range w {
		w[i] = 1
	}
	return c.pick(w...)
}

// simConfig bounds a run.
type simConfig struct {
	tables, drivers, steps, delays           int
	poison, foreign, retention, loss, rewind bool
	stale, remake, standby, joins, latest    bool
	routed                                   bool          // sink 1 feeds many tables
	alone                                    bool          // sink 1 is the only one
	interval                                 time.Duration // of the trigger
	deploy                                   bool          // the spec changes without need
	audits                                   bool          // a sink's batches are staged, and looked at
	schemas                                  bool          // newer schemas are registered
	shared                                   bool          // another pipeline writes into the same tables
	sparse                                   bool          // sink 1 seldom has rows
	letters                                  bool          // what is rejected becomes a dead letter
	backlog                                  int           // records of each partition at the beginning, above two
	kills                                    []int         // steps at which the process dies
	forgets                                  bool          // with the process its checkpoint is lost
	rejects                                  bool          // every third record is a dead letter at first
	replays                                  int           // processes that run dead letters again
	hot                                      int           // weight of retention and of switching drivers, above the usual
}

// record is one offset. A hole has no data: a marker, an aborted or compacted
// record.
type record struct {
	id     int64
	key    int
	hole   bool
	schema int32          // it was written with; 0: the first one
	bad    bool           // it cannot be decoded
	rule   int            // of its source, which it fails
	to     [simSinks]bool // whose SQL lets it through
	route  int            // the table of sink 1, where it feeds many
	narrow bool           // the second spec filters it out
	// poison is a cast that fails under the sink's first spec. The second one
	// rejects it, or, where there are dead letters, takes it.
	poison [simSinks]bool
}

// Rules of the source.
const (
	noRule   = iota
	toLetter // the record becomes a dead letter
	toNobody // it is dropped
)

// refused says whether no sink gets a record.
func (r record) refused() bool { return r.bad || r.rule != noRule }

// partition is one partition of one life of the topic.
type partition struct {
	records []record
	start   int64 // log start
}

// simFile is a data file, or a changelog of sink 0's state.
type simFile struct {
	rows    []int64    // record ids; foreign rows are negative
	batches []batch.ID // that wrote them, where the pipeline did
	lacks   []string   // by row, the sinks that lack what the source rejects
	marks   []simMark
	deltas  [simKeys]int
	prev    string // the changelog before
	deleted bool
}

type snapshot struct {
	id, parent int64
	summary    map[string]string
	stamp      *batch.Stamp
	prev       *snapshot // whose contents it continues; ground truth for the checks
	restores   bool
	files      []string
	added      simFiles // of a staged one
	expired    bool
}

// simTable is what a catalog knows about a table, and what it has forgotten.
type simTable struct {
	uuid    int
	snaps   []*snapshot // by id; 0 is none
	head    int64
	tags    [len(simPipelines)]int64
	staged  [len(simPipelines)]int64 // on the branch for audits
	schema  int
	pins    map[string]int64
	before  int64 // head before the last foreign rollback
	dropped bool
	taken   [len(simPipelines)]bool // rows of this pipeline were dropped by a rewind of the other
	bare    bool                    // the first pipeline's tag was removed
	missing bool                    // nobody has made it yet
	claimed [len(simPipelines)]bool // by a sink that feeds many
}

func newSimTable(uuid int) *simTable {
	return &simTable{uuid: uuid, snaps: []*snapshot{{}}, schema: 1, pins: map[string]int64{}}
}

func (t *simTable) remade() bool { return t.uuid >= simRemade }

// newest is the snapshot that a pipeline's tag is on.
func (t *simTable) newest(pipe int) *snapshot { return t.snaps[t.tags[pipe]] }

// stamped is the newest snapshot of a pipeline, also where its tag was taken away.
func (t *simTable) stamped(pipe int) *snapshot {
	if t.tags[pipe] != 0 {
		return t.newest(pipe)
	}
	for _, s := range slices.Backward(t.snaps) {
		if s.stamp != nil && s.stamp.Name == simPipelines[pipe] {
			return s
		}
	}
	return nil
}

func (t *simTable) stamp(pipe int) *batch.Stamp { return t.newest(pipe).stamp }

// truly says with full knowledge whether each tag is an ancestor of the head.
func (t *simTable) truly() bool {
	for pipe := range simPipelines {
		if !t.holds(t.head, t.tags[pipe]) {
			return false
		}
	}
	return true
}

// holds says whether one snapshot is an ancestor of another.
func (t *simTable) holds(head, ancestor int64) bool {
	for id := head; id != 0; id = t.snaps[id].parent {
		if id == ancestor {
			return true
		}
	}
	return ancestor == 0
}

// ancestry is what metadata shows of it.
func (t *simTable) ancestry(pipe int) batch.Ancestry {
	if t.tags[pipe] == 0 {
		return batch.IsAncestor
	}
	for id := t.head; id != 0; id = t.snaps[id].parent {
		switch {
		case t.snaps[id].expired && t.rolledBack(pipe):
			return batch.NotAncestor
		case t.snaps[id].expired:
			return batch.UnknownAncestor
		case id == t.tags[pipe]:
			return batch.IsAncestor
		}
	}
	return batch.NotAncestor
}

// rolledBack says whether metadata shows that the head lies behind the tag.
func (t *simTable) rolledBack(pipe int) bool {
	for id := t.snaps[t.tags[pipe]].parent; id != 0 && !t.snaps[id].expired; id = t.snaps[id].parent {
		if id == t.head {
			return true
		}
	}
	return false
}

func (t *simTable) live(name string) bool {
	for _, s := range t.snaps[1:] {
		if !s.expired && slices.Contains(s.files, name) {
			return true
		}
	}
	return false
}

// commit is a request to a catalog. It may land long after its sender died.
type commit struct {
	pipe, table  int
	uuid, schema int
	head, tag    int64
	staged       int64
	how          int
	snap         snapshot
}

// What a commit does with its snapshot.
const (
	appends = iota
	stage
	publish // what is staged
)

// create is a request to the store.
type create struct {
	key  string
	data []byte
}

type violation struct{ kind, text string }

// world is everything that survives a crash.
type world struct {
	*chooser
	cfg      simConfig
	now      time.Time
	topicID  int
	read     []reading                       // what was executed, and how
	schema   int32                           // the newest one of the registry
	deleted  bool                            // there is no topic now
	parts    map[string]map[int32]*partition // by topic id
	listed   []batch.Available               // an older listing, that a stale answer repeats
	listedAt time.Time
	ids      int64
	store    map[string][]byte
	plans    map[string]*batch.Plan // by hash, all that anybody tried to log
	ranges   map[string]string      // first ranges logged under a batch
	logged   map[string]*batch.Plan // newest revision of each batch in a log
	tables   []*simTable
	files    map[string]*simFile
	pending  []any // *commit or *create in flight
	procs    []*proc
	spec     [simSinks]int
	onLoss   bool
	owed     map[string][]int64   // dead letters, by the hash of their stamp
	adopt    [simTables + 1]int64 // the head that the operator vouched for
	rewound  batch.ID             // the batch of the newest rewind
	losses   int
	drops    int
	untagged int
	byHand   bool           // somebody published what is staged
	out      [simSinks]bool // sinks that are not in the spec now
	lineage  []string       // incarnations, in the order in which they logged
	fickle   int            // in a scenario: by how many tables rows miss theirs
	latest   bool           // `start: latest`
	drop     bool           // the operator lets a rewind drop foreign snapshots
	steps    int
	cur      int
	// toldAhead says that a batch was reported while the next one was read.
	toldAhead bool
	mended    bool // what the source rejected can be decoded now
	replayed  int  // replays that came to their end
	tried     int  // specs, by an operator whose replay wants a former one
	// audited are the files that the rules of an audit have passed.
	audited  map[string]bool
	tracing  bool
	scripted bool                // a scenario says what happens
	failing  map[string]int      // in a scenario: how many calls of this kind get no answer
	stale    []batch.Available   // in a scenario: what the next listing says
	vanished bool                // in a scenario: Kafka does not serve what it lists
	between  func(*driver.Rooms) // in a scenario: stands between the driver and its rooms
	fate     int                 // in a scenario: what comes of the next commit or create
	trace    []string
	bad      *violation
}

// reading is one execution of a batch with a schema.
type reading struct {
	batch  batch.ID
	schema int32
}

func newWorld(c *chooser, cfg simConfig) *world {
	w := &world{
		chooser: c, cfg: cfg, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), parts: map[string]map[int32]*partition{},
		store: map[string][]byte{}, plans: map[string]*batch.Plan{}, ranges: map[string]string{}, logged: map[string]*batch.Plan{}, files: map[string]*simFile{}, audited: map[string]bool{}, spec: [simSinks]int{1, 1, 1}, owed: map[string][]int64{}, schema: 1, latest: cfg.latest,
	}
	w.makeTopic()
	for i := range cfg.tables {
		w.tables = append(w.tables, newSimTable(i))
	}
	for i := 1; cfg.routed && i < simTables; i++ {
		t := newSimTable(i)
		t.missing = true
		w.tables = append(w.tables, t)
	}
	if cfg.letters {
		w.tables = append(w.tables, newSimTable(w.letterTable()))
	}
	w.out[0] = cfg.alone
	for i := range cfg.drivers {
		w.procs = append(w.procs, &proc{id: i, w: w})
	}
	if cfg.shared {
		w.procs = append(w.procs, &proc{id: cfg.drivers, w: w, pipe: 1})
	}
	for range cfg.replays {
		w.procs = append(w.procs, &proc{id: len(w.procs), w: w, pipe: simReplays})
	}
	return w
}

// pipes is how many pipelines there are.
func (c simConfig) pipes() int {
	if c.shared {
		return 2
	}
	return 1
}

// daemons is how many processes are drivers; those behind are commands.
func (c simConfig) daemons() int { return c.drivers + c.pipes() - 1 + c.replays }

func (w *world) fail(kind, format string, args ...any) {
	if w.bad == nil {
		w.bad = &violation{kind, fmt.Sprintf(format, args...)}
		w.note("VIOLATION %s: %s", kind, w.bad.text)
	}
}

func (w *world) note(format string, args ...any) {
	if w.tracing {
		w.trace = append(w.trace, fmt.Sprintf(format, args...))
	}
}

// Kafka

func (w *world) topic() string { return fmt.Sprintf("id%d", w.topicID) }

func (w *world) makeTopic() {
	w.deleted = false
	w.topicID++
	w.parts[w.topic()] = map[int32]*partition{}
	for p := range int32(simPartitions) {
		w.parts[w.topic()][p] = &partition{}
	}
}

func (w *world) part(tp batch.TopicPartition) *partition { return w.parts[tp.TopicID][tp.Partition] }

func (w *world) tp(p int32) batch.TopicPartition {
	return batch.TopicPartition{Source: simRelation, Topic: simTopic, TopicID: w.topic(), Partition: p}
}

func (w *world) produce(p int32) {
	w.ids++
	r := record{id: w.ids, key: w.any(simKeys)}
	if w.cfg.routed {
		r.route = w.pick(6, 3, 1)
		if w.cfg.backlog > 0 {
			r.route = int(w.ids % simRoutes)
		}
	}
	r.narrow = w.cfg.deploy && w.any(3) == 2
	if w.cfg.schemas && w.any(2) == 1 {
		r.schema = w.schema
	}
	both, one := 8, 2
	if w.cfg.sparse {
		both, one = 2, 8
	}
	poison, bad := 1, 0
	if w.cfg.letters {
		poison, bad = 4, 2
	}
	switch w.pick(both, one, 2, 1, poison, bad) {
	case 0:
		r.to = [simSinks]bool{true, true}
	case 1:
		r.to = [simSinks]bool{true, false}
	case 2: // the state of sink 0 changes, though it has no row
		r.to = [simSinks]bool{false, true}
	case 3:
		r.hole = true
	case 4:
		if w.cfg.poison {
			r.to = [simSinks]bool{true, true}
			r.poison[w.any(w.sinks())] = true
		}
	case 5:
		if r.rule = noRule; w.cfg.replays == 0 {
			r.rule = w.any(3)
		}
		if r.bad = r.rule == noRule; w.cfg.replays > 0 {
			r.to = [simSinks]bool{true, true}
		}
	}
	if w.cfg.rejects {
		r.bad, r.poison[0] = w.ids%6 == 0, w.ids%6 == 3
		if w.cfg.routed {
			r.poison[0], r.poison[1], r.route = false, w.ids%6 == 3, int(w.ids/3%simRoutes)
		}
		r.to = [simSinks]bool{true, true}
	}
	w.add(p, r)
}

func (w *world) add(p int32, r record) {
	part := w.part(w.tp(p))
	part.records = append(part.records, r)
	w.note("kafka: %s@%d %+v", w.tp(p), len(part.records)-1, r)
}

func (w *world) available() []batch.Available {
	var all []batch.Available
	for p := range int32(simPartitions) {
		if w.deleted {
			break
		}
		part := w.part(w.tp(p))
		all = append(all, batch.Available{TopicPartition: w.tp(p), Start: part.start, End: int64(len(part.records)), Bytes: 1})
	}
	return all
}

// Tables

// want lists what a stamp owes to table s: record ids, and changes of state. What
// went by without a commit it owes as the plans of those batches had it.
func (w *world) want(s int, st *batch.Stamp) (rows []int64, deltas [simKeys]int) {
	if w.isLetters(s) {
		if rows, ok := w.owed[st.Hash()]; ok {
			return rows, deltas
		}
		defer func() { w.owed[st.Hash()] = rows }()
	}
	p := w.plans[st.Plan]
	for tp, end := range st.End {
		at := st.Start[tp]
		if w.routed(s) {
			for ; at < end; at++ {
				w.wantRange(s, w.doneBy(s, st, tp, at), tp, at, at+1, &rows, &deltas)
			}
			continue
		}
		for b := st.First; b < st.Last && p != nil && !p.Sink(w.sinkOf(s)).CatchUp; b++ {
			q := w.logged[logKey(st.IncarnationID, b)]
			if q == nil {
				continue
			}
			if sp := q.Sink(w.sinkOf(s)); sp != nil && sp.Active {
				for _, r := range q.Ranges {
					if r.TopicPartition == tp {
						w.wantRange(s, q, tp, at, r.End, &rows, &deltas)
						at = r.End
					}
				}
			}
		}
		w.wantRange(s, p, tp, at, end, &rows, &deltas)
	}
	return rows, deltas
}

// doneBy is the plan by which a sink that feeds many tables has read an offset: the
// last one up to a stamp, of whatever incarnation.
func (w *world) doneBy(ti int, st *batch.Stamp, tp batch.TopicPartition, at int64) *batch.Plan {
	reads := func(p *batch.Plan) bool {
		sp := p.Sink(w.sinkOf(ti))
		return sp != nil && sp.Active && slices.ContainsFunc(p.Ranges, func(r batch.Range) bool {
			return r.TopicPartition == tp && r.Start <= at && at < r.End
		})
	}
	p := w.plans[st.Plan]
	if p == nil || reads(p) {
		return p
	}
	for b := st.Last - 1; b >= st.First; b-- {
		for k := slices.Index(w.lineage, st.IncarnationID); k >= 0; k-- {
			q := w.logged[logKey(w.lineage[k], b)]
			if q == nil || q.Incarnation.UUID != st.UUID {
				continue
			}
			if reads(q) {
				return q
			}
			break // what an incarnation before planned under this number never came
		}
	}
	return p
}

func logKey(incarnation string, b batch.ID) string { return fmt.Sprintf("%s/%d", incarnation, b) }

// noteLogged keeps what a log says of a batch.
func (w *world) noteLogged(p *batch.Plan) {
	if !slices.Contains(w.lineage, p.Incarnation.ID) {
		w.lineage = append(w.lineage, p.Incarnation.ID)
	}
	key := logKey(p.Incarnation.ID, p.Batch)
	if was := w.logged[key]; was == nil || p.Revision >= was.Revision {
		w.logged[key] = p
	}
}

// wantRange lists what is owed of [start, end) under plan p, nil for what every
// plan owes.
func (w *world) wantRange(ti int, p *batch.Plan, tp batch.TopicPartition, start, end int64, rows *[]int64, deltas *[simKeys]int) {
	var lost batch.Range
	narrow, spec := p == nil, 1
	s := w.sinkIndexOf(ti)
	if p != nil {
		sp := p.Sink(sinkName(s))
		if narrow = sp != nil && sp.Hash == specHash(2); narrow {
			spec = 2
		}
		for _, r := range p.Ranges {
			if r.TopicPartition == tp {
				lost = r
			}
		}
	}
	hash := ""
	if p != nil && p.Sink(sinkName(s)) != nil {
		hash = p.Sink(sinkName(s)).Hash
	}
	for o := start; o < end; o++ {
		r := w.part(tp).records[o]
		if r.hole || w.routed(ti) && r.table(spec) != ti || o >= lost.Start && o < lost.First() {
			continue
		}
		if w.isLetters(ti) {
			*rows = append(*rows, r.letters(hash, func(sink int) string {
				if w.cfg.routed && sink == 1 {
					return w.specRouted(p, tp, o)
				}
				if p != nil && p.Sink(sinkName(s)).CatchUp {
					return w.specIn(p, sink) // else they are made by the spec that there is now
				}
				return w.specOf(pipeOf(p), sink, tp, o)
			})...)
			for i := range w.cfg.tables {
				if r.withheld(p, i) && !slices.Contains(*rows, r.letter(i)) {
					*rows = append(*rows, r.letter(i))
				}
			}
			continue
		}
		fails := r.poison[s] && (!w.cfg.letters || hash != specHash(2))
		if r.refused() || fails || r.narrow && narrow || r.withheld(p, s) {
			continue
		}
		deltas[r.key]++
		if r.to[s] {
			*rows = append(*rows, r.id)
		}
	}
}

// sinks is how many tables belong to sinks with SQL.
func (w *world) sinks() int {
	switch {
	case w.cfg.routed:
		return 2
	case w.cfg.letters:
		return w.cfg.tables
	}
	return len(w.tables) // one may have joined
}

// pipeOf is the pipeline that made a plan.
func pipeOf(p *batch.Plan) int {
	if p == nil {
		return 0
	}
	return slices.Index(simPipelines[:], p.Incarnation.Name)
}

// isLetters says whether a table is that of the dead letters.
func (w *world) isLetters(ti int) bool { return w.cfg.letters && ti == w.letterTable() }

// letterSink is the sink of the dead letters, the last one, and letterTable its
// table.
func (w *world) letterSink() int { return w.sinks() }

func (w *world) letterTable() int {
	if w.cfg.routed {
		return simTables
	}
	return w.cfg.tables
}

// lettersHash is the hash of the dead letters' spec: the specs of all sinks.
func (w *world) lettersHash(spec [simSinks]int) string {
	hash := "letters"
	for i := range w.sinks() {
		if w.out[i] {
			hash += "-"
		} else {
			hash += fmt.Sprint(spec[i])
		}
	}
	return hash
}

// letters are those that a record gives under a spec of the dead letters, "" for
// what every spec owes. A sink that has it already, as taken says, has its own.
func (r record) letters(hash string, taken func(sink int) string) (rows []int64) {
	if r.bad || r.rule == toLetter {
		return []int64{r.id * simLetters}
	}
	for i, v := range strings.TrimPrefix(hash, "letters") {
		if !r.poison[i] || v == '-' {
			continue
		}
		spec := taken(i)
		if spec == "" {
			spec = specHash(int(v - '0'))
		}
		if spec == specHash(1) {
			rows = append(rows, r.letter(i))
		}
	}
	return rows
}

// specOf is the spec under which a table has an offset, "" if it has not got it.
// What went by without a commit had no dead letters.
func (w *world) specOf(pipe, sink int, tp batch.TopicPartition, offset int64) string {
	for x := w.tables[sink].stamped(pipe); x != nil && x.stamp != nil; x = x.prev {
		if offset < x.stamp.Start[tp] || offset >= x.stamp.End[tp] || x.stamp.Kind != "" {
			continue
		}
		p := w.plans[x.stamp.Plan]
		for _, r := range p.Ranges {
			if r.TopicPartition == tp && r.Start <= offset && offset < r.End {
				return p.Sink(sinkName(sink)).Hash
			}
		}
		return specHash(2)
	}
	return ""
}

// specRouted is the spec under which the sink that feeds many tables has an offset,
// "" if it has not got it when p is made.
func (w *world) specRouted(p *batch.Plan, tp batch.TopicPartition, at int64) string {
	if p == nil {
		return ""
	}
	if sp := p.Sink(sinkName(1)); p.Sink(sinkName(w.letterSink())).CatchUp && sp != nil && sp.Active {
		return sp.Hash
	}
	last := &batch.Stamp{Plan: p.Hash(), Last: p.Batch, UUID: p.Incarnation.UUID, IncarnationID: p.Incarnation.ID}
	if q := w.doneBy(1, last, tp, at); q != nil && q.Sink(sinkName(1)) != nil && q.Sink(sinkName(1)).Active {
		return q.Sink(sinkName(1)).Hash
	}
	return ""
}

// specIn is the spec under which a table has a batch, "" if it has no part of it.
func (w *world) specIn(p *batch.Plan, sink int) string {
	for x := w.tables[sink].stamped(pipeOf(p)); x != nil && x.stamp != nil; x = x.prev {
		if q := w.plans[x.stamp.Plan]; q != nil && q.Batch == p.Batch && q.Incarnation.ID == p.Incarnation.ID {
			return q.Sink(sinkName(sink)).Hash
		}
	}
	return ""
}

// withheld says whether a plan makes a dead letter of what a sink would have of a
// record.
func (r record) withheld(p *batch.Plan, sink int) bool {
	if p == nil || !r.to[sink] || r.refused() {
		return false
	}
	sp := p.Sink(sinkName(sink))
	return sp != nil && sp.Active && sp.Held != nil && !(r.narrow && sp.Hash == specHash(2))
}

// letter is the one that a sink gives.
func (r record) letter(sink int) int64 { return r.id*simLetters + int64(sink) + 1 }

// restore reads the state that a chain of changelogs gives.
func (w *world) restore(name string) (sum [simKeys]int, ok bool) {
	for name != "" {
		f := w.files[name]
		if f == nil || f.deleted {
			return sum, false
		}
		for k, d := range f.deltas {
			sum[k] += d
		}
		name = f.prev
	}
	return sum, true
}

// apply lets a commit take effect if what it asserts holds.
func (w *world) apply(c *commit) bool {
	t := w.tables[c.table]
	if t.dropped || c.uuid != t.uuid || c.head != t.head || c.tag != t.tags[c.pipe] || c.schema != t.schema || c.staged != t.staged[c.pipe] {
		return false
	}
	old := t.stamp(c.pipe)
	s := &c.snap
	if c.how == publish {
		s = t.snaps[c.staged]
	} else {
		s.id = int64(len(t.snaps))
		t.snaps = append(t.snaps, s)
		if c.staged != 0 {
			t.snaps[c.staged].expired = true
		}
	}
	t.staged[c.pipe] = 0
	if c.how == stage {
		t.staged[c.pipe] = s.id
		w.note("  t%d: snapshot %d is staged on %d, %s, files %v", c.table, s.id, s.parent, s.stamp, s.files)
		return true
	}
	if !s.restores {
		s.prev = t.newest(c.pipe)
	}
	t.head, t.before = s.id, 0
	t.tags[c.pipe] = s.id
	w.checkOthers(c.pipe, c.table, s)
	w.note("  t%d: snapshot %d on %d, %s, files %v", c.table, s.id, s.parent, s.stamp, s.files)
	w.checkAudited(c.table, s)
	w.checkStamp(c.pipe, c.table, old, s)
	return true
}

// What comes of a request that changes something.
const (
	answered = iota
	answerLost
	requestLost
	onItsWay
)

func (w *world) outcome(delays int) int {
	if w.fate != answered {
		fate := w.fate
		w.fate = answered
		return fate
	}
	return w.pick(20, 2, 2, delays)
}

// submit sends a commit. The answer is all that its sender learns.
func (w *world) submit(c *commit) (ok bool) {
	switch w.outcome(w.cfg.delays) {
	case answered:
		return w.apply(c)
	case answerLost:
		w.note("  commit: answer lost")
		w.apply(c)
	case requestLost:
		w.note("  commit: request lost")
	case onItsWay:
		w.note("  commit: t%d head=%d tag=%d still on its way", c.table, c.head, c.tag)
		w.pending = append(w.pending, c)
	}
	return false
}

// put creates key if it is absent. created is false also when nobody knows.
func (w *world) put(key string, data []byte) (created, known bool) {
	switch w.outcome(w.cfg.delays / 2) {
	case answered:
		return w.putNow(key, data), true
	case answerLost:
		w.note("  create %s: answer lost", key)
		w.putNow(key, data)
	case requestLost:
		w.note("  create %s: request lost", key)
	case onItsWay:
		w.note("  create %s: still on its way", key)
		w.pending = append(w.pending, &create{key, data})
	}
	return false, false
}

func (w *world) putNow(key string, data []byte) bool {
	if w.store[key] != nil {
		return false
	}
	w.store[key] = data
	return true
}

// deliver lets a request in flight arrive.
func (w *world) deliver(i int) {
	x := w.pending[i]
	w.pending = slices.Delete(w.pending, i, i+1)
	switch x := x.(type) {
	case *commit:
		w.note("late commit on t%d head=%d tag=%d: landed=%v", x.table, x.head, x.tag, w.apply(x))
	case *create:
		w.note("late create %s: %v", x.key, w.putNow(x.key, x.data))
	case *untag:
		w.note("late untag t%d: %v", x.table, w.untag(x))
	}
}

// Others

func (w *world) headFiles(ti int) []string {
	t := w.tables[ti]
	return slices.Clone(t.snaps[t.head].files)
}

func (w *world) foreignSnapshot(ti int, what string, files []string) {
	t := w.tables[ti]
	if t.missing {
		return
	}
	t.snaps = append(t.snaps, &snapshot{id: int64(len(t.snaps)), parent: t.head, files: files, summary: map[string]string{}})
	t.head, t.before = int64(len(t.snaps)-1), 0
	w.note("foreign: t%d %s -> head %d", ti, what, t.head)
}

func (w *world) foreignAppend(ti int) {
	name := fmt.Sprintf("foreign%d", len(w.files))
	w.files[name] = &simFile{rows: []int64{-int64(len(w.files)) - 1}, batches: []batch.ID{0}, lacks: []string{""}}
	w.foreignSnapshot(ti, "append", append(w.headFiles(ti), name))
}

func (w *world) compact(ti int) {
	files := w.headFiles(ti)
	if len(files) == 0 {
		return
	}
	f := &simFile{}
	for _, n := range files {
		of := w.files[n]
		f.rows, f.batches, f.lacks, f.marks = append(f.rows, of.rows...), append(f.batches, of.batches...), append(f.lacks, of.lacks...), append(f.marks, of.marks...)
	}
	name := fmt.Sprintf("compact%d", len(w.files))
	w.files[name] = f
	w.foreignSnapshot(ti, "compact", []string{name})
}

func (w *world) expire(ti int) {
	t := w.tables[ti]
	if t.bare {
		return // what was stamped could not be told any more
	}
	var dead []*snapshot
	pinned := slices.Collect(maps.Values(t.pins))
	for _, s := range t.snaps[1:] {
		if !s.expired && s.id != t.head && !slices.Contains(t.tags[:], s.id) && !slices.Contains(t.staged[:], s.id) && !slices.Contains(pinned, s.id) {
			s.expired = true
			dead = append(dead, s)
		}
	}
	w.note("foreign: t%d expires %d snapshots", ti, len(dead))
	for _, s := range dead {
		for _, f := range s.files {
			if !t.live(f) {
				w.files[f].deleted = true
			}
		}
	}
}

func (w *world) rollback(ti int) {
	t := w.tables[ti]
	if t.head == 0 || t.bare {
		return
	}
	to := t.snaps[t.head].parent
	if to == 0 || t.snaps[to].expired {
		return
	}
	if t.before == 0 {
		t.before = t.head
	}
	t.head = to
	if !t.truly() {
		w.adopt[ti] = 0
	}
	w.note("foreign: t%d rolls back to %d (tags %v)", ti, to, t.tags)
}

func (w *world) undo(ti int) {
	t := w.tables[ti]
	if t.before == 0 || t.snaps[t.before].expired || t.truly() {
		return
	}
	t.head, t.before = t.before, 0
	w.note("foreign: t%d rolls forward to %d", ti, t.head)
}

// remakeTable drops a table and makes an empty one in its place.
func (w *world) remakeTable(ti int) {
	w.drops++
	w.tables[ti] = newSimTable(simRemade + w.drops)
	w.note("foreign: t%d is dropped and made again", ti)
}

// loseCheckpoint removes everything that the store holds.
func (w *world) loseCheckpoint() {
	w.losses++
	clear(w.store)
	w.note("the checkpoint is lost")
}

// simStore is the store as one process sees it: objstore.Store.
type simStore struct{ p *proc }

func (s simStore) Create(_ context.Context, key string, data []byte) error {
	s.p.io("create %s", key)
	w := s.p.w
	for prefix := range w.failing {
		if strings.HasPrefix("create "+key, prefix) && s.p.flaky(prefix) != nil {
			return fmt.Errorf("create %s: %w", key, batch.ErrUnavailable)
		}
	}
	created, known := w.put(key, slices.Clone(data))
	switch {
	case !known:
		return fmt.Errorf("create %s: %w", key, batch.ErrUnavailable)
	case !created:
		return fmt.Errorf("create %s: %w", key, errExists)
	}
	return nil
}

func (s simStore) Put(_ context.Context, key string, data []byte) error {
	s.p.io("put %s", key)
	s.p.w.store[key] = slices.Clone(data)
	return s.p.flaky("put")
}

func (s simStore) Get(_ context.Context, key string) ([]byte, error) {
	s.p.io("get %s", key)
	if err := s.p.flaky("get"); err != nil {
		return nil, err
	}
	if data, ok := s.p.w.store[key]; ok {
		return slices.Clone(data), nil
	}
	return nil, fmt.Errorf("get %s: %w", key, errNotFound)
}

func (s simStore) List(_ context.Context, prefix, after string) ([]string, error) {
	s.p.io("list %s", prefix)
	if err := s.p.flaky("list"); err != nil {
		return nil, err
	}
	var keys []string
	for k := range s.p.w.store {
		if strings.HasPrefix(k, prefix) && k > after {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

func (s simStore) Delete(_ context.Context, key string) error {
	s.p.io("delete %s", key)
	delete(s.p.w.store, key)
	return s.p.flaky("delete")
}

var (
	errExists   = objstore.ErrExists
	errNotFound = objstore.ErrNotFound
)

// register brings a newer schema to the registry.
func (w *world) register() {
	w.schema++
	w.note("registry: schema %d", w.schema)
}

// Sinks

// routed says whether a table is one of many of its sink.
func (w *world) routed(ti int) bool { return w.cfg.routed && ti > 0 && ti != simTables }

func (w *world) sinkIndexOf(ti int) int {
	switch {
	case w.routed(ti):
		return 1
	case w.isLetters(ti):
		return w.letterSink()
	}
	return ti
}

// sinkOf is the name of a table's sink, and nameOf that of its part of a plan.
func (w *world) sinkOf(ti int) string { return sinkName(w.sinkIndexOf(ti)) }

func (w *world) nameOf(ti int) string {
	if w.routed(ti) {
		return batch.RouteName(sinkName(1), tableName(ti))
	}
	return w.sinkOf(ti)
}

func tableName(ti int) string { return fmt.Sprintf("t%d", ti) }

// table is where a spec's second sink puts a record, where it feeds many.
func (r record) table(spec int) int { return 1 + (r.route+spec-1)%simRoutes }
