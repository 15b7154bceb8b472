package batch

import (
	"encoding/json"
	"reflect"
	"testing"
)

// fill sets each number of a struct to another value.
func fill(v reflect.Value, next *int64) {
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Struct {
			fill(f, next)
		} else {
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
			if a.Field(i).Kind() == reflect.Struct {
				double(a.Field(i), b.Field(i), name)
			} else if a.Field(i).Int() != 2*b.Field(i).Int() {
				t.Errorf("%s: %d + %d = %d", name, b.Field(i).Int(), b.Field(i).Int(), a.Field(i).Int())
			}
		}
	}
	double(a, b, "Counts")
	data, err := json.Marshal(sum)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &twice); err != nil || twice != sum {
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
			Offsets: 20, Data: 15, Control: 1, Aborted: 2, Lost: 1, Absent: 1, Tombstones: 1, Skipped: 1, DeadLettered: 3, Rows: 10,
			Bad: Codes{Decode: 2, Schema: 2},
		},
		Inputs: Inputs{Scanned: 10, Unread: 1, With: 4, Without: 2, Uncounted: 1, Rejected: 2, RejectedBy: Codes{Cast: 2}, Letters: 2}, Written: 7,
	}
	if !good.Balanced() {
		t.Fatalf("%+v does not balance", good)
	}
	free := map[string]bool{"Bytes": true, "Letters": true, "Written": true}
	var each func(v reflect.Value)
	each = func(v reflect.Value) {
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			switch f := v.Field(i); {
			case f.Kind() == reflect.Struct:
				each(f)
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
