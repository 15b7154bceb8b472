package driver

import (
	"context"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
)

// The rooms as the driver sees them. Every method may return
// batch.ErrUnavailable, after which the same call may be made again, and
// batch.ErrInvalid. A write that was not acknowledged may have been applied, or
// be applied later: the driver looks before it repeats.

// Source reads Kafka, for all sources of the spec.
type Source interface {
	// Start resolves `start` to an offset for every partition that exists now.
	// known is where the pipeline stands, nil for a new one: a topic that it has
	// may be gone.
	Start(ctx context.Context, known batch.Offsets) (batch.Offsets, error)
	// List returns what every partition can serve now. A listing may be stale;
	// one without a partition that was there before is a batch.ErrUnavailable.
	// since is what was planned last, nil for a pipeline that is new: a partition
	// ends where its log no longer holds that, one that the spec no longer reads
	// stays where it was, and a topic that is gone is not in the listing. Any other
	// topic that does not exist is batch.ErrInvalid.
	List(ctx context.Context, since []batch.Range) ([]batch.Available, error)
	// Ahead may read ahead of a plan that begins at from, or at the start of a
	// partition that from lacks, and returns the listing with the exact sizes of
	// what it read, enough for a batch of bytesMax. Read, which is not under way,
	// uses what was read. batch.ErrDataLost: what was listed is gone.
	Ahead(ctx context.Context, from batch.Offsets, available []batch.Available, bytesMax int64) ([]batch.Available, error)
	// Read emits every record of the ranges that is visible, once, as Arrow
	// record batches with batch.RangeColumn and batch.OffsetColumn last. A
	// record batch holds rows of one source and at least one. emit may be
	// called from several goroutines; the record batch is the source's again
	// when emit returns. letters is given the records that become dead letters in
	// the same way. Read returns after the last call of both. batch.ErrDataLost:
	// offsets behind Range.First are no longer retained.
	Read(ctx context.Context, ranges []batch.Range, emit, letters func(arrow.RecordBatch) error) (batch.Tally, error)
	// Publish tells lag tools that everything before these offsets is in the
	// tables. It does not wait and nothing depends on it.
	Publish(end batch.Offsets)
}

// Replay is what a stream that runs dead letters again needs beside a Source of
// them.
type Replay interface {
	// Done is what the table of the dead letters says: up to where letters are run
	// again, with the rows of that and the next number of a batch of the stream; and
	// the pipeline's UUID.
	Done(ctx context.Context) (upto batch.Offsets, next batch.ID, uuid string, err error)
	// Seal notes which letters the ranges of a plan have, before it is logged.
	Seal(ctx context.Context, ranges []batch.Range) error
}

// Readers are the schemas whose columns records become, by source, for the sources
// that have a registry. A plan names their ids, and is executed with them alone.
type Readers interface {
	// Current are the ids of the schemas that the rooms read with.
	Current() map[string]int32
	// Newest are those that the next plan is to take. It neither asks nor waits.
	Newest() map[string]int32
	// Use makes source, executor and tables those of other schemas; a source that
	// ids lack keeps its own. Nothing else uses the rooms meanwhile. With an error
	// they are as they were. batch.ErrInvalid: the SQL or a table does not fit them.
	Use(ctx context.Context, ids map[string]int32) error
}

// Executor runs the SQL of the sinks.
type Executor interface {
	// Pin returns the version of each dimension table that the next plan uses.
	Pin(ctx context.Context) (map[string]string, error)
	// Execute calls read once, runs the SQL of the job's sinks over what it
	// emits, and hands the rows to write, which may be called from several
	// goroutines; the rows are the executor's again when write returns. Where the
	// dead letters are among the sinks they get the letters of read and, of every
	// sink, the rows that SQL fails on. State goes to an overlay under the job's
	// attempt. The results are by sink.
	Execute(ctx context.Context, job batch.Job, read func(emit, letters func(arrow.RecordBatch) error) error,
		write func(sink string, rows arrow.RecordBatch) error) (map[string]batch.Result, error)
	// Settle says which stamp a sink's table carries now, nil for none. The
	// overlay of the attempt it names is applied; overlays that were not built
	// on it are dropped, and state is loaded from the stamp when it is needed.
	Settle(ctx context.Context, sink string, stamp *batch.Stamp) error
	// Sweep deletes the state files of an attempt that no live stamp needs.
	Sweep(ctx context.Context, attempt string) error
}

