package sink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
)

// properties that a new table gets unless the spec says otherwise: the ones with
// which commits stay flat.
var properties = map[string]string{
	"write.parquet.compression-codec":            "zstd",
	"write.metadata.delete-after-commit.enabled": "true",
	"write.metadata.previous-versions-max":       "10",
	"commit.retry.num-retries":                   "0",
}

func (t *Table) openOrCreate(ctx context.Context) (*table.Table, error) {
	tbl, err := t.catalog.LoadTable(t.catalog.Context(ctx), t.ident)
	switch {
	case err == nil:
		return tbl, nil
	case !errors.Is(err, catalog.ErrNoSuchTable) && !errors.Is(err, catalog.ErrNoSuchNamespace):
		return nil, lake.Classify("load table "+t.opts.Table, err)
	case t.opts.Committed:
		return nil, fmt.Errorf("%w: table %s does not exist, though the checkpoint says that this pipeline has committed to it: its catalog was lost or replaced, the table was dropped, or the spec names another one than before. "+
			"Bring it back; or, to begin again with an empty one, give the pipeline another name: %w", batch.ErrDataLost, t.opts.Table, err)
	case !t.opts.Create:
		return nil, fmt.Errorf("%w: table %s does not exist; create it, or set iceberg.create: true: %w", batch.ErrInvalid, t.opts.Table, err)
	}
	schema, err := icebergSchema(t.sqlRows(), t.opts.FormatVersion)
	if err != nil {
		return nil, err
	}
	spec, err := partitionSpec(schema, t.opts.PartitionBy)
	if err != nil {
		return nil, err
	}
	order, err := sortOrder(schema, t.opts.SortBy)
	if err != nil {
		return nil, err
	}
	for i := 1; i < len(t.ident); i++ {
		err := t.catalog.CreateNamespace(ctx, t.ident[:i], nil)
		if err != nil && !errors.Is(err, catalog.ErrNamespaceAlreadyExists) {
			return nil, lake.Classify("create namespace "+strings.Join(t.ident[:i], "."), err)
		}
	}
	props := iceberg.Properties{"format-version": strconv.Itoa(t.opts.FormatVersion)}
	for _, m := range []map[string]string{properties, t.opts.Properties} {
		maps.Copy(props, m)
	}
	tbl, err = t.catalog.CreateTable(t.catalog.Context(ctx), t.ident, schema,
		catalog.WithPartitionSpec(&spec), catalog.WithSortOrder(order), catalog.WithProperties(props))
	if errors.Is(err, catalog.ErrTableAlreadyExists) { // another process was quicker
		return t.catalog.Load(ctx, t.ident)
	}
	if err != nil {
		return nil, lake.Classify("create table "+t.opts.Table, err)
	}
	t.log.Info("table created", "table", t.opts.Table, "location", tbl.Location())
	return tbl, nil
}

// icebergSchema is the schema of a table for these rows. Iceberg has neither
// small nor unsigned integers, and time in microseconds.
func icebergSchema(rows *arrow.Schema, version int) (*iceberg.Schema, error) {
	fields := make([]arrow.Field, 0, rows.NumFields())
	for _, f := range rows.Fields() {
		if Reserved(f.Name) {
			return nil, fmt.Errorf("%w: column %q: %s", batch.ErrInvalid, f.Name, isReserved)
		}
		t, err := widened(f.Type, version)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", f.Name, err)
		}
		fields = append(fields, arrow.Field{Name: f.Name, Type: t, Nullable: f.Nullable})
	}
	schema, err := table.ArrowSchemaToIcebergWithFreshIDs(arrow.NewSchema(fields, nil), false)
	if err != nil {
		return nil, fmt.Errorf("%w: the columns cannot be those of a table: %w", batch.ErrInvalid, err)
	}
	return schema, nil
}

