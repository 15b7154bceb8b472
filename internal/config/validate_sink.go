package config

import (
	"math"
	"regexp"
	"slices"
	"strings"
)

func (p *parse) sinks(s *Spec) {
	if len(s.Sinks.Names) == 0 {
		p.fail("sinks", "at least one sink is needed")
	}
	taken := map[string]string{}
	for _, name := range s.Sinks.Names {
		sink := s.Sinks.By[name]
		path := "sinks." + name
		if !identifier.MatchString(name) {
			p.fail(path, "%q is not a name: letters, digits and underscores", name)
		}
		if strings.TrimSpace(sink.SQL) == "" {
			p.fail(path, "sql is missing; write a SELECT")
		}
		switch sink.Mode {
		case "", "append":
			sink.Mode = "append"
		case "update", "complete":
			p.fail(path+".mode", "mode %s comes with a later version; use append", sink.Mode)
		default:
			p.fail(path+".mode", "%q is not append", sink.Mode)
		}
		p.expect(path+".expect", s.DeadLetter != nil, &sink.Expect)
		for _, rule := range sink.Audit.Names {
			if !identifier.MatchString(rule) {
				p.fail(path+".audit", "%q is not a name: letters, digits and underscores", rule)
			}
			a := sink.Audit.By[rule]
			if strings.TrimSpace(a.SQL) == "" {
				p.fail(path+".audit."+rule, "it is empty; write a SELECT that returns the rows that are wrong")
			}
			if a.OnFail == "dead_letter" && s.DeadLetter == nil {
				p.fail(path+".audit."+rule+".on_fail", "dead_letter needs a place for them; write dead_letter: {iceberg: {catalog: …, table: …}} beside sources")
			}
			p.one(path+".audit."+rule+".on_fail", &a.OnFail, "stop", "dead_letter")
			sink.Audit.By[rule] = a
		}
		if sink.Iceberg == nil {
			p.fail(path, "iceberg is missing; write catalog and table")
			continue
		}
		p.iceberg(path+".iceberg", s, sink.Iceberg)
		p.template(path+".iceberg", sink.Iceberg)
		if _, many := sink.Iceberg.Template(); many && len(sink.Audit.Names) > 0 {
			p.fail(path+".audit", "a sink that feeds many tables cannot be audited yet; name one table, or leave audit out")
		}
		table := sink.Iceberg.Catalog + "/" + sink.Iceberg.Table
		if was, ok := taken[table]; ok {
			p.fail(path+".iceberg.table", "sink %s writes table %s already; give each sink a table of its own, or put the rows together with UNION ALL", was, sink.Iceberg.Table)
		}
		taken[table] = name
		s.Sinks.By[name] = sink
	}
	p.deadLetter(s, taken)
	p.apart(s)
}

// deadLetter checks where rejected records go. taken are the tables of sinks.
func (p *parse) deadLetter(s *Spec, taken map[string]string) {
	if _, ok := s.Sinks.By[DeadLetters]; ok {
		p.fail("sinks."+DeadLetters, "the name is that of the dead letters; choose another one")
	}
	d := s.DeadLetter
	if d == nil {
		return
	}
	if d.MaxFraction == nil {
		most := maxFraction
		d.MaxFraction = &most
	}
	if m := *d.MaxFraction; math.IsNaN(m) || m < 0 || m > 1 {
		p.fail("dead_letter.max_fraction", "%g is not between 0 and 1; 0.01 is one of a hundred records", m)
	}
	if (d.Iceberg == nil) == (d.Kafka == nil) {
		p.fail("dead_letter", "say where they go: either iceberg, a table, or kafka, a topic")
		return
	}
	if d.Kafka != nil {
		p.deadLetterTopic(s, d.Kafka)
		return
	}
	p.iceberg("dead_letter.iceberg", s, d.Iceberg)
	if _, many := d.Iceberg.Template(); many || d.Iceberg.MaxTables != 0 {
		p.fail("dead_letter.iceberg.table", "%q: dead letters have one table; name it, without max_tables", d.Iceberg.Table)
	}
	if was, ok := taken[d.Iceberg.Catalog+"/"+d.Iceberg.Table]; ok {
		p.fail("dead_letter.iceberg.table", "sink %s writes table %s already; give the dead letters a table of their own", was, d.Iceberg.Table)
		return
	}
	if s.Sinks.By != nil {
		s.Sinks.Names = append(s.Sinks.Names[:len(s.Sinks.Names):len(s.Sinks.Names)], DeadLetters)
		s.Sinks.By[DeadLetters] = Sink{Mode: "append", Iceberg: d.Iceberg}
	}
}

func (p *parse) deadLetterTopic(s *Spec, k *DeadLetterTopic) {
	const path = "dead_letter.kafka"
	p.brokers(path, k.Brokers)
	if !isTopic(k.Topic) {
		p.fail(path+".topic", "%q is not the name of a topic: up to 249 letters, digits, dots, underscores and hyphens", k.Topic)
	}
	for _, name := range s.Sources.Names {
		from := s.Sources.By[name].Kafka
		if from == nil || !slices.ContainsFunc(from.Brokers, func(b string) bool { return slices.Contains(k.Brokers, b) }) {
			continue
		}
		reads := slices.Contains(from.Topics, k.Topic)
		if pattern, err := regexp.Compile(from.TopicPattern); from.TopicPattern != "" && err == nil {
			reads = pattern.MatchString(k.Topic)
		}
		if reads {
			p.fail(path+".topic", "source %s reads topic %q: what it rejects would come again; choose another topic", name, k.Topic)
		}
	}
	p.sasl(path, k.SASL)
}

func (p *parse) iceberg(path string, s *Spec, i *Iceberg) {
	p.catalogRef(path, s, i.Catalog)
	parts := dots(i.Table)
	switch {
	case len(parts) < 2:
		p.fail(path+".table", "%q has no namespace; write namespace.table", i.Table)
	case slices.ContainsFunc(parts, func(s string) bool { return strings.TrimSpace(s) != s || s == "" }):
		p.fail(path+".table", "%q has an empty part; write namespace.table", i.Table)
	}
	if i.Create == nil {
		create := true
		i.Create = &create
	}
	if i.Branch == "" {
		i.Branch = "main"
	}
	if strings.HasPrefix(i.Branch, "frazil-") {
		p.fail(path+".branch", "%q: names that begin with frazil- are those of Frazil's own tags", i.Branch)
	}
	p.one(path+".evolve", &i.Evolve, "none", "add", "widen")
	if v := i.Properties["format-version"]; v != "" && v != "2" && v != "3" {
		p.fail(path+".properties", "format-version %q is not 2 or 3", v)
	}
}

// maxFraction is how many of the last records may be dead letters where the spec
// does not say.
const maxFraction = 0.01
