package batch

import (
	"reflect"
	"slices"
	"strings"
)

// A sink may feed many tables: `table: raw.${_topic}`. What a plan, an outcome
// or an attempt says of one of them is under the sink's name, a slash and the
// table's.

// RouteName names one table of a sink that feeds many.
func RouteName(sink, table string) string { return sink + "/" + table }

// SplitRoute returns the sink of a name, and the table where it is one of many.
func SplitRoute(name string) (sink, table string) {
	sink, table, _ = strings.Cut(name, "/")
	return sink, table
}

// RoutePlan is what a plan fixes for a sink that feeds many tables. Only the
// batch's SQL says which ones it touches, so it is executed before its plan is
// logged.
type RoutePlan struct {
	// Origin is where the sink began in each open partition: the first stamp of
	// a table begins there, whenever the table is made.
	Origin Offsets `json:"origin"`
	// Total counts what went through the sink before this batch, and Counts the
	// batch itself; Written is of all tables together.
	Total  Counts `json:"total"`
	Counts Counts `json:"counts"`
	// Tables are all that the batch touches, by name.
	Tables []RoutedTable `json:"tables,omitempty"`
}

// RoutedTable is one table that a batch touches.
type RoutedTable struct {
	Table string `json:"table"`
	// Before is the stamp that its tag must carry before the commit, the zero Ref
	// where the tag must not exist.
	Before Ref `json:"before"`
	// Has says that the table has the batch's rows already, from before the
	// checkpoint was lost: it takes no part.
	Has bool `json:"has,omitempty"`
}

// Names returns the tables' names.
func (r *RoutePlan) Names() []string {
	names := make([]string, 0, len(r.Tables))
	for _, t := range r.Tables {
		names = append(names, t.Table)
	}
	return names
}

// Table returns what the plan says of a table, nil where it does not name it.
func (r *RoutePlan) Table(name string) *RoutedTable {
	i, ok := slices.BinarySearchFunc(r.Tables, name, func(t RoutedTable, name string) int { return strings.Compare(t.Table, name) })
	if !ok {
		return nil
	}
	return &r.Tables[i]
}

// routed is the part of one table of a sink in a plan. Its stamp begins where
// its last one ended. What lies between went to other tables: it is the
// difference of the sink's totals, so nobody counts for a table that rests.
func (p *Plan) routed(s *SinkPlan, t *RoutedTable) *SinkPlan {
	from := t.Before.End.Clone()
	if from == nil {
		from = Offsets{}
	}
	for _, r := range p.Ranges {
		if _, ok := from[r.TopicPartition]; !ok && (!r.Closed || r.Len() > 0) {
			from[r.TopicPartition] = s.Route.Origin[r.TopicPartition]
		}
	}
	carried := s.Route.Total.Minus(t.Before.Total)
	carried.Written = 0 // none of them is this table's
	return &SinkPlan{
		Name: RouteName(s.Name, t.Table), Hash: s.Hash, Active: s.Active && !t.Has, Before: t.Before, Due: true,
		From: from, Carried: carried, CatchUp: s.CatchUp,
	}
}

// Route is what the stamp of a table says of the sink that feeds it and others.
// It is all that is left of the sink's place in the stream when the checkpoint
// is lost.
type Route struct {
	Sink string `json:"sink"`
	Spec string `json:"spec,omitempty"` // SinkPlan.Hash
	// Tables is how many tables got a stamp of batch Stamp.Last, and Names the
	// hash of all that the batch touched: so it can be told whether one lacks it.
	Tables int    `json:"tables,omitempty"`
	Names  string `json:"names,omitempty"`
	// From is where that batch began. The table's own offsets-start lies before,
	// by the batches that did not touch it.
	From   Offsets `json:"from,omitempty"`
	Origin Offsets `json:"origin,omitempty"` // RoutePlan.Origin
	Before Counts  `json:"before,omitzero"`  // RoutePlan.Total
	Counts Counts  `json:"counts,omitzero"`  // RoutePlan.Counts
}

// Stamp is the part of a stamp that all tables share that this plan touches.
func (r *RoutePlan) Stamp(s *SinkPlan) *Route {
	out := &Route{Sink: s.Name, Spec: s.Hash, Names: r.Hash(), From: s.From, Origin: r.Origin, Before: r.Total, Counts: r.Counts}
	for _, t := range r.Tables {
		if !t.Has {
			out.Tables++
		}
	}
	return out
}

// Hash identifies the set of tables.
func (r *RoutePlan) Hash() string { return hash(r.Names()) }

// Minus returns the difference of both, term by term.
func (c Counts) Minus(d Counts) Counts {
	negate(reflect.ValueOf(&d).Elem())
	return c.Plus(d)
}

// negate turns the sign of every number in a struct. A map in it becomes another one.
func negate(v reflect.Value) {
	for _, f := range v.Fields() {
		switch f.Kind() {
		case reflect.Struct:
			negate(f)
		case reflect.Map:
			turned := map[string]int64{}
			for rule, n := range f.Interface().(map[string]int64) {
				turned[rule] = -n
			}
			f.Set(reflect.ValueOf(turned))
		default:
			f.SetInt(-f.Int())
		}
	}
}