// widened returns the type in which Iceberg stores t.
func widened(t arrow.DataType, version int) (arrow.DataType, error) {
	switch t := t.(type) {
	case *arrow.Int8Type, *arrow.Int16Type, *arrow.Uint8Type, *arrow.Uint16Type:
		return arrow.PrimitiveTypes.Int32, nil
	case *arrow.Uint32Type:
		return arrow.PrimitiveTypes.Int64, nil
	case *arrow.Uint64Type:
		return &arrow.Decimal128Type{Precision: 20}, nil
	case *arrow.TimestampType:
		if t.Unit == arrow.Nanosecond && version >= 3 {
			return t, nil
		}
		if t.Unit == arrow.Nanosecond {
			return nil, fmt.Errorf("%w: nanoseconds need a table of format 3 (properties: {format-version: \"3\"}); or cast to TIMESTAMP", batch.ErrInvalid)
		}
		return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: t.TimeZone}, nil
	case *arrow.ListType:
		elem, err := widened(t.Elem(), version)
		return arrow.ListOfField(arrow.Field{Name: "element", Type: elem, Nullable: true}), err
	case *arrow.MapType:
		key, err := widened(t.KeyType(), version)
		if err != nil {
			return nil, err
		}
		item, err := widened(t.ItemType(), version)
		return arrow.MapOf(key, item), err
	case *arrow.StructType:
		fields := make([]arrow.Field, 0, t.NumFields())
		for _, f := range t.Fields() {
			inner, err := widened(f.Type, version)
			if err != nil {
				return nil, err
			}
			fields = append(fields, arrow.Field{Name: f.Name, Type: inner, Nullable: true})
		}
		return arrow.StructOf(fields...), nil
	}
	return t, nil
}

// transformText is "column" or "transform(column)" or "transform(n, column)".
var transformText = regexp.MustCompile(`^\s*(?:([a-z]+)\s*\(\s*(?:(\d+)\s*,\s*)?([^(),]+?)\s*(?:,\s*(\d+)\s*)?\)|([^(),]+?))\s*$`)

var transforms = map[string]bool{"identity": true, "bucket": true, "truncate": true, "year": true, "month": true, "day": true, "hour": true}

// transform reads a term of partition_by or sort_by.
func transform(schema *iceberg.Schema, key, term string) (iceberg.Transform, iceberg.NestedField, error) {
	bad := func(format string, args ...any) (iceberg.Transform, iceberg.NestedField, error) {
		return nil, iceberg.NestedField{}, fmt.Errorf("%w: %s: %q: %s", batch.ErrInvalid, key, term, fmt.Sprintf(format, args...))
	}
	m := transformText.FindStringSubmatch(term)
	if m == nil {
		return bad("write a column, day(column), bucket(16, column) or truncate(4, column)")
	}
	name, column, width := m[1], m[3]+m[5], m[2]+m[4]
	if name == "" {
		name = "identity"
	}
	f, ok := schema.FindFieldByNameCaseInsensitive(column)
	if !ok {
		return bad("the sink's SQL has no column %q", column)
	}
	text := name
	if width != "" {
		text += "[" + width + "]"
	}
	tr, err := iceberg.ParseTransform(text)
	if err != nil || !transforms[name] { // iceberg-go takes names that it does not know
		return bad("%s is not identity, bucket(n, c), truncate(n, c), year, month, day or hour", name)
	}
	if !tr.CanTransform(f.Type) { // a catalog takes hour(date), and iceberg-go would write NULLs
		return bad("%s cannot be applied to a column of type %s", name, f.Type)
	}
	return tr, f, nil
}

func partitionSpec(schema *iceberg.Schema, terms []string) (iceberg.PartitionSpec, error) {
	fields := make([]iceberg.PartitionField, 0, len(terms))
	for i, term := range terms {
		tr, f, err := transform(schema, "partition_by", term)
		if err != nil {
			return iceberg.PartitionSpec{}, err
		}
		name := f.Name
		if _, identity := tr.(iceberg.IdentityTransform); !identity {
			name += "_" + strings.TrimRight(strings.SplitN(tr.String(), "[", 2)[0], "]")
		}
		fields = append(fields, iceberg.PartitionField{SourceIDs: []int{f.ID}, FieldID: 1000 + i, Name: name, Transform: tr})
	}
	return iceberg.NewPartitionSpec(fields...), nil
}

func sortOrder(schema *iceberg.Schema, terms []string) (table.SortOrder, error) {
	if len(terms) == 0 {
		return table.UnsortedSortOrder, nil
	}
	var fields []table.SortField
	for _, term := range terms {
		column, descending := strings.CutSuffix(strings.TrimSpace(term), " desc")
		tr, f, err := transform(schema, "sort_by", column)
		if err != nil {
			return table.SortOrder{}, err
		}
		if _, identity := tr.(iceberg.IdentityTransform); !identity {
			return table.SortOrder{}, fmt.Errorf("%w: sort_by: %q: sort by a column, with desc behind it for falling order", batch.ErrInvalid, term)
		}
		field := table.SortField{SourceIDs: []int{f.ID}, Transform: tr, Direction: table.SortASC, NullOrder: table.NullsFirst}
		if descending {
			field.Direction, field.NullOrder = table.SortDESC, table.NullsLast
		}
		fields = append(fields, field)
	}
	return table.NewSortOrder(1, fields)
}
