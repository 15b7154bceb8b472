package sink

import (
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/lake"
)

// Sizes of what is handed to the encoder: fewer rows cost more for each.
const (
	encodeRows   = 32 << 10
	encodeBytes  = 8 << 20
	largeBatch   = 2 << 20 // is worth encoding alone
	rowGroupRows = 1 << 20
)

// A reader takes up to readerRows of a row group at once, whatever they hold: DuckDB
// does. Of wide rows, of which so many are more than rowGroupWide, a row group ends
// at that many bytes before they are compressed. Rows of fewer than 16 KiB in the mean
// are none, and theirs end as if this was not here.
const (
	readerRows   = 2048
	rowGroupWide = 32 << 20
)

// The shares of Options.MemoryBytes: rows that wait for the encoder in a table
// with partitions or a sort order, of which there are up to three copies while
// they are sorted, and the open files.
const (
	keptShare     = 5
	openShare     = 2
	rowGroupShare = 8 // of one file
)

// What an open file takes besides its compressed pages, estimated: of each
// column, the page in the making and the encoder itself.
const (
	pageBytes   = 1 << 20
	columnBytes = 16 << 10
)

// dataFile is one Parquet file in the making.
type dataFile struct {
	w         *Writer
	key       string
	name      string
	number    int
	partition map[int]any // by partition field id

	out     *counting
	held    int64 // bytes that out keeps in memory, at most
	writer  *pqarrow.FileWriter
	rows    int64
	encoded int64 // bytes of rows that went into the current row group
	wide    int64 // of them, those of wide rows
	ended   bool  // the next rows begin another row group
}

// counting knows how many bytes went through it.
type counting struct {
	io.WriteCloser
	n   int64
	err error // of the last write
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.WriteCloser.Write(p)
	c.n += int64(n)
	c.err = err
	return n, err
}

// memory estimates what the file holds.
func (f *dataFile) memory() int64 {
	if f.writer == nil {
		return 0
	}
	columns := int64(f.w.layout.files.NumFields())
	return columns*columnBytes + min(f.encoded, columns*pageBytes) + f.writer.RowGroupTotalCompressedBytes() + min(f.out.n, f.held)
}

// write encodes rows, and releases them.
func (f *dataFile) write(rows arrow.RecordBatch) error {
	defer func() { rows.Release() }()
	if f.w.sort != nil {
		sorted, err := f.w.sort.sort(f.w.ctx, rows)
		if err != nil {
			return f.w.invalid("sort the rows", err)
		}
		rows.Release()
		rows = sorted
	}
	if f.writer == nil {
		if err := f.create(rows); err != nil {
			return err
		}
	}
	if f.ended {
		if err := f.writer.NewBufferedRowGroupChecked(); err != nil {
			return lake.Classify("write "+f.name, err)
		}
		f.ended, f.encoded, f.wide = false, 0, 0
	}
	var bytes int64
	for _, c := range rows.Columns() {
		bytes += int64(c.Data().SizeInBytes())
	}
	f.encoded += bytes
	if bytes*readerRows >= rowGroupWide*rows.NumRows() {
		f.wide += bytes
	}
	if err := f.writer.WriteBuffered(rows); err != nil {
		return lake.Classify("write "+f.name, err)
	}
	f.rows += rows.NumRows()
	n, err := f.writer.RowGroupNumRows()
	// Another one begins with its first rows only: some readers refuse row
	// groups that are empty.
	f.ended = f.w.sort != nil || f.wide >= rowGroupWide || err == nil && n >= rowGroupRows || f.writer.RowGroupTotalCompressedBytes() >= f.w.t.opts.MemoryBytes/rowGroupShare
	return nil
}

func (f *dataFile) create(sample arrow.RecordBatch) error {
	out, held, err := lake.Create(f.w.ctx, f.w.t.fs.current(), f.name)
	if err != nil {
		return lake.Classify("create "+f.name, err)
	}
	f.out, f.held = &counting{WriteCloser: out}, held
	props := append(settings(f.w.meta.Properties()), encodings(sample)...)
	f.writer, err = pqarrow.NewFileWriter(f.w.layout.files, f.out, parquet.NewWriterProperties(props...),
		pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		if f.out.err != nil { // of the file's first bytes, not of its schema
			return lake.Classify("write "+f.name, f.out.err)
		}
		return f.w.invalid("open a Parquet file", err)
	}
	return nil
}

// full says whether the file has reached its size.
func (f *dataFile) full() bool {
	return f.writer != nil && f.out.n+f.writer.RowGroupTotalCompressedBytes() >= f.w.t.opts.FileBytes
}

// close finishes the file and describes it.
func (f *dataFile) close() (iceberg.DataFile, error) {
	if err := f.writer.Close(); err != nil { // closes the file, too
		return nil, lake.Classify("finish "+f.name, err)
	}
	meta, err := f.writer.FileMetadata()
	if err != nil {
		return nil, f.w.invalid("read a footer", err)
	}
	if meta.NumRows != f.rows {
		return nil, fmt.Errorf("%w: %s: %d, not %d", errMiscount, f.name, meta.NumRows, f.rows)
	}
	order := 0
	if f.w.sort != nil && meta.NumRowGroups() == 1 { // each row group is sorted alone
		order = f.w.meta.DefaultSortOrder()
	}
	d, err := table.DataFileFromMetadata(table.DataFileArgs{
		Schema: f.w.layout.table, Spec: f.w.meta.PartitionSpec(), Format: iceberg.ParquetFile, Metadata: meta,
		FilePath: f.name, FileSize: f.out.n, Content: iceberg.EntryContentData, PartitionValues: f.partition,
		SortOrderID: order, Properties: f.w.meta.Properties(),
	})
	if err != nil {
		return nil, f.w.invalid("describe a data file", err)
	}
	return d, nil
}

