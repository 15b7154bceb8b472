package pipeline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go/table"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/verify"
)

// respec is the spec with another text.
func (p *proof) respec(old, text string) *config.Spec {
	p.Helper()
	spec := fmt.Sprintf(proofSpec, p.spec.Checkpoint, p.cluster.ListenAddrs()[0])
	changed := strings.Replace(spec, old, text, 1)
	if changed == spec {
		p.Fatalf("%q is not in the spec", old)
	}
	return p.parse(changed)
}

func (p *proof) replay(o ReplayOptions) (*Replayed, error) {
	p.Helper()
	return p.open(Options{ReadOnly: true}).Replay(p.Context(), o)
}

func (p *proof) mustReplay(o ReplayOptions) *Replayed {
	p.Helper()
	r, err := p.replay(o)
	if err != nil {
		p.Fatal(err)
	}
	return r
}

func TestReplay(t *testing.T) {
	p := newProof(t)
	for range 4 {
		p.produce(10)
		p.run()
	}
	for id := range batch.ID(4) {
		r := p.mustReplay(ReplayOptions{Batch: id})
		if !r.Equal() || len(r.Diffs) != 3 || r.Diffs[0].Committed != 10 || r.Diffs[0].Replayed != 10 || r.Diffs[1].Committed != 5 || r.Diffs[2].Committed != 0 || r.Tally.Data != 10 {
			t.Errorf("batch %d: %+v", id, r)
		}
	}
	if _, err := p.replay(ReplayOptions{Batch: 9}); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "keeps batches 0..3") {
		t.Error(err)
	}

	// On a branch: the snapshot before the batch, and the rows.
	looking := p.open(Options{ReadOnly: true})
	refs := func() map[string]table.SnapshotRef {
		tbl, err := looking.loadTable(t.Context(), "ids")
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]table.SnapshotRef{}
		for name, ref := range tbl.Metadata().Refs() {
			all[name] = ref
		}
		return all
	}
	before := refs()
	r := p.mustReplay(ReplayOptions{Batch: 2, Branch: "again", Sinks: []string{"ids"}})
	after := refs()
	if r.Branches["ids"] == 0 || len(after) != len(before)+1 || after["again"].SnapshotID != r.Branches["ids"] || after["main"] != before["main"] || after["frazil-proof"] != before["frazil-proof"] {
		t.Errorf("%+v\n%+v\n%+v", r.Branches, before, after)
	}
	tbl, err := looking.loadTable(t.Context(), "ids")
	if err != nil {
		t.Fatal(err)
	}
	if s := tbl.Metadata().SnapshotByID(r.Branches["ids"]).Summary.Properties; s["total-records"] != "30" || s["added-records"] != "10" {
		t.Errorf("%v", s)
	}
	if _, err := p.replay(ReplayOptions{Batch: 2, Branch: "again", Sinks: []string{"ids"}}); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "already") {
		t.Error(err)
	}
	p.clean(looking)

	// Another spec is said, and its rows differ.
	was := p.spec
	p.spec = p.respec("SELECT id FROM clicks,", "SELECT id + 1 AS id FROM clicks WHERE id <> 10,")
	if _, err := p.replay(ReplayOptions{Batch: 1}); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "another spec for sink ids") {
		t.Error(err)
	}
	r = p.mustReplay(ReplayOptions{Batch: 1, Today: true, Sinks: []string{"ids"}})
	if d := r.Diffs[0]; r.Equal() || d.Replayed != 9 || d.Committed != 10 || d.OnlyCommitted != 2 || d.OnlyReplayed != 1 ||
		len(d.ExamplesCommitted) != 2 || string(d.ExamplesReplayed[0]) != `{"id":20}` || len(r.Changed) != 1 {
		t.Errorf("%+v", r)
	}
	p.spec = was

	// Kafka has the records no more.
	_, err = kadm.NewClient(p.client).DeleteRecords(t.Context(), kadm.Offsets{"clicks": {0: kadm.Offset{Topic: "clicks", Partition: 0, At: 7}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.replay(ReplayOptions{Batch: 1}); !errors.Is(err, batch.ErrDataLost) || !strings.Contains(err.Error(), "clicks/0[5,7)") {
		t.Error(err)
	}
	if r := p.mustReplay(ReplayOptions{Batch: 2}); !r.Equal() {
		t.Errorf("%+v", r)
	}

	// A data file is gone.
	files, err := filepath.Glob(filepath.Join(p.spec.Checkpoint, "warehouse", "*", "ids", "data", "*", "*.parquet"))
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.replay(ReplayOptions{Batch: 2}); err == nil {
		t.Error("a batch without its file was compared")
	}
}

// TestVerifyDeep: what Kafka still has is read again; a record that is there now and
// was not then, and rows that the batch does not give, are named.
func TestVerifyDeep(t *testing.T) {
	p := newProof(t)
	for range 3 {
		p.produce(10)
		p.run()
	}
	deep := func() *verify.Report {
		t.Helper()
		r, err := p.open(Options{ReadOnly: true}).Verify(t.Context(), time.Now(), true)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	counts := func(r *verify.Report, what string) int64 {
		for _, c := range r.Tables[0].Checks {
			if c.What == what {
				return c.Count
			}
		}
		return 0
	}
	if r := deep(); !r.Clean || counts(r, "batches run again") != 3 || counts(r, "rows compared") != 30 {
		t.Errorf("%+v", r)
	}

	// With another spec the records are counted only.
	was := p.spec
	p.spec = p.respec("SELECT id FROM clicks,", "SELECT id + 1 AS id FROM clicks,")
	if r := deep(); !r.Clean || counts(r, "batches run again") != 0 || counts(r, "batches counted again in Kafka") != 3 {
		t.Errorf("%+v", r)
	}
	p.spec = was

	// Rows of the table that the batch does not give: a data file was exchanged for one
	// of another batch with as many rows, and even as many bytes.
	files, err := filepath.Glob(filepath.Join(p.spec.Checkpoint, "warehouse", "*", "ids", "data", "*", "*.parquet"))
	if err != nil || len(files) != 3 {
		t.Fatal(err, files)
	}
	other, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], other, 0o600); err != nil {
		t.Fatal(err)
	}
	r := deep()
	if !slices.ContainsFunc(r.Tables[0].Findings, func(f verify.Finding) bool {
		return f.Code == verify.RowsDiffer && strings.Contains(f.What, "10 only now, 10 only in the files")
	}) {
		t.Errorf("%+v", r.Tables[0].Findings)
	}

	// Kafka's log was cut.
	if _, err := kadm.NewClient(p.client).DeleteRecords(t.Context(), kadm.Offsets{"clicks": {0: kadm.Offset{Topic: "clicks", Partition: 0, At: 7}}}); err != nil {
		t.Fatal(err)
	}
	if r := deep(); counts(r, "batches run again") != 1 || !strings.Contains(strings.Join(r.Tables[0].Notes, "\n"), "2 logged batches were not read again") {
		t.Errorf("%+v", r.Tables[0])
	}
}
