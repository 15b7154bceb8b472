package verify

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
)

// filesAtOnce is how many data files are looked at side by side: enough to hide
// the answer times of an object store.
const filesAtOnce = 16

// attemptFolder leads from a data file to the attempt that wrote it.
var attemptFolder = regexp.MustCompile(`/frazil-([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})/[^/]+$`)

// attemptOf is the attempt that wrote a file, "" for other writers' files.
func attemptOf(name string) string {
	if m := attemptFolder.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return ""
}

// sourceSnapshot is where Iceberg's cherrypick_snapshot notes of what it made a copy.
const sourceSnapshot = "source-snapshot-id"

const todoFiles = "restore the file from a backup; or `frazil checkpoint rewind SPEC --batch N` to before its batch, which reads Kafka again while that still has the records"

// files audits the manifests and data files of one table.
type files struct {
	*history
	fs    iceio.IO
	seed  maphash.Seed
	group *errgroup.Group

	mu sync.Mutex // of what follows, and of the section
	*Section
	seen map[uint64]bool // data files that were looked at, by the hash of their path

	presence *presence
	measured map[string]bool // manifests whose length was looked at

	ownRows, otherRows, deletedRows int64
	otherFiles, rewritten           int64
}

// auditFiles reads the manifests of every live snapshot, and every data file's
// footer. An error is one of reading, not of what was read.
func auditFiles(ctx context.Context, h *history, s *Section, from iceio.IO) (*files, error) {
	f := &files{history: h, Section: s, fs: from, seed: maphash.MakeSeed(), seen: map[uint64]bool{}, presence: newPresence(), measured: map[string]bool{}}
	f.group, ctx = errgroup.WithContext(ctx)
	f.group.SetLimit(filesAtOnce)
	err := f.head(ctx)
	for _, s := range h.all {
		if err == nil {
			err = f.added(ctx, s)
		}
	}
	if waited := f.group.Wait(); err == nil || waited != nil && errors.Is(err, context.Canceled) {
		err = waited
	}
	if err == nil {
		f.present()
	}
	return f, err
}

func (f *files) find(code Code, where, what, todo string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Section.find(code, where, what, todo)
}

// unreadable is a finding where a file is not there, else an error.
func (f *files) unreadable(what, name, where string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return lake.Classify("read "+name, err)
	}
	f.find(MissingFile, where, fmt.Sprintf("%s %s does not exist", what, name), todoFiles)
	if what != dataFile {
		f.presence.partly = true
	}
	return nil
}

// dataFile is what unreadable calls one.
const dataFile = "the data file"

// measure compares a manifest with its list, once beside others in length, and in
// what it has.
func (f *files) measure(ctx context.Context, m iceberg.ManifestFile, has tally, live bool) {
	if wrong := has.differ(m, live); wrong != "" {
		f.find(ChangedFile, m.FilePath(), wrong, todoHistory)
	}
	if f.measured[m.FilePath()] {
		return
	}
	f.measured[m.FilePath()] = true
	f.group.Go(func() error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		wrong, err := f.length(m)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // which was told when it was read
			return lake.Classify("look at "+m.FilePath(), err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.count("manifests", 1)
		if wrong != "" {
			f.Section.find(ChangedFile, m.FilePath(), wrong, todoHistory)
		}
		return nil
	})
}

func (f *files) manifests(s *snapshot) ([]iceberg.ManifestFile, error) {
	manifests, err := s.Manifests(f.fs)
	if err != nil {
		return nil, f.unreadable("its manifest list", s.ManifestList, s.where(), err)
	}
	return manifests, nil
}

// head audits what the table has now: each data file once, with its rows.
func (f *files) head(ctx context.Context) error {
	if f.history.head == nil {
		return nil
	}
	manifests, err := f.manifests(f.history.head)
	if err != nil {
		return err
	}
	for _, m := range manifests {
		var has tally
		whole := true
		for e, err := range m.Entries(f.fs, true) {
			if err != nil {
				if err := f.unreadable("the manifest", m.FilePath(), f.history.head.where(), err); err != nil {
					return err
				}
				whole = false
				break
			}
			has.add(e)
			d := e.DataFile()
			if m.ManifestContent() != iceberg.ManifestContentData {
				f.deletedRows += d.Count()
				continue
			}
			if f.known(d.FilePath()) {
				f.find(DoubledFile, d.FilePath(), "is in the table twice: its rows are, too", todoHistory)
			}
			if attemptOf(d.FilePath()) != "" {
				f.ownRows += d.Count()
				f.presence.head[f.key(d.FilePath())] = inHead{d.FilePath(), e.SnapshotID(), d.Count()}
			} else {
				f.otherFiles++
				f.otherRows += d.Count()
			}
			f.look(ctx, d)
		}
		if whole {
			f.measure(ctx, m, has, true)
		}
	}
	return context.Cause(ctx)
}

func (f *files) key(name string) uint64 { return maphash.String(f.seed, name) }

// known says whether a file was seen before, and notes it.
func (f *files) known(name string) bool {
	key := f.key(name)
	was := f.seen[key]
	f.seen[key] = true
	return was
}

