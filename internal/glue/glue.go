// Package glue puts Arrow record batches together, in Go memory. It is a leaf:
// anything may import it.
package glue

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// Join copies record batches, at least one, into one with this schema.
func Join(schema *arrow.Schema, parts []arrow.RecordBatch) (arrow.RecordBatch, error) {
	var n int64
	for _, p := range parts {
		n += p.NumRows()
	}
	return columns(schema, n, func(c int) (arrow.Array, error) {
		pieces := make([]arrow.Array, len(parts))
		for k, p := range parts {
			pieces[k] = p.Column(c)
		}
		return array.Concatenate(pieces, memory.DefaultAllocator)
	})
}

// Copy copies the rows [from, to). A slice would not do where they are exported:
// arrow-go exports sliced structs with their offset applied twice.
func Copy(of arrow.RecordBatch, from, to int64) (arrow.RecordBatch, error) {
	return columns(of.Schema(), to-from, func(c int) (arrow.Array, error) {
		slice := array.NewSlice(of.Column(c), from, to)
		defer slice.Release()
		return array.Concatenate([]arrow.Array{slice}, memory.DefaultAllocator)
	})
}

// Without copies the rows that are not at the places in gone, which rise.
func Without(of arrow.RecordBatch, gone []int64) (arrow.RecordBatch, error) {
	var runs [][2]int64
	from := int64(0)
	for _, at := range gone {
		if at > from {
			runs = append(runs, [2]int64{from, at})
		}
		from = at + 1
	}
	if from < of.NumRows() || len(runs) == 0 {
		runs = append(runs, [2]int64{from, of.NumRows()})
	}
	return columns(of.Schema(), of.NumRows()-int64(len(gone)), func(c int) (arrow.Array, error) {
		pieces := make([]arrow.Array, len(runs))
		for k, r := range runs {
			pieces[k] = array.NewSlice(of.Column(c), r[0], r[1])
		}
		defer func() {
			for _, p := range pieces {
				p.Release()
			}
		}()
		return array.Concatenate(pieces, memory.DefaultAllocator)
	})
}

// columns makes a record batch of n rows from what column returns for each place.
func columns(schema *arrow.Schema, n int64, column func(c int) (arrow.Array, error)) (arrow.RecordBatch, error) {
	made := make([]arrow.Array, 0, schema.NumFields())
	defer func() {
		for _, c := range made {
			c.Release()
		}
	}()
	for i, f := range schema.Fields() {
		c, err := column(i)
		if err != nil {
			return nil, fmt.Errorf("copy column %s: %w", f.Name, err)
		}
		made = append(made, c)
	}
	return array.NewRecordBatch(schema, made, n), nil
}
