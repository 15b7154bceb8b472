package sink

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/lake"
)

const (
	// deleteAfter is how long a file stays that no live snapshot names any more: a
	// reader that began before may still need it.
	deleteAfter = time.Hour
	// maintainEvery is the pause between looks: deleting a file costs two round
	// trips, and a table is loaded for it.
	maintainEvery = time.Minute
	// saveEvery is the pause between writes of the notes. What is lost of them is
	// found again by listing, and waits its hour anew.
	saveEvery = 10 * time.Minute
	// listsMax bounds the manifest lists that one look reads, listsAtOnce those at
	// the same time. Later looks read the rest.
	listsMax    = 1000
	listsAtOnce = 8
	// notesMax bounds the notes in bytes; a table has a few hundred files waiting.
	notesMax = 16 << 20
)

// trash are files of the table's metadata that may be garbage. Being here means
// nothing: a file is deleted only when it was looked for, in vain, in all live
// snapshots, an hour ago and now again.
//
// What survives a restart are notes beside the files, written now and then. They
// only say since when a file has been seen to be unnamed. What they lack is
// found by listing the folder for names that this pipeline alone gives.
type trash struct {
	mu       sync.Mutex
	since    map[string]time.Time // the zero time: not seen to be unnamed yet
	lists    map[int64][]string   // the manifests of snapshots that are known
	looked   time.Time
	recalled bool // the notes were read
	found    bool // the folder was listed
	dirty    bool
	saved    time.Time
}

// add notes files that may be garbage now, or become it.
func (t *trash) add(files ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range files {
		if _, ok := t.since[f]; !ok {
			t.since[f], t.dirty = time.Time{}, true
		}
	}
}

// know keeps the manifests of a snapshot, which never change.
func (t *trash) know(snapshot int64, manifests []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lists[snapshot] = manifests
}

// metadataFolder is where the table's metadata lies.
func metadataFolder(meta table.Metadata) string {
	folder := meta.Properties()["write.metadata.path"]
	if folder == "" {
		folder = strings.TrimRight(meta.Location(), "/") + "/metadata"
	}
	return strings.TrimRight(folder, "/")
}

func (v *View) metadataFile(name string) string { return metadataFolder(v.meta) + "/" + name }

// ownName is the beginning of a name that says who wrote the file, and on which
// tagged snapshot it builds: while the tag is there, a request that names the
// file may be under way.
func (v *View) ownName() string {
	var on int64
	if v.tagged != nil {
		on = v.tagged.SnapshotID
	}
	return fmt.Sprintf("%s-%d-%s", v.t.tag, on, uuid.NewString())
}

const uuidText = `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`

var (
	ownText      = regexp.MustCompile(`^(.+)-(\d+)-` + uuidText + `(?:-m0)?\.avro$`)
	metadataText = regexp.MustCompile(`^(\d+)-` + uuidText + `(?:\.gz|\.zstd)?\.metadata\.json(?:\.gz)?$`)
)

// own says whether this pipeline's stream gave a name, and on which tagged
// snapshot the file builds.
func (t *Table) own(file string) (on int64, ok bool) {
	m := ownText.FindStringSubmatch(path.Base(file))
	if m == nil || m[1] != t.tag {
		return 0, false
	}
	on, err := strconv.ParseInt(m[2], 10, 64)
	return on, err == nil
}

// version is the number of a metadata file, -1 for another file.
func version(file string) int {
	m := metadataText.FindStringSubmatch(path.Base(file))
	if m == nil {
		return -1
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return -1
	}
	return n
}

// temporary says whether a file is one in the making.
func temporary(file string) bool { return strings.HasPrefix(path.Base(file), lake.TemporaryPrefix) }

// abandoned says whether nobody has written to a file in the making for as long as
// files wait: metadata is written in moments.
func (t *Table) abandoned(file string, now time.Time) bool {
	f, err := t.fs.Open(file)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) // it has its name now: there is nothing to delete
	}
	info, err := f.Stat()
	return errors.Join(err, f.Close()) == nil && now.Sub(info.ModTime()) >= deleteAfter
}

