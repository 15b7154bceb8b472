package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/frazil-io/frazil/internal/sink"
	"github.com/frazil-io/frazil/internal/source/decode"
)

var notLabel = regexp.MustCompile(`[^a-z0-9]+`)

// labelMax leaves room for what is put around a name: a DNS label has 63.
const labelMax = 50

// names are what the spec calls things.
type names struct{ label, relation string }

func namesFor(topic string) names {
	label := strings.Trim(notLabel.ReplaceAllString(strings.ToLower(topic), "-"), "-")
	if len(label) > labelMax {
		label = strings.Trim(label[:labelMax], "-")
	}
	if label == "" {
		label = "topic"
	}
	relation := strings.ReplaceAll(label, "-", "_")
	if relation[0] >= '0' && relation[0] <= '9' {
		relation = "t_" + relation
	}
	return names{label, relation}
}

// yamlText quotes a text for YAML, and for what would be taken as a variable.
func yamlText(s string) string {
	quoted, err := json.Marshal(strings.ReplaceAll(s, "${", "$${"))
	if err != nil {
		return `""`
	}
	return string(quoted)
}

// framings are what values may begin with that are written by a serializer or were
// compressed, and what the spec says then.
var framings = []struct {
	begin string
	least int // bytes
	what  string
}{
	{"\x00", 5, "begin with a zero byte, as with the id of a schema in a registry behind it (%d in the first one): write\n# format: avro, protobuf or json, and registry: {url: …}"},
	{"\xc3\x01", 10, "begin as single objects of Avro do: write format: avro, options: {framing: single_object}, and registry or schema_file"},
	{"\x1f\x8b", 10, "are compressed with gzip: write options: {encoding: gzip}, and the format of what is in them"},
	{"\x28\xb5\x2f\xfd", 6, "are compressed with zstd: write options: {encoding: zstd}, and the format of what is in them"},
}

// looksLike is a comment on values that are no JSON objects, "" where most of them
// begin with nothing that is known.
func looksLike(values [][]byte) string {
	for _, f := range framings {
		count := 0
		var first []byte
		for _, v := range values {
			if len(v) >= f.least && strings.HasPrefix(string(v[:len(f.begin)]), f.begin) {
				if first == nil {
					first = v
				}
				count++
			}
		}
		if 2*count <= len(values) {
			continue
		}
		what := f.what
		if strings.Contains(what, "%d") {
			what = fmt.Sprintf(what, binary.BigEndian.Uint32(first[1:]))
		}
		return fmt.Sprintf("# %d of %d %s (docs/sources.md).\n", count, len(values), what)
	}
	return ""
}

// draft writes a spec for what was sampled.
func (f initFlags) draft(s *sampled) (string, error) {
	n := namesFor(f.topic)
	d := inspect(s.values)
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by frazil init from %d records of topic %s.\n", len(s.values)+s.tombstones, f.topic)
	if d.raw() {
		fmt.Fprintf(&b, "# They are no JSON objects: key and value are taken as they are.\n%s", looksLike(s.values))
	} else {
		fmt.Fprintf(&b, "# The columns are what was seen: check them, they are frozen from the first run on.\n")
	}
	fmt.Fprintf(&b, `name: %s
trigger: {interval: 1s}          # 0s: a batch as soon as the last one is done; {available_now: true}: drain, then exit
checkpoint: ./frazil-data/checkpoints

catalogs:
  lake:                          # embedded: a SQLite file and a directory; for production use type: rest
    type: sql
    uri: ./frazil-data/catalog.db
    warehouse: ./frazil-data/warehouse

sources:
  %s:
    kafka:
      brokers: [%s]
      topics: [%s]
      start: earliest            # or latest, a timestamp, offsets
%s`, yamlText(n.label), n.relation, quotedList(f.brokers), yamlText(f.topic), f.login())
	if d.raw() {
		b.WriteString("    format: raw                  # columns key, value and headers\n    metadata: true               # adds _topic _partition _offset _timestamp _key _headers\n")
	} else if err := d.source(&b, s); err != nil {
		return "", err
	}
	fmt.Fprintf(&b, `
sinks:
  %s_rows:
%s    iceberg:
      catalog: lake
      table: %s    # made by the first run; partition_by: ["day(…)"] is for tables that grow
`, n.relation, d.query(quoteName(n.relation)), yamlText("raw."+n.relation))
	return b.String(), nil
}