func (f *dataFile) abort() {
	if f.out != nil {
		_ = f.out.Close() // incomplete, and swept later
	}
}

// settings are the table's own for Parquet. Level 1 of zstd costs a third less
// than the default and makes files no larger.
func settings(p iceberg.Properties) []parquet.WriterProperty {
	codecs := map[string]compress.Compression{
		"zstd": compress.Codecs.Zstd, "snappy": compress.Codecs.Snappy, "gzip": compress.Codecs.Gzip, "brotli": compress.Codecs.Brotli,
		"lz4": compress.Codecs.Lz4Raw, "uncompressed": compress.Codecs.Uncompressed, "none": compress.Codecs.Uncompressed,
	}
	codec, ok := codecs[p["write.parquet.compression-codec"]]
	if !ok {
		codec = compress.Codecs.Zstd
	}
	out := []parquet.WriterProperty{
		parquet.WithVersion(parquet.V2_LATEST), parquet.WithDataPageVersion(parquet.DataPageV1), parquet.WithCompression(codec),
		parquet.WithMaxRowGroupLength(rowGroupRows), parquet.WithCreatedBy("frazil"),
	}
	if level, err := strconv.Atoi(p["write.parquet.compression-level"]); err == nil {
		return append(out, parquet.WithCompressionLevel(level))
	}
	if codec == compress.Codecs.Zstd {
		out = append(out, parquet.WithCompressionLevel(1))
	}
	return out
}

// sampleRows are looked at to choose an encoding.
const sampleRows = 16 << 10

// A dictionary is good for a column with few enough values, and for integers
// only with very few: deltas are as small.
const (
	dictionaryBytes    = 768 << 10 // Parquet gives up a dictionary at 1 MiB
	dictionaryIntegers = 4096
)

// encodings choose for each column by its first rows: a dictionary where values
// repeat, else deltas for integers and times. A dictionary of distinct values is
// most of the cost of a Parquet file, and makes it larger.
func encodings(first arrow.RecordBatch) []parquet.WriterProperty {
	var out []parquet.WriterProperty
	for i, f := range first.Schema().Fields() {
		distinct, size := estimate(first.Column(i))
		switch f.Type.ID() {
		case arrow.INT32, arrow.INT64, arrow.DATE32, arrow.TIME64, arrow.TIMESTAMP:
			if distinct > dictionaryIntegers {
				out = append(out, parquet.WithDictionaryFor(f.Name, false), parquet.WithEncodingFor(f.Name, parquet.Encodings.DeltaBinaryPacked))
			}
		case arrow.STRING, arrow.BINARY, arrow.FLOAT64, arrow.FLOAT32:
			if distinct*size > dictionaryBytes {
				out = append(out, parquet.WithDictionaryFor(f.Name, false))
			}
		}
	}
	return out
}

// estimate guesses how many distinct values a column will have, and the mean
// size of one. Values drawn from d ones repeat more and more: when the second
// half of a sample has r times as many new values as the first half of n, d is
// about n / -ln r.
func estimate(c arrow.Array) (distinct, size float64) {
	half := min(c.Len(), sampleRows) / 2
	if half == 0 {
		return 0, 0
	}
	sampled := func(fresh func(i int) bool, size float64) (float64, float64) {
		var n [2]float64
		for i := range 2 * half {
			if fresh(i) {
				n[i/half]++
			}
		}
		all := n[0] + n[1]
		switch {
		case c.Len() < encodeRows && 2*all > float64(2*half): // a small file: what is in it counts, not what may follow
			return math.Inf(1), size
		case n[1] >= n[0]:
			return math.Inf(1), size
		case n[1] == 0:
			return all, size
		}
		return max(all, float64(half)/-math.Log(n[1]/n[0])), size
	}
	width := 0.0
	// A STRUCT without NULLs, and text that is empty throughout, have none.
	if buffers := c.Data().Buffers(); len(buffers) > 0 && buffers[len(buffers)-1] != nil {
		width = float64(buffers[len(buffers)-1].Len()) / float64(c.Len())
	}
	switch c := c.(type) {
	case *array.String:
		return sampled(unseen(c.Value), width)
	case *array.Binary:
		return sampled(unseen(func(i int) string { return string(c.Value(i)) }), width)
	case *array.Float64:
		return sampled(unseen(c.Value), width)
	case *array.Float32:
		return sampled(unseen(c.Value), width)
	case *array.Int64:
		return sampled(unseen(c.Value), width)
	case *array.Int32:
		return sampled(unseen(c.Value), width)
	case *array.Date32:
		return sampled(unseen(c.Value), width)
	case *array.Time64:
		return sampled(unseen(c.Value), width)
	case *array.Timestamp:
		return sampled(unseen(c.Value), width)
	}
	return 0, 0
}

// unseen says of each value whether it was not there before.
func unseen[T comparable](value func(int) T) func(i int) bool {
	seen := map[T]struct{}{}
	return func(i int) bool {
		n := len(seen)
		seen[value(i)] = struct{}{}
		return len(seen) > n
	}
}
