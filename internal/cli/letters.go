package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/deadletter"
	"github.com/frazil-io/frazil/internal/pipeline"
	"github.com/frazil-io/frazil/internal/query"
)

// lettersFlags are those of dead-letters.
type lettersFlags struct {
	queryFlags

	records, full      bool
	limit              int64
	code, source, sink string
	batch              int64
	waiting            bool
	narrow             []string // conditions that the flags give

	replay, dry, takeover bool
	grace                 time.Duration
}

func (a *app) lettersCommand() *cobra.Command {
	var f lettersFlags
	cmd := &cobra.Command{
		Use: "dead-letters SPEC", Short: "List rejected records by reason, with payloads, or run them again",
		Args: exactly(1, "a spec"), ValidArgsFunction: specFiles,
		Long: `Lists the dead letters of the pipeline by code, source, sink and reason, the most
frequent first, each with its newest one as an example. Reasons that differ in numbers
and quoted texts only are one. --records shows letters one by one, the newest first.

A value is shown as text where it is UTF-8, else as base64; value_encoding says which.

Of a dead-letter topic everything is read that it has now; whether a letter was run again
is known of tables alone.

--replay runs the letters of a table that wait through the spec as it is today, each for
the sinks that lack it, beside the pipeline's driver, which goes on. Rows and marks are
committed exactly once, whatever is killed: start it again, and it goes on. What is
rejected again is a new letter, and waits for the next replay. --dry-run tells what would
become of them, and commits nothing.

Exit codes of --replay: 0 all letters were taken, or none waited; 2 some were rejected
again, or the spec cannot run them; 1, 3 and 4 as of run.`,
		Example: `  frazil dead-letters clicks.yaml
  frazil dead-letters clicks.yaml --records --code decode --limit 5
  frazil dead-letters clicks.yaml --records --output json | jq -r .value
  frazil dead-letters clicks.yaml --replay --dry-run
  frazil dead-letters clicks.yaml --replay`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			f.asWritten = true
			if f.replay {
				return a.replayLetters(cmd.Context(), args[0], f)
			}
			return a.letters(cmd.Context(), args[0], f)
		},
	}
	cmd.Flags().BoolVar(&f.records, "records", false, "letters one by one")
	cmd.Flags().BoolVar(&f.full, "full", false, "show payloads and reasons whole to people, too; table, csv and json always have them")
	cmd.Flags().Int64Var(&f.limit, "limit", 20, "how many records or reasons; 0: all")
	cmd.Flags().StringVar(&f.code, "code", "", "only these: decode, schema, cast, constraint or oversize")
	cmd.Flags().StringVar(&f.source, "source", "", "only those of this source")
	cmd.Flags().StringVar(&f.sink, "sink", "", "only those that this sink rejected")
	cmd.Flags().Int64Var(&f.batch, "batch", 0, "only those of this batch")
	cmd.Flags().BoolVar(&f.waiting, "waiting", false, "only those that were not run again")
	cmd.Flags().StringVar(&f.cache, "cache", "", "folder for copies of remote files; below the user's cache folder if not said")
	cmd.Flags().StringVar(&f.cacheSize, "cache-size", "10GiB", "how much the cache may hold")
	cmd.Flags().BoolVar(&f.replay, "replay", false, "run the letters that wait through today's spec")
	cmd.Flags().BoolVar(&f.dry, "dry-run", false, "with --replay: tell what would become of them, and commit nothing")
	cmd.Flags().BoolVar(&f.takeover, "takeover", false, "with --replay: do not wait for another replay that seems to be under way; it is fenced")
	cmd.Flags().DurationVar(&f.grace, "grace", 20*time.Second, "with --replay: how long a batch may go on after SIGTERM")
	completes(cmd, "code", codes()...)
	return cmd
}

// codes are those that a letter may have.
func codes() (all []string) {
	for _, c := range []batch.Code{batch.CodeDecode, batch.CodeSchema, batch.CodeCast, batch.CodeConstraint, batch.CodeOversize} {
		all = append(all, string(c))
	}
	return all
}

