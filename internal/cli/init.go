package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/kafka"
)

// sampleMax is how many records of each partition init looks at.
const sampleMax = 500

func (a *app) initCommand() *cobra.Command {
	var brokers []string
	var topic, out string
	cmd := &cobra.Command{
		Use: "init --brokers B --topic T", Short: "Sample a topic and write a spec to read, change and keep", Args: exactly(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			if len(brokers) == 0 || topic == "" {
				return fmt.Errorf("%w: say where the records are: --brokers localhost:9092 --topic clicks", errUsage)
			}
			if out != "" {
				if _, err := os.Stat(out); err == nil {
					return fmt.Errorf("%w: %s exists already; name another file with --file", errUsage, out)
				}
			}
			values, err := sample(context.Background(), brokers, topic)
			if err != nil {
				return err
			}
			text, err := specFor(brokers, topic, values)
			if err != nil {
				return err
			}
			if out == "" {
				_, err = fmt.Fprint(a.out, text)
				return err
			}
			if err := os.WriteFile(out, []byte(text), 0o644); err != nil {
				return fmt.Errorf("%w: %w", batch.ErrInvalid, err)
			}
			fmt.Fprintf(a.out, "%s written; read it, then: frazil run %s\n", out, out)
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&brokers, "brokers", nil, "host:port, separated by commas")
	cmd.Flags().StringVar(&topic, "topic", "", "the topic")
	cmd.Flags().StringVar(&out, "file", "", "where to write the spec; the standard output if not said")
	return cmd
}

// sample reads the newest records of a topic.
func sample(ctx context.Context, brokers []string, topic string) ([][]byte, error) {
	o := kafka.Options{Brokers: brokers}
	if err := kafka.Check(ctx, o, []string{topic}); err != nil {
		return nil, err
	}
	plain, err := kafka.NewClient(o)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	admin := kadm.NewClient(plain)
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, kafka.Classify(ctx, "list offsets", err)
	}
	ends, err := admin.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return nil, kafka.Classify(ctx, "list offsets", err)
	}
	from := map[int32]kgo.Offset{}
	want := map[int32]int64{}
	ends.Each(func(l kadm.ListedOffset) {
		first, _ := starts.Lookup(topic, l.Partition)
		if at := max(first.Offset, l.Offset-sampleMax); at < l.Offset {
			from[l.Partition] = kgo.NewOffset().At(at)
			want[l.Partition] = l.Offset
		}
	})
	if len(from) == 0 {
		return nil, fmt.Errorf("%w: topic %q holds no records to learn columns from; produce some first", batch.ErrInvalid, topic)
	}
	reader, err := kafka.NewClient(o, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var values [][]byte
	for len(want) > 0 && ctx.Err() == nil {
		fetches := reader.PollFetches(ctx)
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Value != nil {
				values = append(values, r.Value)
			}
			if r.Offset+1 >= want[r.Partition] {
				delete(want, r.Partition)
			}
		})
	}
	return values, nil
}

// shape is what was seen of one JSON value.
type shape struct {
	kinds   map[string]bool // BIGINT, DOUBLE, BOOLEAN, VARCHAR, TIMESTAMPTZ, object, list
	members map[string]*shape
	order   []string
	element *shape
}

func newShape() *shape { return &shape{kinds: map[string]bool{}, members: map[string]*shape{}} }

