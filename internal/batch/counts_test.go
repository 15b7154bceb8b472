package batch

import (
	"encoding/json"
	"reflect"
	"testing"
)

// fill sets each number of a struct to another value.
func fill(v reflect.Value, next *int64) {
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Struct:
			fill(f, next)
		case reflect.Map:
			*next += 2
			f.Set(reflect.ValueOf(map[string]int64{"a": *next - 1, "b": *next}))
		default:
			*next++
			f.SetInt(*next)
		}
	}
}

// TestCountsPlus: no term is forgotten in a sum, or in JSON.
func TestCountsPlus(t *testing.T) {
	t.Parallel()
	var c, twice Counts
	var n int64
	fill(reflect.ValueOf(&c).Elem(), &n)
	sum := c.Plus(c)
	a, b := reflect.ValueOf(&sum).Elem(), reflect.ValueOf(&c).Elem()
	var double func(a, b reflect.Value, at string)
	double = func(a, b reflect.Value, at string) {
		for i := range a.NumField() {
			name := at + "." + a.Type().Field(i).Name
			switch a.Field(i).Kind() {
			case reflect.Struct:
				double(a.Field(i), b.Field(i), name)
			case reflect.Map:
				for k, n := range b.Field(i).Interface().(map[string]int64) {
					if got := a.Field(i).Interface().(map[string]int64)[k]; got != 2*n {
						t.Errorf("%s[%s]: %d + %d = %d", name, k, n, n, got)
					}
				}
			default:
				if a.Field(i).Int() != 2*b.Field(i).Int() {
					t.Errorf("%s: %d + %d = %d", name, b.Field(i).Int(), b.Field(i).Int(), a.Field(i).Int())
				}
			}
		}
	}
	double(a, b, "Counts")
	data, err := json.Marshal(sum)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &twice); err != nil || !reflect.DeepEqual(twice, sum) {
		t.Errorf("%s became %+v (%v)", data, twice, err)
	}
}

// TestOldCounts: what earlier versions stamped is read as it was, and written
// back byte for byte, so that the stamp's hash stays what it was.
func TestOldCounts(t *testing.T) {
	t.Parallel()
	const old = `{"offsets":10,"data":8,"control":1,"aborted":1,"tombstones":1,"skipped":2,"rows":5,"bytes":100,"rejected":1,"written":4}`
	var c Counts
	if err := json.Unmarshal([]byte(old), &c); err != nil {
		t.Fatal(err)
	}
	if c.Skipped != 2 || c.Rejected != 1 || c.Written != 4 || c.Balanced() {
		t.Errorf("%+v", c)
	}
	if data, err := json.Marshal(c); err != nil || string(data) != old {
		t.Errorf("%s, %v", data, err)
	}
}

// TestBalanced: one record more or less in any term is seen.
func TestBalanced(t *testing.T) {
	t.Parallel()
	good := Counts{
		Tally: Tally{
			Offsets: 24, Data: 19, Control: 1, Aborted: 2, Lost: 1, Absent: 1, Tombstones: 1, Skipped: 1, DeadLettered: 3, Rows: 14,
			Bad: Codes{Decode: 2, Schema: 2},
		},
		Inputs: Inputs{
			Scanned: 14, Unread: 1, With: 4, Without: 2, Uncounted: 1, Rejected: 3, Dropped: 3, RejectedBy: Codes{Cast: 2, Constraint: 1}, Letters: 2, SourceLetters: 1,
			Rules: map[string]int64{"paid": 3, "clicks.has_user": 1},
		}, Written: 7,
	}
	if !good.Balanced() {
		t.Fatalf("%+v does not balance", good)
	}
	free := map[string]bool{"Bytes": true, "Letters": true, "Marks": true, "SourceLetters": true, "Written": true}
	var each func(v reflect.Value)
	each = func(v reflect.Value) {
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			switch f := v.Field(i); {
			case f.Kind() == reflect.Struct:
				each(f)
			case f.Kind() == reflect.Map:
				good.Rules["paid"]++
				if good.Balanced() {
					t.Error("one more that failed a rule still balances")
				}
				good.Rules["paid"]--
			case !free[name]:
				f.SetInt(f.Int() + 1)
				if good.Balanced() {
					t.Errorf("one more in %s still balances", name)
				}
				f.SetInt(f.Int() - 1)
			}
		}
	}
	each(reflect.ValueOf(&good).Elem())
}
