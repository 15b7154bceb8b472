package verify

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// place is what a manifest says of a data file's partition: what a transform makes of
// each value of a column.
type place struct {
	column    int // by field id
	name      string
	kind      iceberg.Type
	transform iceberg.Transform
	value     string
}

// placesOf are the partition values of a data file, as far as they can be computed from
// a footer: those of integers, dates, times and texts.
func placesOf(meta table.Metadata, d iceberg.DataFile) (all []place) {
	spec := meta.PartitionSpecByID(int(d.SpecID()))
	if spec == nil {
		return nil
	}
	for _, f := range spec.Fields() {
		if len(f.SourceIDs) != 1 {
			continue
		}
		column, found := meta.CurrentSchema().FindFieldByID(f.SourceIDs[0])
		value, known := plain(d.Partition()[f.FieldID])
		if found && known {
			all = append(all, place{column: column.ID, name: f.Name, kind: column.Type, transform: f.Transform, value: value})
		}
	}
	return all
}

// plain is a partition value as text; ok is false for kinds that readers give in
// several ways.
func plain(v any) (text string, ok bool) {
	r := reflect.ValueOf(v)
	switch {
	case !r.IsValid():
		return "", false // NULLs are counted elsewhere
	case r.CanInt():
		return strconv.FormatInt(r.Int(), 10), true
	case r.Kind() == reflect.String:
		return r.String(), true
	}
	return "", false
}

// differ says whether a column has a value that belongs to another partition: of the
// least and the greatest one, which are all where all must come to the same.
func (p place) differ(c column) string {
	for _, raw := range [][]byte{c.min, c.max} {
		literal := p.literal(c, raw)
		if literal == nil {
			return ""
		}
		out := p.transform.Apply(iceberg.Optional[iceberg.Literal]{Valid: true, Val: literal})
		if !out.Valid {
			return ""
		}
		if text, ok := plain(out.Val.Any()); ok && text != p.value {
			return fmt.Sprintf("has a value whose partition is %s=%.40q, and its manifest says %.40q", p.name, text, p.value)
		}
	}
	return ""
}

// literal is a plain value of Parquet; nil for types of which it is not told.
func (p place) literal(c column, raw []byte) iceberg.Literal {
	n, integer := number(raw)
	integer = integer && c.integers()
	switch p.kind.(type) {
	case iceberg.Int32Type, iceberg.Int64Type:
		if integer {
			return iceberg.NewLiteral(n)
		}
	case iceberg.DateType:
		if integer {
			return iceberg.NewLiteral(iceberg.Date(n))
		}
	case iceberg.TimestampType, iceberg.TimestampTzType:
		if integer {
			return iceberg.NewLiteral(iceberg.Timestamp(n))
		}
	case iceberg.StringType:
		if c.physical == parquet.Types.ByteArray {
			return iceberg.NewLiteral(strings.Clone(string(raw)))
		}
	}
	return nil
}