// check reads the flags that say which letters are wanted.
func (f *lettersFlags) check(cmd *cobra.Command) error {
	changed := cmd.Flags().Changed
	for _, flag := range []string{"records", "full", "limit", "code", "source", "sink", "batch", "waiting", "cache", "cache-size"} {
		if f.replay && changed(flag) {
			return fmt.Errorf("%w: --replay runs all letters that wait; --%s is for listing them", errUsage, flag)
		}
	}
	for _, flag := range []string{"dry-run", "takeover", "grace"} {
		if !f.replay && changed(flag) {
			return fmt.Errorf("%w: --%s needs --replay", errUsage, flag)
		}
	}
	if f.grace < 0 {
		return fmt.Errorf("%w: --grace %s is negative", errUsage, f.grace)
	}
	if f.limit < 0 {
		return fmt.Errorf("%w: --limit %d is negative", errUsage, f.limit)
	}
	f.narrow = nil
	for _, one := range []struct{ flag, column, value string }{{"code", "code", f.code}, {"source", "source", f.source}, {"sink", "sink", f.sink}} {
		if cmd.Flags().Changed(one.flag) {
			f.narrow = append(f.narrow, one.column+" = "+sqlText(one.value))
		}
	}
	if cmd.Flags().Changed("code") && !strings.Contains(" "+strings.Join(codes(), " ")+" ", " "+f.code+" ") {
		return fmt.Errorf("%w: --code %q is not %s", errUsage, f.code, strings.Join(codes(), ", "))
	}
	if cmd.Flags().Changed("batch") {
		f.narrow = append(f.narrow, fmt.Sprintf("batch = %d", f.batch))
	}
	if f.waiting {
		f.narrow = append(f.narrow, "NOT replayed")
	}
	return nil
}

func sqlText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func (a *app) letters(ctx context.Context, path string, f lettersFlags) error {
	format, err := a.format("text", "table", "csv", "json")
	if err != nil {
		return err
	}
	spec, p, err := a.open(ctx, path, true)
	if err != nil {
		return err
	}
	defer p.Close()
	if spec.DeadLetter == nil {
		return fmt.Errorf("%w: %s has no dead_letter, so records that are rejected are kept nowhere", batch.ErrInvalid, path)
	}
	if spec.DeadLetter.Kafka != nil {
		return a.topicLetters(ctx, p, spec, format, f)
	}
	if err := p.HasLetters(ctx); err != nil {
		return err
	}
	only := *spec
	only.Sinks = config.Ordered[config.Sink]{Names: []string{config.DeadLetters}, By: spec.Sinks.By}
	e, err := a.engine(ctx, &only, p, f.queryFlags)
	if err != nil {
		return err
	}
	defer e.Close()
	return a.printLetters(ctx, e, spec, format, f, "")
}

// printLetters lists letters that e has as dead_letters, or that with makes them.
func (a *app) printLetters(ctx context.Context, e *query.Engine, spec *config.Spec, format string, f lettersFlags, with string) error {
	begin := strings.Replace(lettersOf(spec.Name), "WITH ", "WITH "+with, 1)
	if format == "text" {
		return f.text(ctx, a.out, widthOf(a.out), e, spec, begin)
	}
	if !f.records {
		return a.printQuery(ctx, e, format, begin+f.sql())
	}
	slices, err := f.slices(asking(ctx, e, begin))
	if err != nil {
		return err
	}
	for i := range slices {
		slices[i] = begin + recordsSQL(slices[i])
	}
	return a.printQuery(ctx, e, format, slices...)
}

// lettersOf is the beginning of SQL over the letters of a pipeline. A letter was
// run again where a mark of its stream reaches beyond its batch. What names letters
// twice reads them twice, and joins are done as they are written: what DuckDB keeps of
// letters, it has in memory with their payloads.
func lettersOf(pipeline string) string {
	return `WITH marks AS (SELECT replayed_stream AS stream, max(replayed_to) AS upto FROM dead_letters WHERE code = 'replayed' AND pipeline = ` + sqlText(pipeline) + ` GROUP BY ALL),
letters AS NOT MATERIALIZED (SELECT *, batch < coalesce((SELECT map(list(stream), list(upto)) FROM marks)[stream], 0) AS replayed FROM dead_letters
  WHERE code <> 'replayed' AND pipeline = ` + sqlText(pipeline) + `)
`
}

// shownBlob is SQL that shows a BLOB as text where it is text, and how it is shown.
func shownBlob(column string) string {
	return fmt.Sprintf("coalesce(TRY(decode(%[1]s)), to_base64(%[1]s)) AS %[1]s, CASE WHEN %[1]s IS NULL THEN NULL WHEN TRY(decode(%[1]s)) IS NULL THEN 'base64' ELSE 'text' END AS %[1]s_encoding", column)
}

// newestFirst is the order of letters.
const newestFirst = ` ORDER BY batch_time DESC, stream DESC, batch DESC, topic, partition, "offset", sink`

// generalReason is SQL for the first line of a reason, without what differs from
// record to record: numbers, and what is in quotes.
const generalReason = `regexp_replace(split_part(reason, chr(10), 1), '"[^"]*"|''[^'']*''|[0-9]+', '…', 'g')`

// where is the condition on the letters that are wanted.
func (f *lettersFlags) where() string {
	if len(f.narrow) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(f.narrow, " AND ")
}

