package config

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

func defaults() *Spec {
	return &Spec{
		Limits:      Limits{MaxBytes: 256 << 20, MaxDelay: Duration(time.Minute)},
		Checkpoint:  "./frazil-data/checkpoints",
		Memory:      512 << 20,
		Maintenance: Maintenance{KeepSnapshots: 100, KeepHourly: Duration(7 * 24 * time.Hour), KeepBatches: 1000, TargetFileSize: 256 << 20},
	}
}

var (
	dnsLabel   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	signature  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*\s*\((?s:.*)\)$`)
	topicName  = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// memoryMin is what the smallest pipeline needs.
const memoryMin = 128 << 20

// validate checks what types alone cannot, and fills in defaults that depend on
// other keys.
func (p *parse) validate(s *Spec) {
	if !dnsLabel.MatchString(s.Name) {
		p.fail("name", "%q is not a DNS label: up to 63 lower-case letters, digits and hyphens", s.Name)
	}
	p.trigger(s)
	if s.Memory < memoryMin {
		p.fail("memory", "%d bytes are too few; a pipeline needs at least 128MiB", s.Memory)
	}
	if s.Limits.MaxRecords < 0 || s.Limits.MinRecords < 0 {
		p.fail("limits", "a number of records is not negative; 0 is no limit")
	}
	if s.Limits.MaxRecords > 0 && s.Limits.MinRecords > s.Limits.MaxRecords {
		p.fail("limits.min_records", "%d is more than max_records, %d: no batch could begin", s.Limits.MinRecords, s.Limits.MaxRecords)
	}
	if s.Limits.MaxBytes > 0 && s.Limits.MinBytes > s.Limits.MaxBytes {
		p.fail("limits.min_bytes", "it is more than max_bytes: no batch could begin")
	}
	if m := s.Maintenance; m.KeepSnapshots < 1 || m.KeepBatches < 1 {
		p.fail("maintenance", "at least 1 must be kept")
	}
	p.catalogs(s)
	p.relations(s)
	for _, name := range s.Sources.Names {
		src := s.Sources.By[name]
		p.source("sources."+name, s.Name, s.DeadLetter != nil, &src)
		s.Sources.By[name] = src
	}
	for _, name := range s.Tables.Names {
		d := s.Tables.By[name]
		p.dimension("tables."+name, s, &d)
		s.Tables.By[name] = d
	}
	p.sinks(s)
}

func (p *parse) trigger(s *Spec) {
	t := &s.Trigger
	switch {
	case t.Interval != nil && t.AvailableNow:
		p.fail("trigger", "interval and available_now exclude each other")
	case t.Interval == nil && !t.AvailableNow:
		p.fail("trigger", "say when a batch begins: {interval: 1s}, {interval: 0s} for one after the other, or {available_now: true}")
	}
}

func (p *parse) catalogs(s *Spec) {
	for name, c := range s.Catalogs {
		path := "catalogs." + name
		switch c.Type {
		case "rest", "sql":
		case "":
			p.fail(path, "type is missing; write rest or sql")
		default:
			p.fail(path+".type", "%q is not rest or sql; Glue, S3 Tables and Polaris are used by their REST endpoints", c.Type)
		}
		if c.URI == "" {
			p.fail(path, "uri is missing; write the server's address, or a file for an embedded SQLite catalog")
		}
		if scheme, rest, ok := strings.Cut(c.URI, ":"); c.Type == "sql" && ok && !sqlURI(scheme, rest) {
			p.fail(path+".uri", "what begins with %q is neither postgres://user@host/database nor the path of a file for an embedded SQLite catalog", scheme+":")
		}
		if c.Type == "sql" && c.Warehouse == "" {
			p.fail(path, "warehouse is missing; write a directory or s3://bucket/prefix")
		}
	}
}

// sqlURI says whether what stands before and behind the colon of a sql catalog's
// uri is a server's address, or a file's path.
func sqlURI(scheme, rest string) bool {
	switch scheme {
	case "postgres", "postgresql", "sqlite":
		return strings.HasPrefix(rest, "//")
	}
	return scheme == "file" || strings.ContainsAny(scheme, `/.`) // a path may have a colon
}

// relations checks the names that SQL uses.
func (p *parse) relations(s *Spec) {
	seen := map[string]string{}
	for kind, names := range map[string][]string{"sources": s.Sources.Names, "tables": s.Tables.Names, "views": s.Views.Names} {
		for _, name := range names {
			path := kind + "." + name
			if !identifier.MatchString(name) || strings.HasPrefix(name, "__") {
				p.fail(path, "%q is not a name for SQL: letters, digits and underscores, not beginning with a digit or two underscores", name)
			}
			if was, ok := seen[strings.ToLower(name)]; ok {
				p.fail(path, "the name is taken by %s", was)
			}
			seen[strings.ToLower(name)] = path
		}
	}
	if len(s.Sources.Names) == 0 {
		p.fail("sources", "at least one source is needed")
	}
	for _, name := range s.Macros.Names {
		if !signature.MatchString(name) {
			p.fail("macros."+name, "%q is not name(parameters); write for instance mask(email): left(email, 2) || '***'", name)
		}
		if strings.TrimSpace(s.Macros.By[name]) == "" {
			p.fail("macros."+name, "the expression is empty")
		}
	}
	for _, name := range s.Views.Names {
		if strings.TrimSpace(s.Views.By[name]) == "" {
			p.fail("views."+name, "the SQL is empty")
		}
	}
}

// one refuses a value that is not among those allowed, and sets the first one
// where there is none.
func (p *parse) one(path string, value *string, allowed ...string) {
	if *value == "" {
		*value = allowed[0]
		return
	}
	if slices.Contains(allowed, *value) {
		return
	}
	p.fail(path, "%q is not %s", *value, strings.Join(allowed, " or "))
}

// The bounds of max_record_bytes: any text of a record that becomes longer in a
// column, up to six times, must still have a place there.
const (
	recordBytesDefault = 64 << 20
	recordBytesMax     = 256 << 20
)

// expect checks the rules of a source or a sink.
func (p *parse) expect(path string, letters bool, rules *Ordered[Rule]) {
	for _, name := range rules.Names {
		r := rules.By[name]
		if !identifier.MatchString(name) {
			p.fail(path+"."+name, "%q is not a name: letters, digits and underscores", name)
		}
		if strings.TrimSpace(r.SQL) == "" {
			p.fail(path+"."+name, "sql is missing; write a condition, such as user_id IS NOT NULL")
		}
		switch {
		case letters:
			p.one(path+"."+name+".on_fail", &r.OnFail, "dead_letter", "drop", "stop")
		case r.OnFail == "dead_letter":
			p.fail(path+"."+name+".on_fail", "dead_letter needs a place for them; write dead_letter: {iceberg: {catalog: …, table: …}} beside sources")
		default:
			p.one(path+"."+name+".on_fail", &r.OnFail, "stop", "drop")
		}
		rules.By[name] = r
	}
}

// postgresRefresh is how often a table of PostgreSQL is read where the spec does
// not say: each reading takes all of it.
const postgresRefresh = Duration(time.Minute)

func (p *parse) dimension(path string, s *Spec, d *Dimension) {
	from := 0
	for _, there := range []bool{d.Iceberg != nil, d.Parquet != "", d.CSV != nil, d.Postgres != nil} {
		if there {
			from++
		}
	}
	if from != 1 {
		p.fail(path, "say where the table comes from: one of iceberg, parquet, csv and postgres")
		return
	}
	every := Duration(0)
	switch {
	case d.Iceberg != nil:
		p.catalogRef(path+".iceberg", s, d.Iceberg.Catalog)
		if strings.Count(d.Iceberg.Table, ".") == 0 {
			p.fail(path+".iceberg.table", "%q has no namespace; write namespace.table", d.Iceberg.Table)
		}
	case d.CSV != nil:
		p.csv(path+".csv", d.CSV)
	case d.Postgres != nil:
		every = postgresRefresh
		if d.Postgres.URI == "" {
			p.fail(path+".postgres", "uri is missing; write postgres://user:${PASSWORD}@host:5432/database")
		}
		if (d.Postgres.Table == "") == (d.Postgres.Query == "") {
			p.fail(path+".postgres", "write either table or query")
		}
	}
	if d.Refresh == nil {
		d.Refresh = &every
	}
}

func (p *parse) catalogRef(path string, s *Spec, name string) {
	if _, ok := s.Catalogs[name]; !ok {
		p.fail(path+".catalog", "catalog %q is not among catalogs", name)
	}
}
