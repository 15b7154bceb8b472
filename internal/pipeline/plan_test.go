package pipeline

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/planner"
)

// TestDecisions: only what would leave records out of a table, or put them into it
// twice, needs somebody's word.
func TestDecisions(t *testing.T) {
	spec := &config.Spec{}
	spec.Sinks.Names = []string{"a"}
	spec.Sources.Names, spec.Sources.By = []string{"s"}, map[string]config.Source{"s": {}}
	sources := planner.Sources{"s": {Topics: []string{"clicks"}}}
	of := func(source, topic string) []batch.Range {
		return []batch.Range{{TopicPartition: batch.TopicPartition{Source: source, Topic: topic}}}
	}
	for _, tt := range []struct {
		name    string
		ranges  []batch.Range
		sinks   []batch.SinkPlan
		settled bool
		flags   []string
	}{
		{"nothing changed", of("s", "clicks"), []batch.SinkPlan{{Name: "a", Active: true}}, false, nil},
		{"a sink is gone whose table has everything", of("s", "clicks"), []batch.SinkPlan{{Name: "b", Active: true}}, true, nil},
		{"a sink is gone while a batch is open", of("s", "clicks"), []batch.SinkPlan{{Name: "b", Active: true}}, false, []string{"--accept sink/b"}},
		{"a sink is gone while its table lags", of("s", "clicks"), []batch.SinkPlan{{Name: "b", Lags: true}}, true, []string{"--accept sink/b"}},
		{"a source is gone, and another one reads another topic", of("old", "views"), nil, true, nil},
		{"a source has another name", of("old", "clicks"), nil, true, []string{"--accept source/s"}},
	} {
		var flags []string
		for _, d := range decisions(spec, sources, state{plan: &batch.Plan{Ranges: tt.ranges, Sinks: tt.sinks}, settled: tt.settled}) {
			flags = append(flags, d.Flag)
		}
		if !slices.Equal(flags, tt.flags) {
			t.Errorf("%s: %q, want %q", tt.name, flags, tt.flags)
		}
	}
	if decisions(spec, sources, state{}) != nil {
		t.Error("a new pipeline needs a decision")
	}
}

func (p *proof) intent() *Intent {
	p.Helper()
	i, err := p.open(Options{ReadOnly: true}).Intent(p.Context())
	if err != nil {
		p.Fatal(err)
	}
	return i
}

// rename gives the source another name.
func (p *proof) rename() {
	p.Helper()
	p.spec = p.respec("sources: {clicks:", "sources: {renamed:")
	for _, name := range p.spec.Sinks.Names {
		s := p.spec.Sinks.By[name]
		s.SQL = strings.ReplaceAll(s.SQL, "FROM clicks", "FROM renamed")
		p.spec.Sinks.By[name] = s
	}
}

func TestIntent(t *testing.T) {
	p := newProof(t)
	p.produce(10)
	i := p.intent()
	if i.Batch != 0 || i.Open || i.Lag != 10 || len(i.Offsets) != 2 || i.Sinks[0].State != "new" || len(i.Refused()) != 0 || i.Sinks[0].CommitsPerDay != nil {
		t.Errorf("%+v", i)
	}
	p.run()
	p.produce(4)
	p.run()
	p.produce(3)
	i = p.intent()
	if i.Batch != 2 || i.Lag != 3 || i.Sinks[0].State != "same" || i.Sinks[0].CommitsPerDay == nil || *i.Sinks[0].CommitsPerDay <= 0 || i.Offsets[0].Next != 7 {
		t.Errorf("%+v", i)
	}
	was := p.spec

	// Another SQL, that the table would not take.
	p.spec = p.respec("sql: SELECT id FROM clicks, iceberg: {catalog: lake, table: a.ids}", "sql: SELECT id::VARCHAR AS id FROM clicks, iceberg: {catalog: lake, table: a.ids, partition_by: [id]}")
	if i = p.intent(); i.Sinks[0].State != "changed" || !strings.Contains(i.Sinks[0].Error, `"id"`) || len(i.Refused()) != 1 {
		t.Errorf("%+v", i.Sinks[0])
	}
	// One that it takes, with a partitioning that it does not have.
	p.spec = p.respec("sql: SELECT id FROM clicks, iceberg: {catalog: lake, table: a.ids}", `sql: SELECT -id AS id FROM clicks, iceberg: {catalog: lake, table: a.ids, partition_by: ["bucket(4, id)"]}`)
	if i = p.intent(); i.Sinks[0].State != "changed" || !strings.Contains(i.Sinks[0].Error, "partition_by says [bucket(4, id)]") {
		t.Errorf("%+v", i.Sinks[0])
	}
	// One that lacks a column, and a property.
	p.spec = p.respec("SELECT id, kind FROM clicks WHERE id % 2 = 1\", iceberg: {catalog: lake, table: a.odd}", "SELECT id FROM clicks WHERE id % 2 = 1\", iceberg: {catalog: lake, table: a.odd, properties: {x: y}}")
	if i = p.intent(); i.Sinks[1].State != "changed" || !strings.Contains(strings.Join(i.Sinks[1].Schema, ";"), `"kind"`) ||
		!slices.Equal(i.Sinks[1].Properties, []string{"x is not set in the table and y in the spec"}) || len(i.Refused()) != 0 {
		t.Errorf("%+v", i.Sinks[1])
	}

	// A source with another name is refused by run, too, until somebody says so.
	p.rename()
	if i = p.intent(); len(i.Decisions) != 1 || i.Decisions[0].Flag != "--accept source/renamed" || !slices.Equal(i.Dropped, []string{"clicks"}) || !slices.Equal(i.Added, []string{"renamed"}) {
		t.Errorf("%+v", i)
	}
	err := p.open(Options{AvailableNow: true, Takeover: true}).Run(t.Context(), t.Context())
	if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "run with --accept source/renamed") {
		t.Error(err)
	}
	p.spec = was
	p.run()
	p.clean(p.open(Options{ReadOnly: true}))
	p.rename()
	err = p.open(Options{AvailableNow: true, Takeover: true, Accept: []string{"source/renamed"}}).Run(t.Context(), t.Context())
	if err != nil && strings.Contains(err.Error(), "needs a decision") {
		t.Error(err)
	}
	p.clean(p.open(Options{ReadOnly: true}))
}
