package sink

import "github.com/apache/arrow-go/v18/arrow"

// Check says whether a table can be made for these rows: their types, partition_by
// and sort_by. It asks nobody. batch.ErrInvalid: it cannot.
func Check(o Options, rows *arrow.Schema) error {
	o = o.withDefaults()
	schema, err := icebergSchema(rows, o.FormatVersion)
	if err != nil {
		return err
	}
	if _, err := partitionSpec(schema, o.PartitionBy); err != nil {
		return err
	}
	_, err = sortOrder(schema, o.SortBy)
	return err
}