// added audits what one snapshot added and removed by itself.
func (f *files) added(ctx context.Context, s *snapshot) error {
	manifests, err := f.manifests(s)
	if err != nil {
		return err
	}
	var did changes
	for _, m := range manifests {
		if m.SnapshotID() != s.SnapshotID {
			continue
		}
		var has tally
		whole := true
		for e, err := range m.Entries(f.fs, false) {
			if err != nil {
				if err := f.unreadable("the manifest", m.FilePath(), s.where(), err); err != nil {
					return err
				}
				whole = false
				break
			}
			has.add(e)
			if m.ManifestContent() == iceberg.ManifestContentData {
				f.change(ctx, s, e, &did)
			}
		}
		if whole {
			f.measure(ctx, m, has, false)
		}
	}
	f.judge(s, did)
	return context.Cause(ctx)
}

// changes are what a snapshot's own manifests added and removed.
type changes struct {
	rows, gone           int64 // of all files
	removed, removedRows int64 // of pipelines
}

func (f *files) change(ctx context.Context, s *snapshot, e iceberg.ManifestEntry, did *changes) {
	d := e.DataFile()
	own, key := attemptOf(d.FilePath()) != "", f.key(d.FilePath())
	switch e.Status() {
	case iceberg.EntryStatusADDED:
		did.rows += d.Count()
		f.of(s, d)
		if own {
			f.presence.added[key] = true
			f.presence.adds = append(f.presence.adds, addition{s, key, d.FilePath(), d.Count()})
		}
		if !f.known(d.FilePath()) {
			f.look(ctx, d)
		}
	case iceberg.EntryStatusDELETED:
		did.gone += d.Count()
		if own {
			did.removed++
			did.removedRows += d.Count()
			f.presence.removed[key] = true
		}
	case iceberg.EntryStatusEXISTING:
	}
}

// of audits whose file it is that a snapshot added.
func (f *files) of(s *snapshot, d iceberg.DataFile) {
	attempt := attemptOf(d.FilePath())
	switch {
	case s.stamp != nil && attempt != s.stamp.Attempt:
		f.find(AddedFile, s.where(), fmt.Sprintf("has file %s, which attempt %s of its stamp did not write: %d rows", d.FilePath(), s.stamp.Attempt, d.Count()), todoHistory)
	case s.Summary != nil && s.Summary.Properties[ReplayedBatch] != "" && !f.onBranch[s.SnapshotID]:
	case s.stamp == nil && s.bad == nil && attempt != "" && s.Summary != nil && s.Summary.Properties[sourceSnapshot] != "":
		f.find(AddedFile, s.where(), fmt.Sprintf("is of another writer and a copy of snapshot %s (cherrypick_snapshot) with %s, a file of attempt %s of a pipeline: %d rows, which are in the table twice when the pipeline commits them, too",
			s.Summary.Properties[sourceSnapshot], d.FilePath(), attempt, d.Count()), "roll the branch back to the snapshot before it, or delete these rows, and run the pipeline: it commits its batches itself")
	case s.stamp == nil && s.bad == nil && attempt != "":
		f.find(AddedFile, s.where(), fmt.Sprintf("is of another writer and adds %s, a file of attempt %s of a pipeline: %d rows", d.FilePath(), attempt, d.Count()), todoHistory)
	}
}

// judge compares what a snapshot's manifests have with its stamp, or, of another
// writer's, says what it did.
func (f *files) judge(s *snapshot, did changes) {
	rows, removed, removedRows := did.rows, did.removed, did.removedRows
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.stamp != nil {
		f.count("snapshots", 1)
		if rows != s.stamp.Counts.Written {
			f.Section.find(WrongRows, s.where(), fmt.Sprintf("added files with %d rows, and its stamp says %d", rows, s.stamp.Counts.Written), todoHistory)
		}
		if removed > 0 {
			f.Section.find(RemovedRows, s.where(), fmt.Sprintf("carries a stamp and removes %d data files", removed), todoHistory)
		}
		return
	}
	added, ok := s.number("added-records")
	if !ok {
		added = rows
	}
	replayed := ""
	if s.Summary != nil {
		replayed = s.Summary.Properties[ReplayedBatch]
	}
	switch operation := s.operation(); {
	case removed == 0 && replayed != "" && !f.onBranch[s.SnapshotID]:
		f.note("%s has batch %s, run again on a branch", s.where(), replayed)
	case removed == 0:
		f.note("%s is of another writer: %s of %d rows", s.where(), operation, added)
	case operation == table.OpReplace:
		f.rewritten += removedRows
		f.note("%s is of another writer: it rewrote %d files of this pipeline with %d rows; they can no longer be compared file by file", s.where(), removed, removedRows)
		if did.gone != rows {
			f.Section.find(RemovedRows, s.where(), fmt.Sprintf("is of another writer and rewrote %d rows into %d", did.gone, rows), todoHistory)
		}
	default:
		f.Section.find(RemovedRows, s.where(), fmt.Sprintf("is of another writer (%s) and removed %d data files with %d rows that a pipeline had committed", operation, removed, removedRows),
			"if that was meant, nothing; else go back: `frazil checkpoint rewind SPEC --batch N --drop-foreign`")
	}
}