var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$`)

func (s *shape) see(v any) {
	switch v := v.(type) {
	case nil:
	case bool:
		s.kinds["BOOLEAN"] = true
	case json.Number:
		if _, err := v.Int64(); err == nil {
			s.kinds["BIGINT"] = true
		} else {
			s.kinds["DOUBLE"] = true
		}
	case string:
		if _, err := time.Parse(time.RFC3339Nano, v); err == nil && rfc3339.MatchString(v) {
			s.kinds["TIMESTAMPTZ"] = true
		} else {
			s.kinds["VARCHAR"] = true
		}
	case []any:
		s.kinds["list"] = true
		if s.element == nil {
			s.element = newShape()
		}
		for _, e := range v {
			s.element.see(e)
		}
	case map[string]any:
		s.kinds["object"] = true
		var names []string
		for name := range v {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			if s.members[name] == nil {
				s.members[name] = newShape()
				s.order = append(s.order, name)
			}
			s.members[name].see(v[name])
		}
	}
}

// sqlType is the narrowest type that took everything seen, "" where none does.
func (s *shape) sqlType() string {
	k := s.kinds
	switch {
	case len(k) == 0:
		return "VARCHAR"
	case len(k) == 1 && k["list"]:
		if inner := s.element.sqlType(); inner != "" {
			return inner + "[]"
		}
		return ""
	case len(k) == 1 && k["object"]:
		var members []string
		for _, name := range s.order {
			if t := s.members[name].sqlType(); t != "" {
				members = append(members, quoteName(name)+" "+t)
			}
		}
		if len(members) == 0 {
			return ""
		}
		return "STRUCT(" + strings.Join(members, ", ") + ")"
	case len(k) == 1:
		for name := range k {
			return name
		}
	case len(k) == 2 && k["BIGINT"] && k["DOUBLE"]:
		return "DOUBLE"
	case len(k) == 2 && k["TIMESTAMPTZ"] && k["VARCHAR"]:
		return "VARCHAR"
	}
	return ""
}

var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func quoteName(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

var notLabel = regexp.MustCompile(`[^a-z0-9]+`)

// specFor writes a spec for what was sampled.
func specFor(brokers []string, topic string, values [][]byte) (string, error) {
	root := newShape()
	bad := 0
	for _, v := range values {
		d := json.NewDecoder(strings.NewReader(string(v)))
		d.UseNumber()
		var object map[string]any
		if d.Decode(&object) != nil {
			bad++
			continue
		}
		root.see(object)
	}
	if len(root.order) == 0 {
		return "", fmt.Errorf("%w: none of %d sampled records of topic %q is a JSON object; write a spec by hand with format: raw", batch.ErrInvalid, len(values), topic)
	}
	label := strings.Trim(notLabel.ReplaceAllString(strings.ToLower(topic), "-"), "-")
	relation := strings.ReplaceAll(label, "-", "_")
	if relation[0] >= '0' && relation[0] <= '9' {
		relation = "t_" + relation
	}
	b := &strings.Builder{}
	fmt.Fprintf(b, "# Written by frazil init from %d records of topic %s", len(values), topic)
	if bad > 0 {
		fmt.Fprintf(b, "; %d of them are no JSON objects", bad)
	}
	fmt.Fprintf(b, ".\n# The columns are what was seen: check them, they are frozen from here on.\n")
	fmt.Fprintf(b, "name: %s\ntrigger: {interval: 1s}\ncheckpoint: ./frazil-data/checkpoints\n\ncatalogs:\n", label)
	fmt.Fprintf(b, "  lake:                          # embedded: a SQLite file and a directory; for production use type: rest\n    type: sql\n    uri: ./frazil-data/catalog.db\n    warehouse: ./frazil-data/warehouse\n\n")
	fmt.Fprintf(b, "sources:\n  %s:\n    kafka:\n      brokers: [%s]\n      topics: [%s]\n      start: earliest            # or latest, a timestamp, offsets\n    format: json\n    columns: |\n", relation, strings.Join(brokers, ", "), topic)
	var left []string
	var columns []string
	for _, name := range root.order {
		t := root.members[name].sqlType()
		if t == "" || strings.HasPrefix(name, "__") {
			left = append(left, name)
			continue
		}
		columns = append(columns, fmt.Sprintf("      %s %s", quoteName(name), t))
	}
	fmt.Fprintf(b, "%s\n", strings.Join(columns, ",\n"))
	if len(left) > 0 {
		fmt.Fprintf(b, "    # left out, because their values have several types: %s\n    # options: {unknown_fields: column} keeps them as JSON text in _unknown\n", strings.Join(left, ", "))
	}
	if bad > 0 {
		fmt.Fprintf(b, "    on_bad_record: skip          # records that cannot be decoded are counted; fail stops at the first one\n")
	}
	fmt.Fprintf(b, "\nsinks:\n  %s_rows:\n    sql: SELECT * FROM %s\n    iceberg:\n      catalog: lake\n      table: raw.%s\n", relation, relation, relation)
	return b.String(), nil
}
