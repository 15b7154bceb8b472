package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/driver"
)

// progress shows how a run goes, from its begin to its end.
type progress interface {
	driver.Observer
	begin()
	end()
}

// batchLine is what `run --output json` prints for each batch. The names are
// those of Spark's StreamingQueryProgress where the meaning is the same.
type batchLine struct {
	ID                     string           `json:"id"` // of the pipeline
	RunID                  string           `json:"runId"`
	Name                   string           `json:"name"`
	Timestamp              string           `json:"timestamp"`
	BatchID                batch.ID         `json:"batchId"`
	Revision               int              `json:"revision"`
	BatchDuration          int64            `json:"batchDuration"`
	NumInputRows           int64            `json:"numInputRows"`
	InputRowsPerSecond     float64          `json:"inputRowsPerSecond"`
	ProcessedRowsPerSecond float64          `json:"processedRowsPerSecond"`
	DurationMs             map[string]int64 `json:"durationMs"`
	Sources                []sourceLine     `json:"sources"`
	Sink                   sinkLine         `json:"sink"`
	Sinks                  []sinkLine       `json:"sinks"`
	InputBytes             int64            `json:"inputBytes"`
	Skipped                int64            `json:"skipped"`
	DeadLettered           int64            `json:"deadLettered,omitempty"` // by the source; the sinks have their own
	Lag                    *int64           `json:"lag"`                    // null: not known
	CommittedBefore        bool             `json:"committedBefore,omitempty"`
}

type sourceLine struct {
	Description  string           `json:"description"`
	StartOffset  topicOffsets     `json:"startOffset"`
	EndOffset    topicOffsets     `json:"endOffset"`
	LatestOffset topicOffsets     `json:"latestOffset"`
	NumInputRows *int64           `json:"numInputRows,omitempty"` // not told apart among several sources
	Metrics      map[string]int64 `json:"metrics"`
}

type sinkLine struct {
	Description   string `json:"description"`
	Name          string `json:"name,omitempty"`
	NumOutputRows int64  `json:"numOutputRows"`
	Rejected      int64  `json:"rejected,omitempty"`
	DeadLetters   int64  `json:"deadLetters,omitempty"` // of the rejected ones; in the sink dead_letters, all
	SnapshotID    *int64 `json:"snapshotId,omitempty"`  // a string would be safer for JavaScript, but Iceberg's own JSON has numbers
}

// topicOffsets are offsets by topic and partition, as Spark writes them.
type topicOffsets map[string]map[string]int64

func (t topicOffsets) add(p batch.TopicPartition, at int64) {
	if t[p.Topic] == nil {
		t[p.Topic] = map[string]int64{}
	}
	t[p.Topic][strconv.Itoa(int(p.Partition))] = at
}

// jsonProgress prints one line a batch.
type jsonProgress struct {
	mu   sync.Mutex
	out  io.Writer
	spec *config.Spec
	last time.Time // when the batch before began
}

func newJSONProgress(out io.Writer, spec *config.Spec) *jsonProgress {
	return &jsonProgress{out: out, spec: spec}
}

func (*jsonProgress) Listed(time.Time, int64) {}
func (*jsonProgress) Waiting(string)          {}
func (*jsonProgress) Standby(string)          {}
func (*jsonProgress) begin()                  {}
func (*jsonProgress) end()                    {}

