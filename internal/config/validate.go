package config

import (
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
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

func (p *parse) source(path, pipeline string, letters bool, s *Source) {
	switch s.Format {
	case "json":
		p.jsonSchema(path, s)
	case "raw":
		if s.Columns != "" {
			p.fail(path+".columns", "format raw has key, value and headers; leave columns out")
		}
	case "avro":
		p.schema(path, s)
		p.framing(path, s)
	case "protobuf":
		p.schema(path, s)
		p.framing(path, s)
		p.noSingleObject(path, s)
	case "csv":
		p.columns(path, s)
	case "":
		p.fail(path, "format is missing; write json, avro, protobuf, csv or raw")
	default:
		p.fail(path+".format", "%q is not json, avro, protobuf, csv or raw", s.Format)
	}
	p.optionsOf(path+".options", s)
	if s.Format == "csv" || s.Format == "raw" {
		p.noSchema(path, s)
	}
	if s.Registry != nil {
		p.registry(path+".registry", s)
	}
	p.envelope(path, s)
	p.key(path+".key", s)
	p.one(path+".options.unknown_fields", &s.Options.UnknownFields, "ignore", "reject", "column")
	p.one(path+".options.encoding", &s.Options.Encoding, "none", "gzip", "zstd")
	p.one(path+".timestamps", &s.Timestamps, "rfc3339", "s", "ms", "us", "ns")
	p.one(path+".tombstones", &s.Tombstones, "drop", "keep", "reject")
	switch {
	case letters:
		p.one(path+".on_bad_record", &s.OnBadRecord, "dead_letter", "fail", "skip")
	case s.OnBadRecord == "dead_letter":
		p.fail(path+".on_bad_record", "dead_letter needs a place for them; write dead_letter: {iceberg: {catalog: …, table: …}} beside sources")
	default:
		p.one(path+".on_bad_record", &s.OnBadRecord, "fail", "skip")
	}
	p.recordBytes(path+".max_record_bytes", s)
	p.expect(path+".expect", letters, &s.Expect)
	if s.Kafka == nil {
		p.fail(path, "kafka is missing; write brokers and topics")
		return
	}
	p.kafka(path+".kafka", pipeline, s.Kafka)
}

// The bounds of max_record_bytes: any text of a record that becomes longer in a
// column, up to six times, must still have a place there.
const (
	recordBytesDefault = 64 << 20
	recordBytesMax     = 256 << 20
)

func (p *parse) recordBytes(path string, s *Source) {
	if s.MaxRecordBytes == nil {
		most := Bytes(recordBytesDefault)
		s.MaxRecordBytes = &most
	}
	if n := *s.MaxRecordBytes; n < 1 || n > recordBytesMax {
		p.fail(path, "%d bytes are not between 1 and 256MiB; the default is 64MiB", n)
	}
}

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

func (p *parse) columns(path string, s *Source) {
	if strings.TrimSpace(s.Columns) == "" {
		p.fail(path, "columns are missing; write them as SQL types: id BIGINT, page VARCHAR (`frazil init` infers them)")
	}
}

// jsonSchema checks where JSON has its columns from: the spec, or a JSON Schema. A
// registry beside columns says that its header stands before the objects.
func (p *parse) jsonSchema(path string, s *Source) {
	if s.Registry == nil && s.SchemaFile == "" {
		p.columns(path, s)
		if s.Options.Framing != "" {
			p.fail(path+".options.framing", "it is what stands before the values where there is a registry; write registry: {url: …}, or leave framing out")
		}
		return
	}
	switch {
	case s.Registry != nil && s.SchemaFile != "":
		p.fail(path, "write either registry or schema_file")
	case s.SchemaFile != "" && s.Columns != "":
		p.fail(path+".columns", "columns and schema_file both say what the columns are; leave one out")
	}
	p.framing(path, s)
	p.noSingleObject(path, s)
}

func (p *parse) noSingleObject(path string, s *Source) {
	if s.Options.Framing == "single_object" {
		p.fail(path+".options.framing", "single_object is Avro's; write registry or none")
	}
}

// optionsOf refuses options of other formats.
func (p *parse) optionsOf(path string, s *Source) {
	if s.Options.Message != "" && s.Format != "protobuf" {
		p.fail(path+".message", "messages are Protobuf's; leave it out, or write format: protobuf")
	}
	for _, o := range []struct {
		key   string
		there bool
	}{{"delimiter", s.Options.Delimiter != ""}, {"quote", s.Options.Quote != nil}, {"null_string", s.Options.Null != ""}} {
		if o.there && s.Format != "csv" {
			p.fail(path+"."+o.key, "it is of format csv; leave it out")
		}
	}
	if s.Options.UnknownFields != "" && (s.Format == "csv" || s.Format == "protobuf") {
		p.fail(path+".unknown_fields", "format %s has no unknown fields that could be kept; leave it out", s.Format)
	}
}

// envelope checks what is around a row.
func (p *parse) envelope(path string, s *Source) {
	p.one(path+".envelope", &s.Envelope, "none", "debezium")
	if s.Envelope == "none" {
		if len(s.Options.Include) > 0 {
			p.fail(path+".options.include", "it names columns of an envelope; write envelope: debezium, or leave it out")
		}
		return
	}
	if s.Format != "json" && s.Format != "avro" {
		p.fail(path+".envelope", "format %s has no such envelope; write format: json or avro, or leave envelope out", s.Format)
	} else if s.Format == "json" && s.Columns == "" && (s.Registry != nil || s.SchemaFile != "") {
		p.fail(path, "columns are missing; with an envelope they are those of the row, which a JSON Schema of the envelope does not give")
	}
	for i, name := range s.Options.Include {
		switch {
		case name != "before" && name != "source" && name != "transaction":
			p.fail(path+".options.include", "%q is not before, source or transaction", name)
		case slices.Contains(s.Options.Include[:i], name):
			p.fail(path+".options.include", "%q is there twice", name)
		}
	}
}

// key checks how keys are decoded.
func (p *parse) key(path string, s *Source) {
	k := s.Key
	if k == nil {
		return
	}
	as := k.Source()
	as.Kafka = s.Kafka
	p.keyRegistry(s.Registry, &as)
	p.keyFormat(path, &as)
	p.optionsOf(path+".options", &as)
	if as.Registry != nil {
		p.registry(path+".registry", &as)
	}
	p.one(path+".options.unknown_fields", &k.Options.UnknownFields, "ignore", "reject")
	p.one(path+".timestamps", &k.Timestamps, "rfc3339", "s", "ms", "us", "ns")
	k.Registry, k.Options.Framing = as.Registry, as.Options.Framing
}

func (p *parse) keyFormat(path string, as *Source) {
	switch as.Format {
	case "json":
		p.jsonSchema(path, as)
		return
	case "avro", "protobuf":
		p.schema(path, as)
		p.framing(path, as)
		if as.Format == "protobuf" {
			p.noSingleObject(path, as)
		}
		return
	case "kafka", "csv":
		p.columns(path, as)
	case "string", "raw":
	case "":
		p.fail(path, "format is missing; write string, kafka, json, csv, avro, protobuf or raw")
	default:
		p.fail(path+".format", "%q is not string, kafka, json, csv, avro, protobuf or raw", as.Format)
	}
	p.noSchema(path, as)
}

// keyRegistry is where the key's schema is: in the registry of the source, where
// the spec does not say more, under the subject of keys.
func (p *parse) keyRegistry(source *Registry, as *Source) {
	own := as.Registry
	needed := as.SchemaFile == "" && (as.Format == "avro" || as.Format == "protobuf")
	if source != nil && (own == nil && needed || own != nil && len(own.URL) == 0) {
		r := *source
		r.Subject, r.Version = "", 0
		if own != nil {
			r.Subject, r.Version = own.Subject, own.Version
		}
		as.Registry = &r
	}
	if r := as.Registry; r != nil && r.Subject == "" && as.Kafka != nil && len(as.Kafka.Topics) == 1 {
		r.Subject = as.Kafka.Topics[0] + "-key"
	}
}

// schema checks where a format with schemas has its columns from.
func (p *parse) schema(path string, s *Source) {
	if s.Columns != "" {
		p.fail(path+".columns", "format %s has its columns from its schema; leave columns out, and choose in SQL", s.Format)
	}
	if (s.Registry == nil) == (s.SchemaFile == "") {
		p.fail(path, "format %s needs its schema; write either registry: {url: …} or schema_file", s.Format)
	}
}

// noSchema refuses what a format has no use for.
func (p *parse) noSchema(path string, s *Source) {
	for key, there := range map[string]bool{"registry": s.Registry != nil, "schema_file": s.SchemaFile != "", "options.framing": s.Options.Framing != ""} {
		if there {
			p.fail(path+"."+key, "format %s has no schema; leave %s out, or write format: json, avro or protobuf", s.Format, key)
		}
	}
}

func (p *parse) framing(path string, s *Source) {
	if s.Registry != nil {
		p.one(path+".options.framing", &s.Options.Framing, "registry", "single_object", "none")
		return
	}
	p.one(path+".options.framing", &s.Options.Framing, "none", "single_object", "registry")
	if s.Options.Framing == "registry" {
		p.fail(path+".options.framing", "the ids before the records are those of a registry; write registry: {url: …} instead of schema_file")
	}
}

// registry checks how to reach a registry, and names the subject that gives the
// columns.
func (p *parse) registry(path string, s *Source) {
	r := s.Registry
	if len(r.URL) == 0 {
		p.fail(path, "url is missing; write for instance http://localhost:8081")
	}
	for _, address := range r.URL {
		u, err := url.Parse(address)
		switch {
		case err == nil && u.User != nil:
			p.fail(path+".url", "it holds a login; write username and password as keys of their own")
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
			p.fail(path+".url", "%q is not an address such as http://localhost:8081", address)
		}
	}
	switch {
	case r.Token != "" && (r.Username != "" || r.Password != ""):
		p.fail(path, "write either token or username and password")
	case (r.Username == "") != (r.Password == ""):
		p.fail(path, "username and password belong together")
	}
	if r.TLS != nil && (r.TLS.Cert == "") != (r.TLS.Key == "") {
		p.fail(path+".tls", "cert and key belong together")
	}
	if r.Subject != "" || s.Kafka == nil {
		return
	}
	if len(s.Kafka.Topics) != 1 {
		p.fail(path, "subject is missing; with several topics, or a pattern, name the subject whose schema gives the columns")
		return
	}
	r.Subject = s.Kafka.Topics[0] + "-value"
}

func (p *parse) kafka(path, pipeline string, k *Kafka) {
	p.brokers(path, k.Brokers)
	for i, topic := range k.Topics {
		switch {
		case !isTopic(topic):
			p.fail(path+".topics", "%q is not the name of a topic: up to 249 letters, digits, dots, underscores and hyphens", topic)
		case slices.Contains(k.Topics[:i], topic):
			p.fail(path+".topics", "topic %q is there twice", topic)
		}
	}
	if (len(k.Topics) == 0) == (k.TopicPattern == "") {
		p.fail(path, "write either topics or topic_pattern")
	}
	if k.TopicPattern != "" {
		if _, err := regexp.Compile(k.TopicPattern); err != nil {
			p.fail(path+".topic_pattern", "%q is not a regular expression: %v", k.TopicPattern, err)
		}
	}
	if k.Start.Text == "" && k.Start.Offsets == nil {
		p.fail(path, "start is missing; write earliest, latest, a timestamp, or offsets by topic and partition")
	}
	for topic := range k.Start.Offsets {
		if len(k.Topics) > 0 && !slices.Contains(k.Topics, topic) {
			p.fail(path+".start", "topic %q is not among topics", topic)
		}
	}
	p.one(path+".isolation", &k.Isolation, "read_committed", "read_uncommitted")
	p.one(path+".on_data_loss", &k.OnDataLoss, "fail", "record")
	if k.Group == nil {
		group := "frazil-" + pipeline
		k.Group = &group
	}
	p.sasl(path, k.SASL)
}

func (p *parse) sasl(path string, s *SASL) {
	if s == nil {
		return
	}
	mechanism := s.Mechanism
	p.one(path+".sasl.mechanism", &mechanism, "", "plain", "scram-sha-256", "scram-sha-512", "oauthbearer", "aws_msk_iam")
	if mechanism == "" {
		p.fail(path+".sasl", "mechanism is missing; write plain, scram-sha-256, scram-sha-512, oauthbearer or aws_msk_iam")
	}
}

func (p *parse) brokers(path string, brokers Addresses) {
	if len(brokers) == 0 {
		p.fail(path, "brokers are missing; write for instance [localhost:9092]")
	}
	for _, b := range brokers {
		host, port, err := net.SplitHostPort(b)
		if n, bad := strconv.Atoi(port); err != nil || host == "" || strings.Contains(b, "/") || bad != nil || n < 1 || n > 65535 {
			p.fail(path+".brokers", "%q is not host:port", b)
		}
	}
}

func isTopic(name string) bool {
	return topicName.MatchString(name) && len(name) <= 249 && name != "." && name != ".."
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

func (p *parse) csv(path string, c *CSV) {
	if c.Path == "" {
		p.fail(path, "path is missing; write a file, or s3://bucket/key")
	}
	if c.Header == nil {
		header := true
		c.Header = &header
	}
	if !*c.Header && strings.TrimSpace(c.Columns) == "" {
		p.fail(path, "without a header, columns are needed; write them as SQL types: code VARCHAR, rate DECIMAL(9,4)")
	}
	switch c.Delimiter {
	case "":
		c.Delimiter = ","
	case "tab", `\t`:
		c.Delimiter = "\t"
	}
	if utf8.RuneCountInString(c.Delimiter) != 1 || strings.ContainsAny(c.Delimiter, "\"\r\n\ufffd") {
		p.fail(path+".delimiter", "%q is not one character; write for instance ';', or tab", c.Delimiter)
	}
}

func (p *parse) catalogRef(path string, s *Spec, name string) {
	if _, ok := s.Catalogs[name]; !ok {
		p.fail(path+".catalog", "catalog %q is not among catalogs", name)
	}
}

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

// maxFraction is how many of the last records may be dead letters where the spec
// does not say.
const maxFraction = 0.01

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
	if m := *d.MaxFraction; m < 0 || m > 1 {
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
