package verify

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/schema"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// claims are what a manifest says of the columns of a data file, by field id.
type claims struct {
	nulls        map[int]int64
	lower, upper map[int][]byte
	places       []place
}

func claimsOf(meta table.Metadata, d iceberg.DataFile) claims {
	return claims{nulls: d.NullValueCounts(), lower: d.LowerBoundValues(), upper: d.UpperBoundValues(), places: placesOf(meta, d)}
}

// column is what a footer says of one column, over all row groups.
type column struct {
	physical   parquet.Type
	nulls      int64
	min, max   []byte // plain values; nil where there are none
	nullsKnown bool
	known      bool // the least and the greatest value are
}

// differ says in what a footer contradicts a manifest's claims, "" if in nothing. A
// file that was put in the place of another one has as many rows, but hardly the same
// values. It compares what two writers cannot see differently: how many NULLs a column
// has, and the least and the greatest of integers, dates and times; of texts the
// beginning of the least one.
func (c claims) differ(footer *metadata.FileMetaData) string {
	for i := range footer.Schema.NumColumns() {
		leaf := footer.Schema.Column(i)
		id := int(leaf.SchemaNode().FieldID())
		if id < 0 || leaf.MaxRepetitionLevel() > 0 {
			continue
		}
		has, err := columnOf(footer, i)
		if err != nil {
			return fmt.Sprintf("has a footer that cannot be read: %v", err)
		}
		if says, ok := c.nulls[id]; ok && has.nullsKnown && says != has.nulls {
			return fmt.Sprintf("has %d NULLs in column %s, and its manifest says %d: it is another file", has.nulls, leaf.Path(), says)
		}
		if _, decimal := leaf.LogicalType().(schema.DecimalLogicalType); !has.known || decimal {
			continue // Iceberg writes decimals otherwise
		}
		if wrong := has.bounds(c.lower[id], c.upper[id]); wrong != "" {
			return fmt.Sprintf("has %s in column %s: it is another file", wrong, leaf.Path())
		}
		for _, p := range c.places {
			if p.column != id {
				continue
			}
			if wrong := p.differ(has); wrong != "" {
				return wrong
			}
		}
	}
	return ""
}

func columnOf(footer *metadata.FileMetaData, i int) (column, error) {
	c := column{nullsKnown: true, known: true, physical: footer.Schema.Column(i).PhysicalType()}
	for g := range footer.NumRowGroups() {
		chunk, err := footer.RowGroup(g).ColumnChunk(i)
		if err != nil {
			return c, err
		}
		set, err := chunk.StatsSet()
		if err != nil || !set {
			c.nullsKnown, c.known = false, false
			return c, err
		}
		stats, err := chunk.Statistics()
		if err != nil {
			return c, err
		}
		if !stats.HasNullCount() {
			c.nullsKnown = false
		}
		c.nulls += stats.NullCount()
		switch {
		case stats.HasMinMax():
			c.take(stats.EncodeMin(), stats.EncodeMax())
		case stats.NullCount() != chunk.NumValues():
			c.known = false
		}
	}
	c.known = c.known && c.min != nil
	return c, nil
}

func (c *column) take(least, greatest []byte) {
	if c.min == nil || c.less(least, c.min) {
		c.min = least
	}
	if c.max == nil || c.less(c.max, greatest) {
		c.max = greatest
	}
}

func (c *column) less(a, b []byte) bool {
	if x, ok := number(a); ok && c.integers() {
		if y, ok := number(b); ok {
			return x < y
		}
	}
	return bytes.Compare(a, b) < 0
}

func (c *column) integers() bool {
	return c.physical == parquet.Types.Int32 || c.physical == parquet.Types.Int64
}

// number reads a plain integer, of a column that may have been widened since.
func number(b []byte) (int64, bool) {
	switch len(b) {
	case 4:
		return int64(int32(binary.LittleEndian.Uint32(b))), true
	case 8:
		return int64(binary.LittleEndian.Uint64(b)), true
	}
	return 0, false
}

// bounds compares with the bounds of a manifest; those of texts may be cut off.
func (c *column) bounds(lower, upper []byte) string {
	switch {
	case c.integers():
		least, ok := number(c.min)
		says, said := number(lower)
		if ok && said && least != says {
			return fmt.Sprintf("%d as the least value, and its manifest says %d", least, says)
		}
		greatest, ok := number(c.max)
		says, said = number(upper)
		if ok && said && greatest != says {
			return fmt.Sprintf("%d as the greatest value, and its manifest says %d", greatest, says)
		}
	case c.physical == parquet.Types.ByteArray && !bytes.HasPrefix(c.min, lower):
		return fmt.Sprintf("%.40q as the least value, and its manifest says %.40q", c.min, lower)
	}
	return ""
}