// Table is the table of one sink.
type Table interface {
	// Load reads the table's metadata afresh.
	Load(ctx context.Context) (View, error)
	// Writer opens data files under the attempt's own prefix.
	Writer(ctx context.Context, attempt string) (Writer, error)
	// Sweep deletes the data files of an attempt that no live snapshot names.
	// The caller has made sure that no request can name them any more.
	Sweep(ctx context.Context, attempt string) error
	// Pin tags a snapshot under this name, so that it cannot expire; Unpin
	// removes the tag. Both may be repeated.
	Pin(ctx context.Context, tag string, snapshot int64) error
	Unpin(ctx context.Context, tag string) error
}

// Tables are those of a sink that feeds many.
type Tables interface {
	// Table returns one of them, whether or not there is one. Its methods return
	// batch.ErrDataLost where there is none.
	Table(name string) Table
	// Find returns the tables that are the sink's: those whose tag carries a stamp
	// of it, and those that a Writer claimed for it.
	Find(ctx context.Context) ([]string, error)
	// Claim makes a table where there is none, and claims it for the sink.
	Claim(ctx context.Context, name string) error
	// Writer divides rows among tables. Before the first file of a table, or the
	// table, is made, it calls open with it, which returns those that get files;
	// what the others would get is counted and dropped. A table is claimed for the
	// sink before its Writer has any file in it.
	Writer(ctx context.Context, attempt string, open func(tables []string) ([]string, error)) (RoutedWriter, error)
}

// RoutedWriter takes the rows of one attempt for many tables.
type RoutedWriter interface {
	// Write may be called from several goroutines.
	Write(rows arrow.RecordBatch) error
	// Close finishes the files, by table; durable when it returns. dropped counts
	// the rows that were for tables that get none.
	Close(ctx context.Context) (files map[string]Files, dropped int64, err error)
	// Abort drops what was written. It may follow any call.
	Abort()
}

// Writer takes the rows of one attempt for one table.
type Writer interface {
	// Write may be called from several goroutines.
	Write(rows arrow.RecordBatch) error
	// Close finishes the files; durable when it returns.
	Close(ctx context.Context) (Files, error)
	// Abort drops what was written. It may follow any call.
	Abort()
}

// Files are finished data files, ready to be committed any number of times.
type Files interface {
	Rows() int64 // as the files' own footers count them
}