// look opens a data file beside others and compares it with what its manifest says.
func (f *files) look(ctx context.Context, d iceberg.DataFile) {
	name, size, rows := d.FilePath(), d.FileSizeBytes(), d.Count()
	parquet := d.FileFormat() == iceberg.ParquetFile
	var says claims // of other writers' statistics nobody knows how they were made
	if attemptOf(name) != "" {
		says = claimsOf(f.meta, d)
	}
	f.group.Go(func() error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		wrong, err := compare(f.fs, name, size, rows, parquet, says)
		if err != nil {
			return f.unreadable(dataFile, name, name, err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.count("data files", 1)
		if wrong != "" {
			f.Section.find(ChangedFile, name, wrong, todoFiles)
		}
		return nil
	})
}

// compare says how a data file differs from what its manifest says of it.
func compare(from iceio.IO, name string, size, rows int64, parquet bool, says claims) (wrong string, err error) {
	in, err := from.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	info, err := in.Stat()
	if err != nil {
		return "", err
	}
	if parquet {
		w := &watched{File: in}
		r, err := file.NewParquetReader(w)
		switch {
		case w.failed != nil:
			return "", w.failed
		case err != nil:
			return fmt.Sprintf("is no Parquet file any more, or a damaged one (%d bytes, its manifest says %d): %v", info.Size(), size, err), nil
		}
		if has := r.NumRows(); has != rows {
			return fmt.Sprintf("has %d rows, and its manifest says %d", has, rows), nil
		}
		if wrong = says.differ(r.MetaData()); wrong != "" {
			return wrong, nil
		}
	}
	if info.Size() != size {
		return fmt.Sprintf("has %d bytes, and its manifest says %d", info.Size(), size), nil
	}
	return "", nil
}

// watched remembers that a file could not be read: then it is not damaged.
type watched struct {
	iceio.File
	failed error
}

// ReadAt implements io.ReaderAt.
func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.File.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		w.failed = err
	}
	return n, err
}

// total compares the rows that the table has with those that were committed to it,
// over all its snapshots, expired ones, too.
func (f *files) total(uuids map[string]*batch.Stamp) {
	if len(uuids) == 0 {
		return
	}
	var committed int64
	var names []string
	for _, key := range slices.Sorted(maps.Keys(uuids)) {
		st := uuids[key]
		committed += st.Total.Written
		name := st.Name
		if st.Stream != batch.StreamMain {
			name += " (" + st.Stream + ")"
		}
		names = append(names, name)
	}
	f.count("rows", f.ownRows)
	where := "table"
	if len(names) > 1 {
		where = "table, with pipelines " + strings.Join(names, ", ")
	}
	if f.deletedRows > 0 {
		f.Section.find(RemovedRows, where, fmt.Sprintf("delete files of another writer hide %d rows", f.deletedRows), "if that was meant, nothing; else go back with that engine")
	}
	switch missing := committed - f.ownRows; {
	case missing < 0:
		f.Section.find(WrongRows, where, fmt.Sprintf("has %d rows in files of pipelines, %d more than their stamps say (%d)", f.ownRows, -missing, committed),
			"find out who added them; a pipeline whose tag was removed from this table has no stamp any more")
	case missing > 0 && f.otherFiles > 0 && f.ownRows+f.otherRows >= committed:
		f.note("%d of %d committed rows are in files that another writer made, as compaction does", missing, committed)
	case missing > 0:
		f.Section.find(WrongRows, where, fmt.Sprintf("has %d rows of the %d that were committed: %d are missing", f.ownRows, committed, missing), todoHistory)
	}
}

// newestOf are the newest stamps of every pipeline that writes to the table.
func (h *history) newestOf() map[string]*batch.Stamp {
	newest := map[string]*snapshot{}
	for _, s := range h.all {
		if s.stamp == nil || !h.onBranch[s.SnapshotID] && s != h.tagged && !h.named[s.SnapshotID] {
			continue
		}
		key := path.Join(s.stamp.UUID, s.stamp.Stream)
		if was := newest[key]; was == nil || s.follows(was) {
			newest[key] = s
		}
	}
	stamps := make(map[string]*batch.Stamp, len(newest))
	for key, s := range newest {
		stamps[key] = s.stamp
	}
	return stamps
}

// follows says whether the stamp of a snapshot is newer than another one of its stream.
// Runs of dead letters that lose their checkpoint count incarnations anew; they never
// go back, so the later commit is the newer one.
func (s *snapshot) follows(was *snapshot) bool {
	a, b := s.stamp, was.stamp
	if a.Stream != batch.StreamMain {
		return s.SequenceNumber > was.SequenceNumber
	}
	return a.Incarnation > b.Incarnation || a.Incarnation == b.Incarnation && a.Last >= b.Last
}
