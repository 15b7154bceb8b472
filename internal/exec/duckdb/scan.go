//go:build duckdb_arrow && cgo

package duckdb

/*
#include "scan.h"
void frazilBind(void *info);
void frazilInit(void *info);
*/
import "C"

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/cdata"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/duckdb/duckdb-go/v2/arrowmapping"
	"github.com/duckdb/duckdb-go/v2/mapping"
)

// Kind says what the rows of a Source are to SQL. It is the name of the table
// function through which SQL reads it, so that plans show it.
type Kind string

// The kinds.
const (
	Stream Kind = "frazil_stream" // another piece each time
	Table  Kind = "frazil_table"  // the same for a whole batch
)

// numbered marks the id of a relation that is read under its other name: see
// Instance.Number.
const numbered = 1 << 62

// Source is a relation of SQL whose rows are an Arrow record batch, without a
// copy. Prepared statements keep its schema; every execution scans the rows that
// are set then, any number of times.
type Source struct {
	id         uint64
	name       string
	kind       Kind
	fields     []arrow.Field
	types      []mapping.LogicalType
	ordinal    string // the column that numbers rows, under the other name
	connection mapping.Connection

	mu        sync.Mutex
	rows      *exported
	converted map[string]arrowmapping.ArrowConvertedSchema // by projected columns
	read      map[int]bool                                 // columns that any scan projected
}

// exported is a record batch in the form of the C data interface.
type exported struct {
	refs  atomic.Int64
	batch arrow.RecordBatch
	c     *cdata.CArrowArray
}

func export(rows arrow.RecordBatch) *exported {
	e := &exported{batch: rows, c: (*cdata.CArrowArray)(C.calloc(1, C.sizeof_struct_ArrowArray))}
	e.refs.Store(1)
	rows.Retain()
	cdata.ExportArrowRecordBatch(rows, e.c, nil)
	return e
}

func (e *exported) release() {
	if e.refs.Add(-1) == 0 {
		cdata.ReleaseCArrowArray(e.c)
		C.free(unsafe.Pointer(e.c))
		e.batch.Release()
	}
}

// DuckDB calls back with numbers only, so that no Go pointer lies in C memory:
// these tables lead back. They are global because callbacks have no receiver.
var (
	sources sync.Map // uint64 → *Source
	scans   sync.Map // uint64 → *exported
	lastID  atomic.Uint64
)

func registerScan(connection mapping.Connection, kind Kind) error {
	f := mapping.CreateTableFunction()
	defer mapping.DestroyTableFunction(&f)
	mapping.TableFunctionSetName(f, string(kind))
	id := mapping.CreateLogicalType(mapping.TypeBigInt)
	defer mapping.DestroyLogicalType(&id)
	mapping.TableFunctionAddParameter(f, id)
	mapping.TableFunctionSupportsProjectionPushdown(f, true)
	mapping.TableFunctionSetBind(f, unsafe.Pointer(C.frazil_callback1(C.frazilBind)))
	mapping.TableFunctionSetInit(f, unsafe.Pointer(C.frazil_callback1(C.frazilInit)))
	mapping.TableFunctionSetFunction(f, unsafe.Pointer(C.frazil_callback2(C.frazil_scan_next)))
	if mapping.RegisterTableFunction(connection, f) == mapping.StateError {
		return errors.New("DuckDB refused the scan function")
	}
	return nil
}

// newSource declares a relation with visible columns.
func newSource(connection mapping.Connection, name string, fields []arrow.Field) (*Source, error) {
	s := &Source{
		id: lastID.Add(1), name: name, fields: fields, connection: connection,
		converted: map[string]arrowmapping.ArrowConvertedSchema{}, read: map[int]bool{},
	}
	schema := arrow.NewSchema(fields, nil)
	converted, failed := arrowmapping.SchemaFromArrow(connection, schema)
	if err := ErrorOf(failed); err != nil {
		return nil, fmt.Errorf("relation %s: %w", name, err)
	}
	defer arrowmapping.DestroyArrowConvertedSchema(&converted)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	rows := b.NewRecordBatch()
	defer rows.Release()
	chunk, failed := arrowmapping.DataChunkFromArrow(connection, rows, converted)
	if err := ErrorOf(failed); err != nil {
		return nil, fmt.Errorf("relation %s: %w", name, err)
	}
	defer mapping.DestroyDataChunk(&chunk)
	for i := range fields {
		s.types = append(s.types, mapping.VectorGetColumnType(mapping.DataChunkGetVector(chunk, mapping.IdxT(i))))
	}
	sources.Store(s.id, s)
	return s, nil
}

// Set gives the relation its rows, whose first columns are its own; nil takes
// them away.
func (s *Source) Set(rows arrow.RecordBatch) {
	var next *exported
	if rows != nil {
		next = export(rows)
	}
	s.mu.Lock()
	last := s.rows
	s.rows = next
	s.mu.Unlock()
	if last != nil {
		last.release()
	}
}

