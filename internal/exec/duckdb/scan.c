//go:build duckdb_arrow && cgo

#include "scan.h"

typedef uint64_t idx_t;
extern void *duckdb_data_chunk_from_arrow(void *connection, struct ArrowArray *array, void *converted, void **chunk);
extern void *duckdb_data_chunk_get_vector(void *chunk, idx_t column);
extern void *duckdb_vector_get_data(void *vector);
extern void duckdb_vector_reference_vector(void *to, void *from);
extern void duckdb_data_chunk_set_size(void *chunk, idx_t rows);
extern void duckdb_destroy_data_chunk(void **chunk);
extern void *duckdb_function_get_init_data(void *info);
extern void duckdb_function_set_error(void *info, const char *message);
extern const char *duckdb_error_data_message(void *error);
extern void duckdb_destroy_error_data(void **error);

extern void frazilRelease(uint64_t handle);

static void keep(struct ArrowArray *array) { array->release = 0; }

// Hands the next slice to DuckDB: its vectors refer to Arrow's buffers.
void frazil_scan_next(void *info, void *out) {
  frazil_scan *scan = duckdb_function_get_init_data(info);
  int64_t offset = __atomic_fetch_add(&scan->next, 1, __ATOMIC_RELAXED) * FRAZIL_SLICE;
  int64_t left = scan->rows->length - offset;
  if (left <= 0) {
    duckdb_data_chunk_set_size(out, 0);
    return;
  }
  int64_t rows = left < FRAZIL_SLICE ? left : FRAZIL_SLICE;
  if (scan->columns > 0) {
    // Slices of the projected columns. They keep the null count of the whole
    // column: DuckDB takes -1 for "no nulls" in dictionaries.
    struct ArrowArray *slices = calloc(scan->columns, sizeof *slices);
    struct ArrowArray **children = calloc(scan->columns, sizeof *children);
    for (int i = 0; i < scan->columns; i++) {
      slices[i] = *scan->rows->children[scan->from[i]];
      slices[i].offset += offset;
      slices[i].length = rows;
      slices[i].release = keep;
      children[i] = &slices[i];
    }
    const void *no_validity[1] = {0};
    struct ArrowArray parent = {.length = rows, .n_buffers = 1, .buffers = no_validity, .n_children = scan->columns, .children = children, .release = keep};
    void *chunk = 0;
    void *error = duckdb_data_chunk_from_arrow(scan->connection, &parent, scan->converted, &chunk);
    if (error) {
      duckdb_function_set_error(info, duckdb_error_data_message(error));
      duckdb_destroy_error_data(&error);
    } else {
      for (int i = 0; i < scan->columns; i++)
        duckdb_vector_reference_vector(duckdb_data_chunk_get_vector(out, scan->to[i]), duckdb_data_chunk_get_vector(chunk, i));
      duckdb_destroy_data_chunk(&chunk);
    }
    free(slices);
    free(children);
    if (error) return;
  }
  if (scan->ordinal >= 0) {
    int64_t *ordinals = duckdb_vector_get_data(duckdb_data_chunk_get_vector(out, scan->ordinal));
    for (int64_t i = 0; i < rows; i++) ordinals[i] = offset + i;
  }
  duckdb_data_chunk_set_size(out, rows);
}

void frazil_scan_free(void *p) {
  frazil_scan *scan = p;
  uint64_t handle = scan->handle;
  free(scan->to);
  free(scan->from);
  free(scan);
  frazilRelease(handle);
}

void frazil_bind_free(void *p) { free(p); }
