package config

import (
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

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

func (p *parse) recordBytes(path string, s *Source) {
	if s.MaxRecordBytes == nil {
		most := Bytes(recordBytesDefault)
		s.MaxRecordBytes = &most
	}
	if n := *s.MaxRecordBytes; n < 1 || n > recordBytesMax {
		p.fail(path, "%d bytes are not between 1 and 256MiB; the default is 64MiB", n)
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
