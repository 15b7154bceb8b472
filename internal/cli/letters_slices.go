package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/frazil-io/frazil/internal/query"
)

// asker runs SQL that goes on behind lettersOf.
type asker func(sql string, rows func(arrow.RecordBatch) error) error

func asking(ctx context.Context, e *query.Engine, begin string) asker {
	return func(sql string, rows func(arrow.RecordBatch) error) error {
		return e.Query(ctx, begin+sql, func(*arrow.Schema) error { return nil }, rows)
	}
}

const (
	// sliceBytes is how much of payloads is put in order at once. DuckDB holds it
	// several times over: as it was read, to be sorted, and as text.
	sliceBytes = 8 << 20
	// smallLetter are letters of which as many as DuckDB puts in order at once are no
	// more than that; it moves them to the disk by itself.
	smallLetter = sliceBytes / 2048
)

// cut is where letters are cut into slices, as SQL: batch_time, stream, batch, topic,
// partition, offset.
type cut [6]string

// before is SQL for letters that come before a cut, the newest first.
func (c cut) before() string {
	columns := [len(c)]string{"batch_time >", "stream >", "batch >", "topic <", "partition <", `"offset" <`}
	last := len(c) - 1
	sql := columns[last] + " " + c[last]
	for i := last - 1; i >= 0; i-- {
		name, _, _ := strings.Cut(columns[i], " ")
		sql = fmt.Sprintf("(%s %s OR %s = %s AND %s)", columns[i], c[i], name, c[i], sql)
	}
	return sql
}

// slice are letters that come one after the other.
type slice struct {
	from    cut
	letters int64
	bytes   int64
}

// slices cuts the letters that are wanted, the newest first, so that what is read at
// once of them fits the memory: what follows FROM letters, for each. Small letters are
// one slice. Letters that come meanwhile are newer than all of them.
func (f *lettersFlags) slices(ask asker) ([]string, error) {
	var all []slice
	var last cut
	large := false
	err := ask(f.wanted(`batch_time, stream, batch, topic, partition, "offset", sink, (coalesce(octet_length(key), 0) + coalesce(octet_length(value), 0))::BIGINT AS size`)+`
SELECT epoch_us(batch_time), stream, batch, topic, partition, "offset", size FROM parts`+newestFirst+limitText(f.limit), func(rows arrow.RecordBatch) error {
		for i := range int(rows.NumRows()) {
			at := cut{
				"make_timestamptz(" + rows.Column(0).ValueStr(i) + ")", sqlText(rows.Column(1).(*array.String).Value(i)), rows.Column(2).ValueStr(i),
				sqlText(rows.Column(3).(*array.String).Value(i)), rows.Column(4).ValueStr(i), rows.Column(5).ValueStr(i),
			}
			size := rows.Column(6).(*array.Int64).Value(i)
			large = large || size > smallLetter
			if n := len(all); n == 0 || at != last && all[n-1].bytes+size > sliceBytes {
				all = append(all, slice{from: at})
			}
			now := &all[len(all)-1]
			now.letters, now.bytes, last = now.letters+1, now.bytes+size, at
		}
		return nil
	})
	if err != nil || !large {
		return []string{f.where() + newestFirst + limitText(f.limit)}, err
	}
	parts := make([]string, len(all))
	for i, one := range all {
		// The times are said once more by themselves: they tell which files to read.
		conditions := append([]string{}, f.narrow...)
		conditions = append(conditions, "batch_time <= "+one.from[0], "NOT "+one.from.before())
		if i+1 < len(all) {
			conditions = append(conditions, "batch_time >= "+all[i+1].from[0], all[i+1].from.before())
		}
		parts[i] = " WHERE " + strings.Join(conditions, " AND ") + newestFirst
		if i == len(all)-1 {
			parts[i] += limitText(one.letters)
		}
	}
	return parts, nil
}