// View is a table's metadata as loaded once. Commits through it assert what it
// saw: the table's UUID, the branch head, the tag and the schema.
type View interface {
	// Stamp is what the tagged snapshot carries; nil without a tag.
	Stamp() *batch.Stamp
	// Tagged is that snapshot, 0 without a tag.
	Tagged() int64
	Ancestry() batch.Ancestry
	// Head is the snapshot at the head of the branch, 0 if there is none.
	Head() int64
	// History returns the live snapshots from the head back, as far as parents
	// lead.
	History() []batch.Stamped
	// Snapshot returns the stamp of any live snapshot, nil for another writer's;
	// ok is false where there is no such snapshot.
	Snapshot(id int64) (stamp *batch.Stamp, ok bool)
	// Fits says whether the files can be committed to the table as it is; not
	// where its schema or partitioning is another one than they were written for.
	// Then new ones may.
	Fits(files Files) bool
	// Commit adds one snapshot with the files and the stamp and moves the tag
	// to it. Whatever it returns, the commit may have been applied.
	Commit(ctx context.Context, stamp *batch.Stamp, files Files) (snapshot int64, err error)
	// Stage adds one snapshot with the files and the stamp beside the branch, which
	// stays where it is, and so does the tag. The same assertions hold. It takes
	// the place of what was staged before. Whatever it returns, it may have been
	// applied.
	Stage(ctx context.Context, stamp *batch.Stamp, files Files) (snapshot int64, err error)
	// Staged is the stamp of the staged snapshot and its files, as they can be
	// committed; nil if there is none, or if its files are for another schema.
	// Commit with its stamp publishes that snapshot where the branch is still where
	// it was, and ends the staging in any case.
	Staged(ctx context.Context) (snapshot int64, stamp *batch.Stamp, files Files, err error)
	// Copied is what other writers put on the branch behind the tag of files of
	// attempts that the tag does not have, and is still there.
	Copied(ctx context.Context) ([]batch.Copy, error)
	// Streams are the pipeline's other streams that have a tag here.
	Streams() []string
	// Untag removes the tag, where it still is on the snapshot that was seen.
	Untag(ctx context.Context) error
	// Restore adds one snapshot with the contents of an earlier one and the
	// stamp, and moves the tag to it. batch.ErrDataLost: snapshots of other
	// writers lie between, or may lie there where the walk ends at an expired
	// one, and dropForeign is false.
	Restore(ctx context.Context, stamp *batch.Stamp, snapshot int64, dropForeign bool) (int64, error)
}

// Auditor looks at the rows of a batch before they are published.
type Auditor interface {
	// Audit runs the sink's rules over the rows that a staged snapshot added.
	// batch.ErrInvalid: a rule holds the batch back; a *HeldBack: for good.
	Audit(ctx context.Context, snapshot int64) error
}

// Checkpoint is the pipeline's own records.
type Checkpoint interface {
	// Incarnations returns all records under pipeline/, by number.
	Incarnations(ctx context.Context) ([]batch.Incarnation, error)
	// CreateIncarnation writes pipeline/<number> if it is absent. Whatever it
	// returns, look again to see whose record is there.
	CreateIncarnation(ctx context.Context, i batch.Incarnation) error
	// Newest returns the log entry with the highest number, nil if there is none.
	Newest(ctx context.Context, i batch.Incarnation) (*batch.Plan, error)
	// Revisions returns the logged plans of one batch.
	Revisions(ctx context.Context, i batch.Incarnation, id batch.ID) ([]*batch.Plan, error)
	// NoteTable lists a table of a sink that feeds many, once and for all; Tables
	// returns the list.
	NoteTable(ctx context.Context, sink, table string) error
	Tables(ctx context.Context, sink string) ([]string, error)
	// Dropped returns those that somebody took from the list because they were
	// dropped on purpose; they may be in the list again.
	Dropped(ctx context.Context, sink string) ([]string, error)
	// Append creates the plan's log entry. batch.ErrFenced: another writer made
	// this entry or a higher one, or there is a newer incarnation. When it
	// returns nil, the entry is this plan and was the newest after it was made.
	Append(ctx context.Context, p *batch.Plan) error
	// Record writes commits/<i>-<id>/<batch>. It may be repeated.
	Record(ctx context.Context, i batch.Incarnation, c batch.Commit) error
	// Clear removes everything of the incarnations before i, but the attempts.
	Clear(ctx context.Context, i batch.Incarnation) error
	// Purge removes log entries and records of batches before keep, never the newest.
	Purge(ctx context.Context, i batch.Incarnation, keep batch.ID) error
	// Register notes an attempt before its first file; Forget removes the note.
	Register(ctx context.Context, a batch.Attempt) error
	Attempts(ctx context.Context) ([]batch.Attempt, error)
	Forget(ctx context.Context, attempt string) error
	// Released says whether the writer of a plan let go of it at its end;
	// Release notes that.
	Release(ctx context.Context, w batch.Writer) error
	Released(ctx context.Context, w batch.Writer) (bool, error)
}

// Clock is time, real or simulated.
type Clock interface {
	Now() time.Time
	// Sleep returns early with the context's cause.
	Sleep(ctx context.Context, d time.Duration) error
}