// sql goes on behind lettersOf: it lists the letters that are wanted, by reason.
func (f *lettersFlags) sql() string {
	return f.grouped() + `,
found AS (SELECT ` + foundKey + `, any_value(value) AS value FROM ` + foundAmong + ` GROUP BY ALL)
SELECT code, source, sink, why AS reason, letters, waiting, newest, x.b AS newest_batch, x.t AS topic, x.p AS partition, x.o AS "offset", x.r AS example, ` + shownBlob("value") + `
FROM ` + withFound + ` ORDER BY letters DESC, code, source, sink, why`
}

// grouped goes on behind lettersOf: shown are the reasons, each with the newest of its
// letters, but its payload. To find that one, no payload is read.
func (f *lettersFlags) grouped() string {
	return `, grouped AS (
  SELECT code, source, sink, ` + generalReason + ` AS why, count(*) AS letters, count(*) FILTER (NOT replayed) AS waiting,
    count(DISTINCT (topic, partition)) AS places, min(topic) AS topic, min(partition) AS partition, min("offset") AS low, max("offset") AS high, min(timestamp) AS oldest, max(timestamp) AS latest, max(batch_time) AS newest,
    arg_max({s: stream, b: batch, t: topic, p: partition, o: "offset", r: reason}, (batch_time, batch, topic, partition, "offset")) AS x
  FROM letters` + f.where() + ` GROUP BY ALL),
shown AS MATERIALIZED (SELECT *, count(*) OVER () AS kinds FROM grouped ORDER BY letters DESC, code, source, sink, why` + limitText(f.limit) + `)`
}

// Letters of one record in one batch have the same payload, so it is found by these.
const (
	foundKey   = `stream AS s, batch AS b, topic AS t, partition AS p, "offset" AS o`
	foundAmong = `letters SEMI JOIN shown ON x.s = stream AND x.b = batch AND x.t = letters.topic AND x.p = letters.partition AND x.o = "offset"`
	withFound  = `shown LEFT JOIN found ON x.s = s AND x.b = b AND x.t = t AND x.p = p AND x.o = o`
)

// wanted goes on behind lettersOf: parts are columns of the letters that are wanted, and
// perhaps of a few more behind them, which were found first without their payloads. They
// are computed before anything is put in order, or whole payloads would be.
func (f *lettersFlags) wanted(columns string) string {
	return `, wanted AS MATERIALIZED (SELECT stream, batch, topic, partition, "offset" FROM letters` + f.where() + newestFirst + limitText(f.limit) + `),
parts AS MATERIALIZED (SELECT ` + columns + ` FROM letters SEMI JOIN wanted USING (stream, batch, topic, partition, "offset")` + f.where() + `)
`
}

// recordsSQL goes on behind lettersOf: it lists letters one by one.
func recordsSQL(slice string) string {
	return `, wanted AS (SELECT * FROM letters` + slice + `)
SELECT topic, partition, "offset", timestamp, source, sink, code, reason, stream, batch, batch_time, replayed, ` + shownBlob("key") + `, ` + shownBlob("value") + `, headers
FROM wanted` + newestFirst
}

// topicLetters lists what a topic has: its letters become a file of the columns
// that a table would have.
func (a *app) topicLetters(ctx context.Context, p *pipeline.Pipeline, spec *config.Spec, format string, f lettersFlags) (failed error) {
	if f.waiting {
		return fmt.Errorf("%w: --waiting is for letters in a table: a topic does not say which ones were run again", errUsage)
	}
	dir, err := os.MkdirTemp("", "frazil-letters-")
	if err != nil {
		return fmt.Errorf("a folder for the letters of the topic: %w", err)
	}
	defer func() { failed = errors.Join(failed, os.RemoveAll(dir)) }()
	name := filepath.Join(dir, "letters.parquet")
	if err := a.copyLetters(ctx, p, name); err != nil {
		return err
	}
	none := *spec
	none.Sinks = config.Ordered[config.Sink]{}
	e, err := a.engine(ctx, &none, p, f.queryFlags)
	if err != nil {
		return err
	}
	defer e.Close()
	return a.printLetters(ctx, e, spec, format, f, lettersIn(name))
}

// lettersIn is SQL that stands before lettersOf and takes the letters from a file.
func lettersIn(name string) string {
	return "dead_letters AS NOT MATERIALIZED (FROM read_parquet(" + sqlText(name) + ")), "
}

// copyLetters writes the letters of a topic to a file.
func (a *app) copyLetters(ctx context.Context, p *pipeline.Pipeline, name string) error {
	out, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("a file for the letters of the topic: %w", err)
	}
	w, err := pqarrow.NewFileWriter(deadletter.Schema(), out, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd)), pqarrow.DefaultWriterProps())
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, err), out.Close())
	}
	err = p.TopicLetters(ctx, w.Write)
	return errors.Join(err, w.Close()) // and out
}
