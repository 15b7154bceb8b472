package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/exec"
)

// RuleIntent is a rule of `expect` that a sink's rows must pass.
type RuleIntent struct {
	Rule   string `json:"rule"`              // of a source: with its name and a dot before it
	SQL    string `json:"sql,omitempty"`     // "": it is not in the spec any more
	OnFail string `json:"on_fail,omitempty"` // what becomes of a record that fails it
	Failed int64  `json:"failed"`            // how many have, by the newest stamp of the table
}

// oneLine is SQL without its line ends.
func oneLine(sql string) string { return strings.Join(strings.Fields(sql), " ") }

func (r RuleIntent) String() string {
	if r.SQL == "" {
		return fmt.Sprintf("rule %s is not in the spec any more; failed so far: %d", r.Rule, r.Failed)
	}
	text := fmt.Sprintf("rule %s: %s, else %s", r.Rule, oneLine(r.SQL), r.OnFail)
	if r.Failed > 0 {
		text += fmt.Sprintf("; failed so far: %d", r.Failed)
	}
	return text
}

// rulesOf are those that concern a sink, in the order in which they run, and behind
// them those that its table has counted under another spec. tbl may be nil.
func (p *Pipeline) rulesOf(name string, tbl *table.Table) (all []RuleIntent) {
	failed := map[string]int64{}
	if tbl != nil {
		if s := tbl.Metadata().SnapshotByName(batch.Tag(p.spec.Name, batch.StreamMain)); s != nil && s.Summary != nil {
			if st, err := batch.ParseStamp(s.Summary.Properties); err == nil && st != nil {
				failed = maps.Clone(st.Total.Rules)
			}
		}
	}
	add := func(prefix string, rules config.Ordered[config.Rule]) {
		for _, rule := range rules.Names {
			r := rules.By[rule]
			all = append(all, RuleIntent{Rule: prefix + rule, SQL: r.SQL, OnFail: r.OnFail, Failed: failed[prefix+rule]})
			delete(failed, prefix+rule)
		}
	}
	if q := p.Query(name); q != nil {
		for _, source := range p.spec.Sources.Names { // also of those that it does not read: they count in its stamps
			add(source+".", p.spec.Sources.By[source].Expect)
		}
		add("", p.spec.Sinks.By[name].Expect)
	}
	for _, audit := range p.spec.Sinks.By[name].Audit.Names {
		a, rule := p.spec.Sinks.By[name].Audit.By[audit], exec.AuditPrefix+audit
		if n := failed[rule]; n > 0 {
			all = append(all, RuleIntent{Rule: rule, SQL: a.SQL, OnFail: a.OnFail, Failed: n})
			delete(failed, rule)
		}
	}
	for _, r := range p.routeRules(name) {
		if n := failed[r.Name]; n > 0 {
			all = append(all, RuleIntent{Rule: r.Name, SQL: r.SQL, OnFail: string(r.OnFail), Failed: n})
			delete(failed, r.Name)
		}
	}
	for _, rule := range slices.Sorted(maps.Keys(failed)) {
		all = append(all, RuleIntent{Rule: rule, Failed: failed[rule]})
	}
	return all
}

// explainRules describes the rules of the sources that a sink reads, and its own.
func (p *Pipeline) explainRules(name string) string {
	b := &strings.Builder{}
	list := func(head string, rules config.Ordered[config.Rule]) {
		for i, rule := range rules.Names {
			if i == 0 {
				b.WriteString(head)
			}
			r := rules.By[rule]
			fmt.Fprintf(b, "    %s: %s, else %s\n", rule, oneLine(r.SQL), r.OnFail)
		}
	}
	for _, source := range p.Query(name).Streams {
		list(fmt.Sprintf("  expects of each record of source %s:\n", source), p.spec.Sources.By[source].Expect)
	}
	list("  expects of each row, or nothing of its record is written:\n", p.spec.Sinks.By[name].Expect)
	for i, rule := range p.spec.Sinks.By[name].Audit.Names {
		if i == 0 {
			b.WriteString("  audits each batch before it is published:\n")
		}
		a := p.spec.Sinks.By[name].Audit.By[rule]
		fmt.Fprintf(b, "    %s: no row of %s, else %s\n", rule, oneLine(a.SQL), a.OnFail)
	}
	return b.String()
}
