package sink

import (
	"fmt"
	"io"
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
	bufferRows   = 64 << 10
	bufferBytes  = 32 << 20
	rowGroupRows = 1 << 20
)

// dataFile is one Parquet file in the making.
type dataFile struct {
	w         *Writer
	name      string
	partition map[int]any // by partition field id

	buffered      []arrow.RecordBatch
	bufferedRows  int64
	bufferedBytes int64
	out           *counting
	writer        *pqarrow.FileWriter
	rows          int64
}

// counting knows how many bytes went through it.
type counting struct {
	io.WriteCloser
	n int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.WriteCloser.Write(p)
	c.n += int64(n)
	return n, err
}

func (f *dataFile) add(rows arrow.RecordBatch) error {
	rows.Retain()
	f.buffered = append(f.buffered, rows)
	f.bufferedRows += rows.NumRows()
	for _, c := range rows.Columns() {
		f.bufferedBytes += int64(c.Data().SizeInBytes())
	}
	if f.bufferedRows < f.w.bufferRows() && f.bufferedBytes < bufferBytes {
		return nil
	}
	return f.flush()
}

// bufferRows is larger where rows are sorted: each piece is sorted by itself.
func (w *Writer) bufferRows() int64 {
	if w.sort != nil {
		return rowGroupRows
	}
	return bufferRows
}

// flush encodes what is buffered.
func (f *dataFile) flush() error {
	if len(f.buffered) == 0 {
		return nil
	}
	rows, err := join(f.w.layout.files, f.buffered)
	f.drop()
	if err != nil {
		return err
	}
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
	if err := f.writer.WriteBuffered(rows); err != nil {
		return lake.Classify("write "+f.name, err)
	}
	f.rows += rows.NumRows()
	if n, err := f.writer.RowGroupNumRows(); err == nil && n >= rowGroupRows || f.w.sort != nil {
		f.writer.NewBufferedRowGroup()
	}
	return nil
}

func (f *dataFile) drop() {
	for _, b := range f.buffered {
		b.Release()
	}
	f.buffered, f.bufferedRows, f.bufferedBytes = nil, 0, 0
}

func (f *dataFile) create(sample arrow.RecordBatch) error {
	out, err := f.w.t.fs.Create(f.name)
	if err != nil {
		return lake.Classify("create "+f.name, err)
	}
	f.out = &counting{WriteCloser: out}
	props := append(settings(f.w.meta.Properties()), encodings(sample)...)
	f.writer, err = pqarrow.NewFileWriter(f.w.layout.files, f.out, parquet.NewWriterProperties(props...),
		pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
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
	if err := f.flush(); err != nil {
		f.abort()
		return nil, err
	}
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
	if f.w.sort != nil {
		order = f.w.meta.DefaultSortOrder()
	}
	d, err := table.DataFileFromMetadata(table.DataFileArgs{
		Schema: f.w.meta.CurrentSchema(), Spec: f.w.meta.PartitionSpec(), Format: iceberg.ParquetFile, Metadata: meta,
		FilePath: f.name, FileSize: f.out.n, Content: iceberg.EntryContentData, PartitionValues: f.partition,
		SortOrderID: order, Properties: f.w.meta.Properties(),
	})
	if err != nil {
		return nil, f.w.invalid("describe a data file", err)
	}
	return d, nil
}

func (f *dataFile) abort() {
	f.drop()
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
const sampleRows = 4096

// encodings choose for each column of the first rows: deltas for integers and
// times, a dictionary where values repeat. A dictionary of distinct values is
// most of the cost of a Parquet file, and makes it larger.
func encodings(sample arrow.RecordBatch) []parquet.WriterProperty {
	var out []parquet.WriterProperty
	for i, f := range sample.Schema().Fields() {
		switch f.Type.ID() {
		case arrow.INT32, arrow.INT64, arrow.DATE32, arrow.TIME64, arrow.TIMESTAMP:
			out = append(out, parquet.WithDictionaryFor(f.Name, false), parquet.WithEncodingFor(f.Name, parquet.Encodings.DeltaBinaryPacked))
		case arrow.STRING, arrow.BINARY, arrow.FLOAT64, arrow.FLOAT32:
			if !repeats(sample.Column(i)) {
				out = append(out, parquet.WithDictionaryFor(f.Name, false))
			}
		}
	}
	return out
}

// repeats says whether less than half of a sample's values are distinct.
func repeats(c arrow.Array) bool {
	n := min(c.Len(), sampleRows)
	distinct := map[any]struct{}{}
	for i := range n {
		switch c := c.(type) {
		case *array.String:
			distinct[c.Value(i)] = struct{}{}
		case *array.Binary:
			distinct[string(c.Value(i))] = struct{}{}
		case *array.Float64:
			distinct[c.Value(i)] = struct{}{}
		case *array.Float32:
			distinct[c.Value(i)] = struct{}{}
		}
	}
	return 2*len(distinct) < n
}
