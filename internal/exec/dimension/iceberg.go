package dimension

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
)

// Iceberg is a table that is pinned by snapshot.
type Iceberg struct {
	refreshed
	catalog  *lake.Catalog
	ident    table.Identifier
	fields   []arrow.Field
	bytesMax int64
}

// OpenIceberg opens a table of a catalog.
func OpenIceberg(ctx context.Context, c *lake.Catalog, ident []string, refresh time.Duration, bytesMax int64, now func() time.Time) (*Iceberg, error) {
	t := &Iceberg{catalog: c, ident: ident, refreshed: refreshed{every: refresh, now: now}, bytesMax: bytesMax}
	loaded, err := c.Load(ctx, t.ident)
	if err != nil {
		return nil, err
	}
	schema, err := table.SchemaToArrowSchema(loaded.Schema(), nil, false, false)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	t.fields = nullable(schema.Fields())
	return t, nil
}

// Fields implements exec.Dimension.
func (t *Iceberg) Fields() []arrow.Field { return t.fields }

// empty is the version of a table without a snapshot.
const empty = "empty"

// Version implements exec.Dimension.
func (t *Iceberg) Version(ctx context.Context) (string, error) {
	return t.version(func() (string, error) {
		loaded, err := t.catalog.Load(ctx, t.ident)
		if err != nil {
			return "", err
		}
		if s := loaded.CurrentSnapshot(); s != nil {
			return strconv.FormatInt(s.SnapshotID, 10), nil
		}
		return empty, nil
	})
}

// Load implements exec.Dimension.
func (t *Iceberg) Load(ctx context.Context, version string) (arrow.RecordBatch, error) {
	p := parts{bytesMax: t.bytesMax}
	defer p.release()
	if version == empty {
		return p.joined(t.fields, arrow.NewSchema(t.fields, nil))
	}
	id, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: %q is not a snapshot", batch.ErrInvalid, version)
	}
	loaded, err := t.catalog.Load(ctx, t.ident)
	if err != nil {
		return nil, err
	}
	if loaded.Metadata().SnapshotByID(id) == nil {
		return nil, fmt.Errorf("%w: snapshot %d has expired; change the spec in any way to revise the batch with the newest one", batch.ErrInvalid, id)
	}
	name := strings.Join(t.ident, ".")
	schema, records, err := loaded.Scan(table.WithSnapshotID(id)).ToArrowRecords(t.catalog.Context(ctx))
	if err != nil {
		return nil, lake.Classify("read "+name, err)
	}
	for rows, err := range records {
		if err != nil {
			return nil, lake.Classify("read "+name, err)
		}
		err = p.add(rows)
		rows.Release()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	rows, err := p.joined(t.fields, schema)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return rows, nil
}
