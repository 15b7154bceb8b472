package pipeline

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
)

// nulls are the paths of lists and objects that JSON shows as null.
func nulls(v reflect.Value, path string) (found []string) {
	if _, own := v.Interface().(json.Marshaler); own && v.Kind() != reflect.Pointer {
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return nulls(v.Elem(), path)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			tag := f.Tag.Get("json")
			if !f.IsExported() || tag == "-" || strings.Contains(tag, ",omit") && v.Field(i).IsZero() {
				continue
			}
			found = append(found, nulls(v.Field(i), path+"."+strings.Split(tag, ",")[0])...)
		}
	case reflect.Slice, reflect.Map:
		if v.IsNil() {
			return []string{path}
		}
		if v.Kind() == reflect.Slice {
			for i := range v.Len() {
				found = append(found, nulls(v.Index(i), path)...)
			}
		}
	}
	return found
}

// TestJSONLists: what commands print for programs has lists where there are none, too.
// Plans and commits are as the checkpoint has them.
func TestJSONLists(t *testing.T) {
	p := newProof(t)
	look := func(when string) {
		t.Helper()
		pl := p.open(Options{ReadOnly: true})
		status := pl.Status(t.Context(), time.Now())
		status.Plan, status.Incarnation = nil, nil
		for i := range status.Commits {
			status.Commits[i].Outcome = []batch.Outcome{}
		}
		report, err := pl.Verify(t.Context(), time.Now(), false)
		if err != nil {
			t.Fatal(err)
		}
		outputs := map[string]any{"status": status, "plan": p.intent(), "verify": report}
		if p.made > 0 {
			outputs["replay"] = p.mustReplay(ReplayOptions{Batch: 0})
			outputs["wait"], err = pl.Wait(t.Context(), Until{})
			if err != nil {
				t.Fatal(err)
			}
		}
		for name, v := range outputs {
			if found := nulls(reflect.ValueOf(v), name); len(found) > 0 {
				t.Errorf("%s: null for %q", when, found)
			}
		}
	}
	look("before the first run")
	p.produce(10)
	p.run()
	look("after a batch")
}
