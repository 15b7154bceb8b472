package sink

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go/table"
)

// Differences says how a table that exists differs from the rows of a sink's SQL
// and from what the options ask for, and changes nothing. batch.ErrInvalid: a sink
// with these options would refuse the table.
func Differences(o Options, tbl *table.Table, rows *arrow.Schema) ([]Change, error) {
	t := &Table{opts: o.withDefaults()}
	return t.check(tbl, rows)
}

// PropertyDifferences are the properties that the options ask for and a table has
// otherwise. They are set when a table is made, and not changed later.
func PropertyDifferences(o Options, tbl *table.Table) (differ []string) {
	has := tbl.Properties()
	for _, key := range slices.Sorted(maps.Keys(o.Properties)) {
		is, ok := has[key]
		switch {
		case key == "format-version":
			is, ok = strconv.Itoa(tbl.Metadata().Version()), true
		case !ok:
			is = "not set"
		}
		if want := o.Properties[key]; !ok || is != want {
			differ = append(differ, fmt.Sprintf("%s is %s in the table and %s in the spec", key, is, want))
		}
	}
	return differ
}
