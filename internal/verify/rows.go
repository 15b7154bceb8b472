package verify

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
)

// rowHash identifies a row by its values: those that are not NULL, each with its
// column's field id. So a row is the same before and after a column was added,
// widened or renamed.
type rowHash [16]byte

// comparedMax bounds the rows of one side that are compared one by one. Of a larger
// batch a share is, chosen by hash, the same on both sides; all are counted, and
// their sums compared.
const comparedMax = 1 << 20

// Examples is how many rows are shown of those that are on one side only.
const Examples = 5

// Diff compares the rows that a batch gives with those that were committed. Their
// order does not matter, how often each occurs does.
type Diff struct {
	Sink          string `json:"sink"`
	Equal         bool   `json:"equal"`
	Replayed      int64  `json:"rows_replayed"`
	Committed     int64  `json:"rows_committed"`
	OnlyReplayed  int64  `json:"only_replayed"`
	OnlyCommitted int64  `json:"only_committed"`
	// Share is what part of the rows was compared one by one, 1 of this many; the
	// rest is in the sums.
	Share             int64             `json:"compared_1_of"`
	ExamplesReplayed  []json.RawMessage `json:"examples_replayed"`
	ExamplesCommitted []json.RawMessage `json:"examples_committed"`
	// Snapshot is the one that has the rows, 0 where nothing was committed or it has
	// expired.
	Snapshot int64 `json:"snapshot,omitempty"`
}

// Comparison takes the committed rows first, then those of a replay.
type Comparison struct {
	table *iceberg.Schema
	left  map[rowHash]int64 // committed and not replayed yet
	sums  [2]uint64
	diff  Diff
}

// NewComparison compares rows of a table with this schema; about so many were
// committed.
func NewComparison(sink string, schema *iceberg.Schema, rows int64) *Comparison {
	return &Comparison{table: schema, left: map[rowHash]int64{}, diff: Diff{
		Sink: sink, Share: 1 + rows/comparedMax, ExamplesReplayed: []json.RawMessage{}, ExamplesCommitted: []json.RawMessage{},
	}}
}

// Committed adds the rows of a data file.
func (c *Comparison) Committed(ctx context.Context, from iceio.IO, name string) error {
	return readRows(ctx, from, name, func(rows arrow.RecordBatch) error {
		e := newEncoder(c.table, rows.Schema())
		for i := range int(rows.NumRows()) {
			h := e.hash(rows, i)
			c.diff.Committed++
			c.sums[0] += binary.LittleEndian.Uint64(h[:])
			if c.compared(h) {
				c.left[h]++
			}
		}
		return nil
	})
}

func (c *Comparison) compared(h rowHash) bool {
	return binary.LittleEndian.Uint64(h[8:])%uint64(c.diff.Share) == 0
}

// Replayed adds rows of a replay. It is not for several goroutines at once.
func (c *Comparison) Replayed(rows arrow.RecordBatch) {
	e := newEncoder(c.table, rows.Schema())
	for i := range int(rows.NumRows()) {
		h := e.hash(rows, i)
		c.diff.Replayed++
		c.sums[1] += binary.LittleEndian.Uint64(h[:])
		if !c.compared(h) {
			continue
		}
		switch n := c.left[h]; {
		case n > 1:
			c.left[h] = n - 1
		case n == 1:
			delete(c.left, h)
		default:
			c.diff.OnlyReplayed++
			if len(c.diff.ExamplesReplayed) < Examples {
				c.diff.ExamplesReplayed = append(c.diff.ExamplesReplayed, rowText(rows, i))
			}
		}
	}
}

// End returns how the sides differ. files are those whose rows were added, for
// examples of them.
func (c *Comparison) End(ctx context.Context, from iceio.IO, files []string) (Diff, error) {
	for _, n := range c.left {
		c.diff.OnlyCommitted += n
	}
	c.diff.Equal = c.diff.Replayed == c.diff.Committed && c.sums[0] == c.sums[1] && c.diff.OnlyCommitted == 0 && c.diff.OnlyReplayed == 0
	for _, name := range files {
		if len(c.left) == 0 || len(c.diff.ExamplesCommitted) >= Examples {
			break
		}
		err := readRows(ctx, from, name, func(rows arrow.RecordBatch) error {
			e := newEncoder(c.table, rows.Schema())
			for i := range int(rows.NumRows()) {
				if h := e.hash(rows, i); c.left[h] > 0 && len(c.diff.ExamplesCommitted) < Examples {
					c.left[h]--
					c.diff.ExamplesCommitted = append(c.diff.ExamplesCommitted, rowText(rows, i))
				}
			}
			return nil
		})
		if err != nil {
			return c.diff, err
		}
	}
	return c.diff, nil
}

