package cli

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// printRows prints the rows that produce hands over, as they come.
func printRows(out io.Writer, format string, produce func(header func([]string) error, row func([]any) error) error) error {
	var names []string
	switch format {
	case "json":
		e := json.NewEncoder(out)
		return produce(func(n []string) error { names = n; return nil }, func(values []any) error {
			object := map[string]any{}
			for i, v := range values {
				object[names[i]] = plainValue(v)
			}
			return e.Encode(object)
		})
	case "csv":
		w := csv.NewWriter(out)
		err := produce(w.Write, func(values []any) error { return w.Write(texts(values)) })
		w.Flush()
		if err != nil {
			return err
		}
		return w.Error()
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	rows := 0
	err := produce(func(n []string) error {
		_, err := fmt.Fprintln(w, strings.Join(n, "\t"))
		return err
	}, func(values []any) error {
		rows++
		_, err := fmt.Fprintln(w, strings.Join(texts(values), "\t"))
		return err
	})
	if err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "(%d rows)\n", rows)
	return err
}

func texts(values []any) []string {
	out := make([]string, len(values))
	for i, v := range values {
		switch v := plainValue(v).(type) {
		case nil:
			out[i] = "NULL"
		case string:
			out[i] = v
		default:
			out[i] = fmt.Sprint(v)
		}
	}
	return out
}

func plainValue(v any) any {
	switch v := v.(type) {
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case []byte:
		return string(v)
	case fmt.Stringer:
		return v.String()
	}
	return v
}

func splitName(name string) []string { return strings.Split(name, ".") }