func quotedList(all []string) string {
	quoted := make([]string, len(all))
	for i, s := range all {
		quoted[i] = yamlText(s)
	}
	return strings.Join(quoted, ", ")
}

// easyName is a name that every engine takes for a column.
var easyName = regexp.MustCompile(`^[\p{L}_][\p{L}\p{N}_]*$`)

var notEasy = regexp.MustCompile(`[^\p{L}\p{N}_]+`)

// query is the sink's SQL: all columns, renamed where an engine would stumble over
// a name.
func (d *draftColumns) query(from string) string {
	taken := map[string]bool{decode.UnknownColumn: true}
	for _, name := range d.names {
		taken[strings.ToLower(name)] = true
	}
	var list []string
	renamed := false
	for _, name := range d.names {
		item := strings.ReplaceAll(quoteName(name), "${", "$${")
		if !easyName.MatchString(name) || sink.Reserved(name) {
			easy := "c_" + strings.Trim(notEasy.ReplaceAllString(name, "_"), "_")
			if rest := easy[2:]; easyName.MatchString(rest) && !reserved[strings.ToLower(rest)] && !sink.Reserved(rest) {
				easy = rest
			}
			for taken[strings.ToLower(easy)] {
				easy += "_"
			}
			taken[strings.ToLower(easy)] = true
			item += " AS " + easy
			renamed = true
		}
		list = append(list, item)
	}
	if !renamed || d.raw() {
		return "    sql: SELECT * FROM " + from + "\n"
	}
	if len(d.dropped) > 0 {
		list = append(list, decode.UnknownColumn)
	}
	if d.changes {
		list = append(list, decode.OpColumn, decode.SourceTSColumn)
	}
	return "    sql: |\n      SELECT " + strings.Join(list, ",\n             ") + "\n      FROM " + from + "\n"
}

// draftColumns is what the values say of a spec's columns.
type draftColumns struct {
	root    *shape
	changes bool // they are change events of Debezium, and the columns are those of their rows
	objects int  // how many values are JSON objects
	others  int
	names   []string // of the columns
	columns []string // with their types, for the spec
	dropped []string // keys that are kept in _unknown
	notes   []string
}

// raw says that JSON objects are the exception.
func (d *draftColumns) raw() bool { return len(d.columns) == 0 || d.objects < d.others }

func inspect(values [][]byte) *draftColumns {
	d := &draftColumns{root: newShape()}
	var objects, rows []map[string]any
	for _, v := range values {
		object, err := jsonObject(v)
		if err != nil {
			continue
		}
		objects = append(objects, object)
		if row := changedRow(object); row != nil {
			rows = append(rows, row)
		}
	}
	taken := map[string]bool{}
	if d.changes = len(rows) > len(objects)/2; d.changes {
		objects = rows
		taken[decode.OpColumn], taken[decode.SourceTSColumn] = true, true
	}
	for _, object := range objects {
		d.root.see(object)
	}
	d.objects, d.others = len(objects), len(values)-len(objects)
	for _, name := range d.root.order {
		m := d.root.members[name]
		t := m.sqlType()
		if t == "" || !columnName(name) || taken[strings.ToLower(name)] || d.hidden(name) {
			d.dropped = append(d.dropped, visible(name))
			continue
		}
		taken[strings.ToLower(name)] = true
		d.names = append(d.names, name)
		d.columns = append(d.columns, quoteName(name)+" "+t)
		if len(m.kinds) == 0 {
			d.notes = append(d.notes, visible(name)+" was null each time: its type is a guess")
		}
		if unit := m.epoch(); unit != "" {
			d.notes = append(d.notes, fmt.Sprintf("%s looks like %s since 1970: %s in SQL makes a time of it", visible(name), unitNames[unit], epochSQL(name, unit)))
		}
	}
	return d
}