func (j *jsonProgress) Batch(p driver.Progress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	line := batchLine{
		ID: p.Plan.Incarnation.UUID, RunID: p.Plan.Writer.ID, Name: j.spec.Name, Timestamp: p.Start.UTC().Format(time.RFC3339Nano),
		BatchID: p.Batch, Revision: p.Revision, BatchDuration: p.Total.Milliseconds(), NumInputRows: p.Tally.Data,
		ProcessedRowsPerSecond: perSecond(p.Tally.Data, p.Total), InputBytes: p.Tally.Bytes, Skipped: p.Tally.Skipped, DeadLettered: p.Tally.DeadLettered,
		DurationMs: map[string]int64{"triggerExecution": p.Total.Milliseconds(), "addBatch": p.Prepare.Milliseconds(), "commitBatch": p.Commit.Milliseconds()},
		Sources:    sourceLines(j.spec, p), CommittedBefore: before(p),
	}
	if !j.last.IsZero() {
		line.InputRowsPerSecond = perSecond(p.Tally.Data, p.Start.Sub(j.last))
	}
	j.last = p.Start
	if p.Lag >= 0 {
		line.Lag = &p.Lag
	}
	var tables []string
	for _, o := range p.Outcome {
		table := j.spec.Sinks.By[o.Sink].Iceberg.Table
		one := sinkLine{Description: "iceberg[" + table + "]", Name: o.Sink, NumOutputRows: o.Counts.Written, Rejected: o.Counts.Rejected, DeadLetters: o.Counts.Letters + o.Counts.SourceLetters}
		if o.Snapshot != 0 {
			one.SnapshotID = &o.Snapshot
		}
		tables = append(tables, table)
		line.Sink.NumOutputRows += one.NumOutputRows
		line.Sinks = append(line.Sinks, one)
	}
	line.Sink.Description = "iceberg[" + strings.Join(tables, ", ") + "]"
	_ = json.NewEncoder(j.out).Encode(line)
}

// before says that the batch was committed by an earlier process, or another
// attempt: this one read nothing for it.
func before(p driver.Progress) bool {
	return p.Tally.Offsets == 0 && p.Tries == 0 && len(p.Outcome) > 0
}

func sourceLines(spec *config.Spec, p driver.Progress) []sourceLine {
	var lines []sourceLine
	for _, name := range spec.Sources.Names {
		k := spec.Sources.By[name].Kafka
		what := "Subscribe[" + strings.Join(k.Topics, ", ") + "]"
		if k.TopicPattern != "" {
			what = "SubscribePattern[" + k.TopicPattern + "]"
		}
		s := sourceLine{Description: "kafka " + what, StartOffset: topicOffsets{}, EndOffset: topicOffsets{}, LatestOffset: topicOffsets{}}
		var offsets int64
		for _, r := range p.Plan.Ranges {
			if r.Source == name {
				s.StartOffset.add(r.TopicPartition, r.Start)
				s.EndOffset.add(r.TopicPartition, r.End)
				offsets += r.Len()
			}
		}
		var behind int64
		for at, end := range p.Latest {
			if at.Source == name {
				s.LatestOffset.add(at, end)
				behind += max(0, end-s.EndOffset[at.Topic][strconv.Itoa(int(at.Partition))])
			}
		}
		s.Metrics = map[string]int64{"numOffsets": offsets}
		if len(s.LatestOffset) > 0 {
			s.Metrics["offsetsBehindLatest"] = behind
		}
		if len(spec.Sources.Names) == 1 {
			s.NumInputRows = &p.Tally.Data
		}
		lines = append(lines, s)
	}
	return lines
}

func perSecond(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return math.Round(float64(n)/d.Seconds()*10) / 10
}

// liveLine shows one line that changes, or on no terminal one a batch.
type liveLine struct {
	out   io.Writer
	width func() int // of the terminal, 0: none
	paint func(colour, text string) string
	hide  func(text string) string // what came out of variables
	dot   string                   // between the parts

	mu        sync.Mutex
	text      string // that is shown
	batch     *driver.Progress
	lag       int64
	caught    time.Time // the time up to which everything is in the tables
	candidate time.Time // a listing that found nothing behind the newest plan
	why       string    // nothing moves
	ticker    *time.Ticker
	done      chan struct{}
}

// redrawEvery is how often the line's times go on while no batch does.
const redrawEvery = time.Second

func (a *app) newLiveLine() *liveLine {
	l := &liveLine{
		out: a.out, width: func() int { return widthOf(a.out) }, dot: " · ", lag: -1,
		paint: func(colour, text string) string { return a.paint(a.out, colour, text) },
		hide:  func(text string) string { return a.mask.Hide(text) },
	}
	if !unicodeTerminal() {
		l.dot = " | "
	}
	return l
}

// unicodeTerminal says whether the locale can show more than ASCII.
func unicodeTerminal() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

// begin starts to redraw on a terminal.
func (l *liveLine) begin() {
	if l.width() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.why = "starting"
	l.draw()
	l.ticker, l.done = time.NewTicker(redrawEvery), make(chan struct{})
	go func() {
		for {
			select {
			case <-l.ticker.C:
				l.mu.Lock()
				l.draw()
				l.mu.Unlock()
			case <-l.done:
				return
			}
		}
	}()
}

