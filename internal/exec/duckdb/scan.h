#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// The Arrow C data interface: https://arrow.apache.org/docs/format/CDataInterface.html
#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE
struct ArrowSchema {
  const char *format, *name, *metadata;
  int64_t flags, n_children;
  struct ArrowSchema **children, *dictionary;
  void (*release)(struct ArrowSchema *);
  void *private_data;
};
struct ArrowArray {
  int64_t length, null_count, offset, n_buffers, n_children;
  const void **buffers;
  struct ArrowArray **children, *dictionary;
  void (*release)(struct ArrowArray *);
  void *private_data;
};
#endif

// Rows that one call hands to DuckDB: its vector size.
#define FRAZIL_SLICE 2048

// One scan of one table reference.
typedef struct {
  uint64_t handle;           // of the Go record batch, released at the end
  void *connection;          // duckdb_connection
  void *converted;           // duckdb_arrow_converted_schema of the projected columns
  int32_t columns;           // how many are projected
  int32_t *to;               // index of the output vector
  int32_t *from;             // index of the Arrow child
  int32_t ordinal;           // index of the output vector of ordinals, -1 if nobody reads them
  struct ArrowArray *rows;   // exported once, shared by all scans
  int64_t next;              // next slice, atomic
} frazil_scan;

void frazil_scan_next(void *info, void *chunk);
void frazil_scan_free(void *scan);
void frazil_bind_free(void *bind);
typedef void (*frazil_callback1)(void *);
typedef void (*frazil_callback2)(void *, void *);