// deletesMetadata says whether old metadata files are deleted: a property of the
// table that Iceberg's other writers follow, too.
func deletesMetadata(meta table.Metadata) bool {
	return meta.Properties()["write.metadata.delete-after-commit.enabled"] == "true"
}

// Maintain deletes files of the table's metadata that no live snapshot has named
// for an hour. It does so once a minute at most. What cannot be deleted is left.
func (t *Table) Maintain(ctx context.Context) {
	now := t.now()
	t.trash.mu.Lock()
	defer t.trash.mu.Unlock()
	if !t.trash.looked.IsZero() && now.Sub(t.trash.looked) < maintainEvery {
		return
	}
	t.trash.looked = now
	if err := t.maintain(ctx, now); err != nil {
		t.log.Debug("files of expired snapshots were not looked at", "table", t.opts.Table, "error", err)
	}
}

func (t *Table) maintain(ctx context.Context, now time.Time) error {
	tbl, err := t.load(ctx)
	if err != nil {
		return err
	}
	if !t.trash.recalled {
		t.recall(tbl.Metadata())
		t.trash.recalled = true
	}
	var listed error // where the folder cannot be listed, what is known goes all the same
	if !t.trash.found {
		listed = t.search(ctx, tbl)
		t.trash.found = listed == nil
	}
	named, err := t.inUse(ctx, tbl)
	if err != nil {
		return errors.Join(listed, err)
	}
	due := slices.DeleteFunc(t.trash.judge(named, now), func(file string) bool { return temporary(file) && !t.abandoned(file, now) })
	t.remove(ctx, due)
	if t.trash.dirty && now.Sub(t.trash.saved) >= saveEvery {
		if err := t.save(tbl.Metadata()); err != nil {
			return errors.Join(listed, err)
		}
		t.trash.dirty, t.trash.saved = false, now
	}
	return listed
}

// judge notes since when each file has not been named, and returns those for
// which that was long enough.
func (t *trash) judge(named func(string) bool, now time.Time) (due []string) {
	for file, since := range t.since {
		switch {
		case named(file):
			if !since.IsZero() { // a snapshot that was restored, or a clock that was set
				t.since[file], t.dirty = time.Time{}, true
			}
		case since.IsZero() || since.After(now):
			t.since[file], t.dirty = now, true
		case now.Sub(since) >= deleteAfter:
			due = append(due, file)
		}
	}
	return due
}

// inUse returns what says of a file whether anything may need it: the table's
// metadata, a live snapshot of any branch, or a request of this pipeline under
// way. Of a manifest list that could not be read yet it says yes for all
// manifests.
func (t *Table) inUse(ctx context.Context, tbl *table.Table) (func(string) bool, error) {
	meta := tbl.Metadata()
	named := map[string]bool{tbl.MetadataLocation(): true}
	for e := range meta.PreviousFiles() {
		named[e.MetadataFile] = true
	}
	live := map[int64]bool{}
	for _, s := range meta.Snapshots() {
		named[s.ManifestList], live[s.SnapshotID] = true, true
	}
	for id := range t.trash.lists {
		if !live[id] {
			delete(t.trash.lists, id)
		}
	}
	all, err := t.readLists(ctx, meta)
	if err != nil {
		return nil, err
	}
	for _, manifests := range t.trash.lists {
		for _, m := range manifests {
			named[m] = true
		}
	}
	tagged := int64(0)
	if s := meta.SnapshotByName(t.tag); s != nil {
		tagged = s.SnapshotID
	}
	return func(file string) bool {
		on, own := t.own(file)
		return named[file] || own && on == tagged || !all && version(file) < 0
	}, nil
}

