package pipeline

import (
	"context"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/frazil-io/frazil/internal/batch"
)

// vectorRows is how many rows DuckDB hands over at once, whatever their size.
const vectorRows = 2048

// payloadBytes is SQL for how large a letter is.
const payloadBytes = `(coalesce(octet_length(key), 0) + coalesce(octet_length(value), 0) + coalesce(list_sum(list_transform(headers, h -> strlen(h.key) + coalesce(octet_length(h.value), 0))), 0))::BIGINT`

// letterKey is the order in which letters are cut into slices: columns, or their
// values as SQL.
type letterKey [5]string

func keyColumns() letterKey { return letterKey{"stream", "batch", "topic", "partition", `"offset"`} }

// letterBefore is SQL for letters before a key. Rows as values would be shorter, and DuckDB
// fails on two such conditions at once.
func letterBefore(key letterKey) string {
	columns, last := keyColumns(), len(key)-1
	sql := columns[last] + " < " + key[last]
	for i := last - 1; i >= 0; i-- {
		sql = fmt.Sprintf("(%[1]s < %[2]s OR %[1]s = %[2]s AND %[3]s)", columns[i], key[i], sql)
	}
	return sql
}

// slices cuts the letters of a group, so that not more of them are in memory at once
// than the budget has for that: conditions that follow lettersOf. Small letters are
// one slice.
func (w *waiting) slices(ctx context.Context, g letterGroup, ranges []batch.Range) ([]string, error) {
	var largest int64
	err := w.query(ctx, "SELECT coalesce(max("+payloadBytes+"), 0) FROM letters WHERE "+w.ofGroup(g, ranges), func(rows arrow.RecordBatch) error {
		largest = rows.Column(0).(*array.Int64).Value(0)
		return nil
	})
	if err != nil || largest*vectorRows <= w.most {
		return []string{""}, err
	}
	var cuts []letterKey // where a slice begins
	var held int64
	var last letterKey
	columns := keyColumns()
	err = w.query(ctx, `SELECT stream, batch, topic, partition, "offset", `+payloadBytes+` AS size FROM letters WHERE `+w.ofGroup(g, ranges)+" ORDER BY "+strings.Join(columns[:], ", "), func(rows arrow.RecordBatch) error {
		for i := range int(rows.NumRows()) {
			key := letterKey{
				sqlText(rows.Column(0).(*array.String).Value(i)), rows.Column(1).ValueStr(i), sqlText(rows.Column(2).(*array.String).Value(i)), rows.Column(3).ValueStr(i), rows.Column(4).ValueStr(i),
			}
			size := rows.Column(5).(*array.Int64).Value(i)
			if key != last && held > 0 && held+size > w.most {
				cuts, held = append(cuts, key), 0
			}
			held, last = held+size, key
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("how large the letters are: %w", err)
	}
	all := make([]string, len(cuts)+1)
	for i, cut := range cuts {
		all[i] += " AND " + letterBefore(cut)
		all[i+1] += " AND NOT " + letterBefore(cut)
	}
	return all, nil
}
