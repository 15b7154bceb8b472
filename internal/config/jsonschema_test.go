package config

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

func schema(t *testing.T) map[string]any {
	t.Helper()
	data, err := JSONSchema()
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestEveryKeyIsDescribed: an editor has something to say of each key, and
// nothing of keys that are not there.
func TestEveryKeyIsDescribed(t *testing.T) {
	seen := map[string]bool{}
	var walk func(s map[string]any, path string)
	walk = func(s map[string]any, path string) {
		seen[path] = true
		if p, ok := s["properties"].(map[string]any); ok {
			for key, inner := range p {
				at := strings.TrimPrefix(path+"."+key, ".")
				in := inner.(map[string]any)
				if in["description"] == nil {
					t.Errorf("%s has no description", at)
				}
				walk(in, at)
			}
		}
		if more, ok := s["additionalProperties"].(map[string]any); ok {
			walk(more, path+".*")
		}
		if items, ok := s["items"].(map[string]any); ok {
			walk(items, path+".*")
		}
	}
	walk(schema(t), "")
	for path := range keys {
		if !seen[path] && path != "sources.*.kafka.tls.insecure" {
			t.Errorf("%s is described and not there", path)
		}
	}
}

// refused is a small validator: what JSON Schema says of a value, "" if nothing.
func refused(s map[string]any, v any, at string) string {
	if _, ok := s["not"]; ok {
		return at + ": not allowed"
	}
	if types := s["type"]; types != nil {
		all, ok := types.([]any)
		if !ok {
			all = []any{types}
		}
		if !slices.ContainsFunc(all, func(t any) bool { return is(v, t.(string)) }) {
			return fmt.Sprintf("%s: %T is not %v", at, v, types)
		}
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, v) {
		return fmt.Sprintf("%s: %v is not among %v", at, v, enum)
	}
	if text, ok := v.(string); ok && s["pattern"] != nil && !regexp.MustCompile(s["pattern"].(string)).MatchString(text) {
		return fmt.Sprintf("%s: %q does not match", at, text)
	}
	if n, ok := v.(float64); ok {
		if least, ok := s["minimum"].(float64); ok && n < least {
			return at + ": too small"
		}
		if most, ok := s["maximum"].(float64); ok && n > most {
			return at + ": too large"
		}
	}
	if list, ok := v.([]any); ok && s["items"] != nil {
		for i, item := range list {
			if why := refused(s["items"].(map[string]any), item, fmt.Sprint(at, ".", i)); why != "" {
				return why
			}
		}
	}
	object, ok := v.(map[string]any)
	if !ok {
		return ""
	}
	if required, ok := s["required"].([]any); ok {
		for _, key := range required {
			if object[key.(string)] == nil {
				return fmt.Sprintf("%s: %v is missing", at, key)
			}
		}
	}
	properties, _ := s["properties"].(map[string]any)
	for key, inner := range object {
		next, ok := properties[key].(map[string]any)
		if !ok {
			if s["additionalProperties"] == false {
				return at + ": unknown key " + key
			}
			if next, ok = s["additionalProperties"].(map[string]any); !ok {
				continue
			}
		}
		if why := refused(next, inner, at+"."+key); why != "" {
			return why
		}
	}
	return ""
}

func is(v any, t string) bool {
	switch v := v.(type) {
	case string:
		return t == "string"
	case bool:
		return t == "boolean"
	case float64:
		return t == "number" || t == "integer" && v == math.Trunc(v)
	case []any:
		return t == "array"
	case map[string]any:
		return t == "object"
	}
	return false
}

// plainYAML reads YAML as JSON would be.
func plainYAML(t *testing.T, text string) any {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return nil
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// full has every key of the first version.
const full = `name: full
trigger: {interval: 0s}
limits: {max_bytes: 256MiB, max_records: 0, min_records: "${N}", min_bytes: 0, max_delay: 1m30s}
checkpoint: s3://bucket/prefix
memory: 1GiB
catalogs: {lake: {type: rest, uri: "https://c", warehouse: wh, credential: "${C}", token: "${T}", properties: {s3.region: eu-central-1, s3.path-style-access: true}}}
sources:
  clicks:
    kafka:
      brokers: ["localhost:9092"]
      topics: [clicks]
      start: {clicks: {0: 120}}
      isolation: read_committed
      on_data_loss: record
      group: ""
      sasl: {mechanism: plain, username: u, password: "${P}"}
      tls: {ca: f, cert: f, key: f, server_name: s}
    format: json
    options: {unknown_fields: column, encoding: none}
    columns: id BIGINT
    timestamps: ms
    tombstones: keep
    metadata: true
    on_bad_record: skip
    envelope: none
tables:
  pages: {iceberg: {catalog: lake, table: dim.pages}, refresh: 1m}
macros: {"mask(x)": "left(x, 2)"}
views: {wanted: SELECT * FROM clicks}
sinks:
  rows:
    sql: SELECT id FROM wanted
    mode: append
    iceberg: {catalog: lake, table: w.rows, create: true, partition_by: [id], sort_by: [id], branch: main, evolve: none, properties: {format-version: "2"}}
maintenance: {keep_snapshots: 100, keep_hourly: 7d, keep_batches: 1000, target_file_size: 256MiB}
`

// TestSchemaAcceptsGoodSpecs: what the program reads, an editor does not mark.
func TestSchemaAcceptsGoodSpecs(t *testing.T) {
	s := schema(t)
	example, err := os.ReadFile("../../examples/etl/pipeline.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"full": full, "example": string(example)} {
		if _, err := Parse(name, []byte(text), func(name string) (string, bool) { return "5", len(name) == 1 }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if why := refused(s, plainYAML(t, text), ""); why != "" {
			t.Errorf("%s is refused: %s", name, why)
		}
	}
}

// byProgramOnly are bad specs of the command line's tests that no schema can
// refuse: they depend on other keys, on SQL, or on YAML itself.
var byProgramOnly = regexp.MustCompile(`SQL|sql|column|aggregate|repeatable|syntax|type without|catalog address|warehouse|variable|secret|twice|taken|relation|label|unknown catalog|namespace|one table|pattern|topic|routing|minimum|too little|two triggers|no trigger|no brokers|broker|port|start of|of our own|empty part|transform|partition by|sort by|nothing|DISTINCT|alias|anchor|tab|documents|not YAML|brace|world|macro|table|key twice|sink|without a schema|two schemas|login|without a password|framing that needs|framing of|without Protobuf|csv with|quote of|two characters|envelope around|key of two types|serializer|registry without an address|message that is of another|rule|audit`)

// TestSchemaRefusesBadSpecs goes through the bad specs of the command line's
// tests.
func TestSchemaRefusesBadSpecs(t *testing.T) {
	data, err := os.ReadFile("../../test/scripts/testdata/bad_specs.txtar")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(data), "-- cases.txt --\n")
	blocks := strings.Split(text, "\n=== ")
	base := blocks[0] + "\n"
	s := schema(t)
	if why := refused(s, plainYAML(t, base), ""); why != "" {
		t.Fatalf("the good spec is refused: %s", why)
	}
	caught := 0
	for _, b := range blocks[1:] {
		title, rest, _ := strings.Cut(b, "\n")
		var before, after string
		for line := range strings.Lines(rest) {
			switch {
			case strings.HasPrefix(line, "- "):
				before += line[2:]
			case strings.HasPrefix(line, "+ "):
				after += line[2:]
			}
		}
		v := plainYAML(t, strings.Replace(base, before, after, 1))
		why := ""
		if v != nil {
			why = refused(s, v, "")
		}
		if why != "" {
			caught++
		} else if !byProgramOnly.MatchString(title) {
			t.Errorf("%s: the schema accepts it", title)
		}
	}
	if caught < 30 {
		t.Errorf("the schema refuses only %d bad specs", caught)
	}
	t.Logf("%d of %d bad specs are refused by the schema", caught, len(blocks)-1)
}

// TestRequiredKeysAreRequired: by the schema as by the program.
func TestRequiredKeysAreRequired(t *testing.T) {
	if _, err := Parse("x", []byte("name: x\n"), env); err == nil {
		t.Fatal("an empty spec is good")
	}
	required := schema(t)["required"].([]any)
	if want := []any{"name", "trigger", "catalogs", "sources", "sinks"}; !reflect.DeepEqual(required, want) {
		t.Errorf("%v", required)
	}
}