// changedRow is the row in a change event of Debezium, nil if there is none.
func changedRow(object map[string]any) map[string]any {
	if payload, ok := object["payload"].(map[string]any); ok {
		object = payload
	}
	if _, ok := object["op"].(string); !ok || object["source"] == nil {
		return nil
	}
	if after, ok := object["after"].(map[string]any); ok {
		return after
	}
	before, _ := object["before"].(map[string]any)
	return before
}

var unitNames = map[string]string{"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}

func epochSQL(name, unit string) string {
	column := quoteName(name)
	switch unit {
	case "s":
		return "make_timestamptz(" + column + " * 1000000)"
	case "ms":
		return "make_timestamptz(" + column + " * 1000)"
	case "us":
		return "make_timestamptz(" + column + ")"
	}
	return "make_timestamptz(" + column + " // 1000)"
}

// hidden says that a key with dots reads like the path of another key's member:
// a table cannot have both.
func (d *draftColumns) hidden(name string) bool {
	head, _, dotted := strings.Cut(name, ".")
	for dotted {
		if m := d.root.members[head]; m != nil && (m.kinds["object"] || m.kinds["list"]) {
			return true
		}
		var next string
		next, _, dotted = strings.Cut(strings.TrimPrefix(name[len(head):], "."), ".")
		head += "." + next
		if head == name {
			break
		}
	}
	return false
}

func jsonObject(value []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, err
	}
	if object == nil {
		return nil, errors.New("null")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more behind the object")
	}
	return object, nil
}

// source writes the part of the spec that says how records become columns.
func (d *draftColumns) source(b *strings.Builder, s *sampled) error {
	columns := strings.Join(d.columns, ",\n")
	unknown := decode.Ignore
	b.WriteString("    format: json\n")
	if d.changes {
		b.WriteString("    envelope: debezium           # change events: their rows' columns, with _op and _source_ts\n")
	}
	if len(d.dropped) > 0 {
		unknown = decode.Column
		fmt.Fprintf(b, "    # Without a column of their own, because of their values' types or their names: %s\n", strings.Join(d.dropped, ", "))
		b.WriteString("    options: {unknown_fields: column}   # they are kept as JSON text in _unknown\n")
	}
	b.WriteString("    columns: |\n")
	for _, c := range d.columns {
		fmt.Fprintf(b, "      %s,\n", strings.ReplaceAll(c, "${", "$${"))
	}
	for _, note := range d.notes {
		fmt.Fprintf(b, "    # %s\n", note)
	}
	bad, why, err := d.undecodable(columns, unknown, s.values)
	if err != nil {
		return err
	}
	if bad > 0 {
		fmt.Fprintf(b, "    # %d of the sampled records cannot be decoded: %s\n", bad, visible(why))
		b.WriteString("    on_bad_record: skip          # they are counted and logged; fail stops at the first one\n")
	}
	if s.tombstones > 0 {
		fmt.Fprintf(b, "    tombstones: drop             # %d of the sampled records have no value; keep gives rows of NULLs\n", s.tombstones)
	}
	return nil
}

// envelope is what is around the rows.
func (d *draftColumns) envelope() string {
	if d.changes {
		return "debezium"
	}
	return ""
}

// undecodable counts the values that the pipeline's own decoder refuses, and says
// why it refused the first one.
func (d *draftColumns) undecodable(columns string, unknown decode.Unknown, values [][]byte) (bad int, why string, err error) {
	fields, err := decode.ParseColumns(columns)
	if err != nil {
		return 0, "", err
	}
	decoder, err := decode.New("json", fields, decode.Options{Unknown: unknown, Envelope: d.envelope()})
	if err != nil {
		return 0, "", err
	}
	for _, v := range values {
		if err := decoder.Append(decode.Record{Value: v}); err != nil {
			if bad++; bad == 1 {
				why = err.Error()
			}
		}
	}
	for _, c := range decoder.Take() {
		c.Release()
	}
	return bad, why, nil
}
