package exec

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
)

// TestResultTypes: what has no place in a table is refused before anything runs,
// with what to cast it to; also inside of lists, structs and maps.
func TestResultTypes(t *testing.T) {
	refuse := refuser(t, nil)
	for _, c := range []struct{ expression, want string }{
		{"id::HUGEINT", "HUGEINT has no place in an Iceberg table; cast it to BIGINT or DECIMAL(38,0)"},
		{"id::UHUGEINT", "UHUGEINT has no place in an Iceberg table; cast it to BIGINT"},
		{"id::BIGNUM", "BIGNUM has no place in an Iceberg table; cast it to VARCHAR"},
		{"list_sum([id, 1])", "HUGEINT has no place"},
		{"INTERVAL 1 DAY", "INTERVAL has no place in an Iceberg table; make it a BIGINT, with date_diff or epoch_us"},
		{"batch_time() - t", "INTERVAL has no place"},
		{"page::ENUM('a', 'b')", "ENUM has no place in an Iceberg table; cast it to VARCHAR"},
		{"union_value(k := id)", "UNION has no place in an Iceberg table; take out its members"},
		{"'101'::BIT", "BIT has no place in an Iceberg table; cast it to VARCHAR"},
		{"TIMETZ '10:00:00+02'", "TIME_TZ has no place in an Iceberg table; cast it to TIME"},
		{"TIME_NS '10:00:00'", "TIME_NS has no place in an Iceberg table; cast it to TIME"},
		{"t::TIMESTAMP::TIMESTAMP_S", "TIMESTAMP_S has no place in an Iceberg table; cast it to TIMESTAMP"},
		{"t::TIMESTAMP::TIMESTAMP_MS", "TIMESTAMP_MS has no place"},
		{"t::TIMESTAMP::TIMESTAMP_NS", "TIMESTAMP_NS has no place"},
		{"[id, 2]::BIGINT[2]", "ARRAY has no place in an Iceberg table; cast it to a list"},
		{"(id, page)", "a tuple has no names for its parts"},
		{"id::VARIANT", "cannot leave DuckDB; cast it"},
		{"[id::HUGEINT]", "HUGEINT has no place"},
		{"{'a': {'b': INTERVAL 1 DAY}}", "INTERVAL has no place"},
		{"MAP {id: t::TIMESTAMP::TIMESTAMP_NS}", "TIMESTAMP_NS has no place"},
	} {
		err := refuse("SELECT " + c.expression + " AS x FROM clicks")
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `column "x"`) && !strings.Contains(err.Error(), "DuckDB") {
			t.Errorf("%s: %v, want %q", c.expression, err, c.want)
		}
	}
	for _, good := range []string{
		"id", "id::TINYINT", "id::UBIGINT", "id::FLOAT", "id::DOUBLE", "id::DECIMAL(38,10)", "id > 1", "page", "page::BLOB", "t", "t::TIMESTAMP", "t::DATE", "t::TIME",
		"'01234567-89ab-cdef-0123-456789abcdef'::UUID", "'{}'::JSON", "tags", "geo", "MAP {id: tags}", "MAP {id > 1: '01234567-89ab-cdef-0123-456789abcdef'::UUID}", "[geo]", "NULL", "list_sum([id, 1])::BIGINT",
	} {
		if err := refuse("SELECT " + good + " AS x FROM clicks"); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for name, want := range map[string]string{
		"id + 1": "give it a name with AS", `id AS ""`: "zero-length", `id AS "a b"`: "has no space, quote, comma or bracket in it, and no +, -, * or /; give it a name with AS", "id AS __x": "frazil's own", "id, page AS ID": "is there twice",
	} {
		if err := refuse(fmt.Sprintf("SELECT %s FROM clicks", name)); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}