// readLists makes sure that the manifests of all live snapshots are known. It
// says whether they are.
func (t *Table) readLists(ctx context.Context, meta table.Metadata) (all bool, err error) {
	if len(t.trash.since) == 0 {
		return true, nil
	}
	var missing []table.Snapshot
	for _, s := range meta.Snapshots() {
		if _, ok := t.trash.lists[s.SnapshotID]; !ok {
			missing = append(missing, s)
		}
	}
	all = len(missing) <= listsMax
	missing = missing[:min(len(missing), listsMax)]
	read := make([][]string, len(missing))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(listsAtOnce)
	for i, s := range missing {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			manifests, err := s.Manifests(&t.fs)
			if err != nil {
				return lake.Classify("read "+s.ManifestList, err)
			}
			for _, m := range manifests {
				read[i] = append(read[i], m.FilePath())
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return false, err
	}
	for i, s := range missing {
		t.trash.lists[s.SnapshotID] = read[i]
	}
	return all, nil
}

// remove deletes files. Each is forgotten, also where that failed: the next
// start finds it again.
func (t *Table) remove(ctx context.Context, due []string) {
	if len(due) == 0 {
		return
	}
	var failed error
	if bulk, ok := t.fs.current().(iceio.BulkRemovableIO); ok {
		_, failed = bulk.DeleteFiles(ctx, due)
	} else {
		for _, f := range due {
			if err := t.fs.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = errors.Join(failed, err)
			}
		}
	}
	if failed != nil {
		t.log.Debug("files of expired snapshots were not deleted", "table", t.opts.Table, "error", failed)
	}
	for _, f := range due {
		delete(t.trash.since, f)
	}
	t.trash.dirty = true
}

// search finds what earlier processes left and nobody noted. Only names are looked
// at that this pipeline gives, files in the making of a process that was killed, and
// metadata files that the table's log has dropped.
func (t *Table) search(ctx context.Context, tbl *table.Table) error {
	meta := tbl.Metadata()
	folder := metadataFolder(meta)
	files, err := t.list(folder)
	if err != nil {
		return err
	}
	oldest := version(tbl.MetadataLocation())
	for e := range meta.PreviousFiles() {
		oldest = min(oldest, version(e.MetadataFile))
	}
	drops := t.catalog.WritesMetadata() && deletesMetadata(meta)
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := folder + "/" + path.Base(f)
		_, own := t.own(name)
		n := version(name)
		if _, ok := t.trash.since[name]; !ok && (own || temporary(name) || drops && n >= 0 && n < oldest) {
			t.trash.since[name], t.trash.dirty = time.Time{}, true
		}
	}
	return nil
}

// notesFile is where the notes of this pipeline's stream lie.
func (t *Table) notesFile(meta table.Metadata) string {
	return metadataFolder(meta) + "/" + t.tag + "-expired.json"
}

// notesHead is the first line of the notes, before the checksum of the second.
const notesHead = "frazil expired v1 sha256:"

// save writes the notes.
func (t *Table) save(meta table.Metadata) error {
	seen := map[string]time.Time{}
	for file, since := range t.trash.since {
		if name, ok := strings.CutPrefix(file, metadataFolder(meta)+"/"); ok && !since.IsZero() {
			seen[name] = since.UTC()
		}
	}
	body, err := json.Marshal(seen)
	if err != nil {
		return fmt.Errorf("encode notes: %w", err)
	}
	sum := sha256.Sum256(body)
	name := t.notesFile(meta)
	return lake.Classify("write "+name, t.fs.WriteFile(name, fmt.Appendf(nil, "%s%s\n%s\n", notesHead, hex.EncodeToString(sum[:]), body)))
}

// recall reads the notes. Without them, or where they are damaged, files wait an
// hour more. They can only name files of the metadata folder.
func (t *Table) recall(meta table.Metadata) {
	f, err := t.fs.Open(t.notesFile(meta))
	if err != nil {
		return
	}
	data, err := io.ReadAll(io.LimitReader(f, notesMax))
	if err = errors.Join(err, f.Close()); err != nil {
		return
	}
	head, body, _ := bytes.Cut(data, []byte("\n"))
	body = bytes.TrimSuffix(body, []byte("\n"))
	sum := sha256.Sum256(body)
	seen := map[string]time.Time{}
	if string(head) != notesHead+hex.EncodeToString(sum[:]) || json.Unmarshal(body, &seen) != nil {
		t.log.Warn("notes about expired files are damaged and not used", "file", t.notesFile(meta))
		return
	}
	for name, since := range seen {
		if path.Base(name) == name && (strings.HasSuffix(name, ".avro") || temporary(name) || version(name) >= 0) {
			t.trash.since[metadataFolder(meta)+"/"+name] = since
		}
	}
}