// readRows reads a data file piece by piece.
func readRows(ctx context.Context, from iceio.IO, name string, visit func(arrow.RecordBatch) error) (err error) {
	in, err := from.Open(name)
	if err != nil {
		return lake.Classify("read "+name, err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	r, err := file.NewParquetReader(in)
	if err != nil {
		return fmt.Errorf("%w: data file %s is damaged: %w", batch.ErrDataLost, name, err)
	}
	arrowReader, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{BatchSize: 16 << 10}, memory.DefaultAllocator)
	if err != nil {
		return fmt.Errorf("%w: data file %s: %w", batch.ErrDataLost, name, err)
	}
	rows, err := arrowReader.GetRecordReader(ctx, nil, nil)
	if err != nil {
		return fmt.Errorf("%w: data file %s: %w", batch.ErrDataLost, name, err)
	}
	defer rows.Release()
	for rows.Next() {
		if err := visit(rows.RecordBatch()); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil && !errors.Is(err, io.EOF) {
		return lake.Classify("read "+name, err)
	}
	return nil
}

// rowText shows a row as JSON, its keys in the order of the columns.
func rowText(rows arrow.RecordBatch, i int) json.RawMessage {
	var b strings.Builder
	b.WriteByte('{')
	for c, f := range rows.Schema().Fields() {
		if c > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(f.Name)
		if err != nil {
			name = []byte(`"?"`)
		}
		value, err := json.Marshal(rows.Column(c).GetOneForMarshal(i))
		if err != nil {
			value = []byte(`"?"`)
		}
		fmt.Fprintf(&b, "%s:%s", name, value)
	}
	b.WriteByte('}')
	return json.RawMessage(b.String())
}

// encoder writes rows of one schema.
type encoder struct {
	ids   []int // of the columns
	order []int // of the columns by id
	buf   []byte
}

// fieldID is where pqarrow keeps a column's field id.
const fieldID = "PARQUET:field_id"

func newEncoder(table *iceberg.Schema, rows *arrow.Schema) *encoder {
	e := &encoder{}
	for i, f := range rows.Fields() {
		id := -1 - i
		if text, ok := f.Metadata.GetValue(fieldID); ok {
			if n, err := strconv.Atoi(text); err == nil {
				id = n
			}
		} else if found, ok := table.FindFieldByName(f.Name); ok {
			id = found.ID
		} else if found, ok := table.FindFieldByNameCaseInsensitive(f.Name); ok {
			id = found.ID
		}
		e.ids = append(e.ids, id)
		e.order = append(e.order, i)
	}
	slices.SortFunc(e.order, func(a, b int) int { return e.ids[a] - e.ids[b] })
	return e
}

func (e *encoder) hash(rows arrow.RecordBatch, i int) rowHash {
	e.buf = e.buf[:0]
	for _, c := range e.order {
		if column := rows.Column(c); column.IsValid(i) {
			e.buf = binary.AppendVarint(e.buf, int64(e.ids[c]))
			e.buf = appendValue(e.buf, column, i)
		}
	}
	sum := sha256.Sum256(e.buf)
	return rowHash(sum[:16])
}

// Kinds of values: two types of one kind hold the same values in the same way.
const (
	kindNull byte = iota
	kindBool
	kindInt
	kindFloat
	kindDecimal
	kindText
	kindTime
	kindList
	kindStruct
)

// appendValue writes a value so that equal values of widened types are equal bytes.
func appendValue(b []byte, column arrow.Array, i int) []byte {
	if column.IsNull(i) {
		return append(b, kindNull)
	}
	switch c := column.(type) {
	case *array.Boolean:
		if c.Value(i) {
			return append(b, kindBool, 1)
		}
		return append(b, kindBool, 0)
	case *array.Float32:
		return appendFloat(b, float64(c.Value(i)))
	case *array.Float64:
		return appendFloat(b, c.Value(i))
	case *array.Timestamp:
		return appendTime(b, int64(c.Value(i)), c.DataType().(*arrow.TimestampType).Unit)
	case *array.Time32:
		return appendTime(b, int64(c.Value(i)), c.DataType().(*arrow.Time32Type).Unit)
	case *array.Time64:
		return appendTime(b, int64(c.Value(i)), c.DataType().(*arrow.Time64Type).Unit)
	case *array.Dictionary:
		return appendValue(b, c.Dictionary(), c.GetValueIndex(i))
	case array.ExtensionArray:
		return appendValue(b, c.Storage(), i)
	case *array.Struct:
		b = binary.AppendUvarint(append(b, kindStruct), uint64(c.NumField()))
		for k := range c.NumField() {
			b = appendValue(b, c.Field(k), i)
		}
		return b
	case array.ListLike: // a map is a list of its entries
		start, end := c.ValueOffsets(i)
		b = binary.AppendUvarint(append(b, kindList), uint64(end-start))
		for k := start; k < end; k++ {
			b = appendValue(b, c.ListValues(), int(k))
		}
		return b
	}
	return appendPlain(b, column, i)
}

// appendPlain writes values that Arrow shows as they are.
func appendPlain(b []byte, column arrow.Array, i int) []byte {
	text := column.ValueStr(i)
	kind := kindText
	switch id := column.DataType().ID(); {
	case arrow.IsInteger(id):
		kind = kindInt
		if column.DataType().ID() == arrow.UINT64 { // stored as DECIMAL(20, 0)
			kind = kindDecimal
		}
	case arrow.IsDecimal(id):
		kind = kindDecimal
		if strings.Contains(text, ".") {
			text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
		}
	}
	switch c := column.(type) {
	case *array.Binary:
		text = string(c.Value(i))
	case *array.LargeBinary:
		text = string(c.Value(i))
	case *array.FixedSizeBinary:
		text = string(c.Value(i))
	}
	return append(binary.AppendUvarint(append(b, kind), uint64(len(text))), text...)
}

func appendFloat(b []byte, f float64) []byte {
	if math.IsNaN(f) {
		f = math.NaN() // of which there are many
	}
	return binary.LittleEndian.AppendUint64(append(b, kindFloat), math.Float64bits(f))
}

// appendTime writes seconds and nanoseconds, which hold any unit exactly.
func appendTime(b []byte, n int64, unit arrow.TimeUnit) []byte {
	per := int64(1)
	switch unit {
	case arrow.Second:
	case arrow.Millisecond:
		per = 1e3
	case arrow.Microsecond:
		per = 1e6
	case arrow.Nanosecond:
		per = 1e9
	}
	second, part := n/per, n%per
	if part < 0 {
		second, part = second-1, part+per
	}
	return binary.AppendVarint(binary.AppendVarint(append(b, kindTime), second), part*(1e9/per))
}