// Watch returns what says which columns SQL has read since this call.
func (s *Source) Watch() func() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.read)
	return s.columnsRead
}

func (s *Source) columnsRead() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for i, f := range s.fields {
		if s.read[i] {
			names = append(names, f.Name)
		}
	}
	return names
}

func (s *Source) close() {
	sources.Delete(s.id)
	s.Set(nil)
	for _, c := range s.converted {
		arrowmapping.DestroyArrowConvertedSchema(&c)
	}
	for i := range s.types {
		mapping.DestroyLogicalType(&s.types[i])
	}
}

// A panic must not cross into C++: it would end the process.
func guard(fail func(string)) {
	if r := recover(); r != nil {
		fail(fmt.Sprintf("frazil: %v", r))
	}
}

//export frazilBind
func frazilBind(p unsafe.Pointer) {
	info := mapping.BindInfo{Ptr: p}
	defer guard(func(m string) { mapping.BindSetError(info, m) })
	v := mapping.BindGetParameter(info, 0)
	id := mapping.GetInt64(v)
	mapping.DestroyValue(&v)
	found, ok := sources.Load(uint64(id) &^ numbered)
	if !ok {
		mapping.BindSetError(info, "unknown relation")
		return
	}
	s := found.(*Source)
	for i, f := range s.fields {
		mapping.BindAddResultColumn(info, f.Name, s.types[i])
	}
	if uint64(id)&numbered != 0 {
		t := mapping.CreateLogicalType(mapping.TypeBigInt)
		defer mapping.DestroyLogicalType(&t)
		mapping.BindAddResultColumn(info, s.ordinal, t)
	}
	data := C.malloc(8)
	*(*uint64)(data) = s.id
	mapping.BindSetBindData(info, data, unsafe.Pointer(C.frazil_callback1(C.frazil_bind_free)))
}

//export frazilInit
func frazilInit(p unsafe.Pointer) {
	info := mapping.InitInfo{Ptr: p}
	defer guard(func(m string) { mapping.InitSetError(info, m) })
	found, ok := sources.Load(*(*uint64)(mapping.InitGetBindData(info)))
	if !ok {
		mapping.InitSetError(info, "the relation is closed")
		return
	}
	s := found.(*Source)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rows == nil {
		mapping.InitSetError(info, "relation "+s.name+" has no rows set")
		return
	}
	scan, err := s.scan(info)
	if err != nil {
		mapping.InitSetError(info, err.Error())
		return
	}
	s.rows.refs.Add(1)
	handle := lastID.Add(1)
	scans.Store(handle, s.rows)
	scan.handle = C.uint64_t(handle)
	scan.rows = (*C.struct_ArrowArray)(unsafe.Pointer(s.rows.c))
	mapping.InitSetInitData(info, unsafe.Pointer(scan), unsafe.Pointer(C.frazil_callback1(C.frazil_scan_free)))
	mapping.InitSetMaxThreads(info, 1)
}

// scan notes which columns DuckDB wants, and where.
func (s *Source) scan(info mapping.InitInfo) (*C.frazil_scan, error) {
	n := int(mapping.InitGetColumnCount(info))
	var to, from []int32
	var fields []arrow.Field
	key := make([]byte, 0, 2*n)
	ordinal := -1
	for i := range n {
		column := uint64(mapping.InitGetColumnIndex(info, mapping.IdxT(i)))
		if column == uint64(len(s.fields)) {
			ordinal = i
		}
		if column >= uint64(len(s.fields)) {
			continue // or the row id, which nobody reads
		}
		to, from = append(to, int32(i)), append(from, int32(column))
		fields = append(fields, s.fields[column])
		key = append(key, byte(column), byte(column>>8))
		s.read[int(column)] = true
	}
	scan := (*C.frazil_scan)(C.calloc(1, C.sizeof_frazil_scan))
	scan.connection = s.connection.Ptr
	scan.columns, scan.ordinal = C.int32_t(len(to)), C.int32_t(ordinal)
	scan.to, scan.from = cInts(to), cInts(from)
	if len(fields) == 0 {
		return scan, nil
	}
	converted, ok := s.converted[string(key)]
	if !ok {
		var failed mapping.ErrorData
		converted, failed = arrowmapping.SchemaFromArrow(s.connection, arrow.NewSchema(fields, nil))
		if err := ErrorOf(failed); err != nil {
			return nil, err
		}
		s.converted[string(key)] = converted
	}
	scan.converted = converted.Ptr
	return scan, nil
}

func cInts(v []int32) *C.int32_t {
	p := (*C.int32_t)(C.calloc(C.size_t(len(v)+1), 4))
	copy(unsafe.Slice((*int32)(unsafe.Pointer(p)), len(v)), v)
	return p
}

//export frazilRelease
func frazilRelease(handle C.uint64_t) {
	if found, ok := scans.LoadAndDelete(uint64(handle)); ok {
		found.(*exported).release()
	}
}