// end leaves the line as it is.
func (l *liveLine) end() {
	if l.done == nil {
		return
	}
	l.ticker.Stop()
	close(l.done)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text != "" {
		fmt.Fprintln(l.out)
	}
	l.text = ""
}

func (l *liveLine) Listed(at time.Time, lag int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lag, l.why = lag, ""
	if !l.candidate.IsZero() {
		l.caught = l.candidate // no batch is open any more
	}
	l.candidate = time.Time{}
	if lag == 0 {
		l.candidate = at
	}
}

func (l *liveLine) Waiting(reason string) { l.say(reason, "waiting: ") }
func (l *liveLine) Standby(reason string) { l.say(reason, "standing by: ") }

func (l *liveLine) say(reason, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.why
	if l.why = ""; reason != "" {
		l.why = what + l.hide(reason)
	}
	if l.width() > 0 {
		l.draw()
	} else if l.why != "" && l.why != was {
		fmt.Fprintln(l.out, visible(l.why))
	}
}

func (l *liveLine) Batch(p driver.Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batch, l.why = &p, ""
	if p.Lag >= 0 {
		l.lag = p.Lag
	}
	if p.Lag == 0 {
		l.caught = p.Plan.Time
	}
	if l.width() > 0 {
		l.draw()
		return
	}
	fmt.Fprintln(l.out, strings.Join(l.parts(), l.dot))
}

// above writes something else where the line was, and the line again below it.
func (l *liveLine) above(out io.Writer, p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text != "" {
		fmt.Fprint(l.out, "\r\x1b[2K")
	}
	n, err := out.Write(p)
	if l.text != "" {
		l.text = ""
		l.draw()
	}
	return n, err
}

// parts are what there is to say, the most important first.
func (l *liveLine) parts() []string {
	var parts []string
	if p := l.batch; p != nil {
		var rows int64
		for _, o := range p.Outcome {
			rows += o.Counts.Written
		}
		parts = append(parts, fmt.Sprintf("batch %d", p.Batch))
		if before(*p) {
			parts = append(parts, "done by an earlier run")
		} else {
			parts = append(parts, short(perSecond(p.Tally.Data, p.Total))+" records/s")
		}
		parts = append(append(parts, l.behind()...), "committed "+p.Start.Add(p.Total).Local().Format("15:04:05"))
		if before(*p) {
			return parts
		}
		return append(parts, fmt.Sprintf("%d records, %d rows", p.Tally.Data, rows),
			fmt.Sprintf("%s (commit %s)", p.Total.Round(time.Millisecond), p.Commit.Round(time.Millisecond)))
	}
	return l.behind()
}

func (l *liveLine) behind() (parts []string) {
	if l.lag >= 0 {
		parts = append(parts, "lag "+short(float64(l.lag)))
	}
	if !l.caught.IsZero() {
		parts = append(parts, "freshness "+age(time.Since(l.caught)))
	}
	return parts
}

// draw replaces the line. It never wraps: what does not fit is left out.
func (l *liveLine) draw() {
	parts := l.parts()
	if l.why != "" {
		parts = append([]string{l.why}, parts...)
	}
	width := max(1, l.width()-1)
	text := ""
	for i, p := range parts {
		next := p
		if i > 0 {
			next = text + l.dot + p
		}
		if i > 0 && utf8.RuneCountInString(next) > width {
			break
		}
		text = next
	}
	text = shortened(visible(text), width)
	if text == l.text {
		return
	}
	l.text = text
	if l.why != "" {
		text = l.paint(yellow, text)
	}
	fmt.Fprintf(l.out, "\r\x1b[2K%s", text)
}

func age(d time.Duration) string {
	switch {
	case d < time.Second:
		return "1s"
	case d < time.Minute:
		return d.Round(time.Second).String()
	}
	text := d.Round(time.Second).String()
	if whole, ok := strings.CutSuffix(text, "m0s"); ok {
		return whole + "m"
	}
	return text
}

func short(n float64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.1f M", n/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.0f k", n/1e3)
	}
	return fmt.Sprintf("%.0f", n)
}
