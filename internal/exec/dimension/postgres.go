package dimension

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/frazil-io/frazil/internal/batch"
)

// PostgresOptions say what is read from PostgreSQL.
type PostgresOptions struct {
	URI   string // postgres://user:password@host:5432/database, or key=value pairs
	Table string // table or schema.table; or
	Query string // a SELECT
}

// Bounds of one reading. Without them a server that hangs would hang a pipeline
// for ever.
const (
	connectMax = 10 * time.Second
	readMax    = 10 * time.Minute
)

const undefinedTable = "42P01"

type postgres struct {
	config   *pgconn.Config
	what     string // for errors
	query    string
	bytesMax int64
}

// Postgres opens a table or a query of PostgreSQL. batch.ErrInvalid: the server
// refused it; batch.ErrUnavailable: the server did not answer.
func Postgres(ctx context.Context, p PostgresOptions, o Options) (*Copied, error) {
	config, err := pgconn.ParseConfig(p.URI)
	if err != nil { // its text may show the password
		return nil, fmt.Errorf("%w: the uri of PostgreSQL is none; write postgres://user:password@host:5432/database", batch.ErrInvalid)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectMax
	}
	from := postgres{config: config, what: "the query", query: strings.TrimRight(strings.TrimSpace(p.Query), "; \n\t"), bytesMax: o.BytesMax}
	if p.Query == "" {
		var parts []string
		for part := range strings.SplitSeq(p.Table, ".") {
			parts = append(parts, `"`+strings.ReplaceAll(part, `"`, `""`)+`"`)
		}
		from.what, from.query = "table "+p.Table, "SELECT * FROM "+strings.Join(parts, ".")
	}
	return open(ctx, from, o)
}

// transaction runs do on one snapshot of the database, with the texts of values
// as the readers here expect them.
func (p postgres) transaction(ctx context.Context, do func(ctx context.Context, c *pgconn.PgConn) error) error {
	ctx, cancel := context.WithTimeout(ctx, readMax)
	defer cancel()
	c, err := pgconn.ConnectConfig(ctx, p.config)
	if err != nil {
		return p.classify(err)
	}
	defer c.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it only read
	begin := "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL extra_float_digits = 3; SET LOCAL bytea_output = 'hex'"
	if _, err := c.Exec(ctx, begin).ReadAll(); err != nil {
		return p.classify(err)
	}
	return p.classify(do(ctx, c))
}

// classify judges by SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
func (p postgres) classify(err error) error {
	var refused *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case kind(err) != nil:
		return err
	case errors.As(err, &refused):
		where := ""
		if refused.Position > 0 && refused.Hint != "" {
			where = " (" + refused.Hint + ")"
		}
		switch class := refused.Code[:min(2, len(refused.Code))]; class {
		case "28":
			return fmt.Errorf("%w: %w: PostgreSQL refused the login: %s; check user and password of the uri", batch.ErrInvalid, errMistake, refused.Message)
		case "3D", "3F", "42", "22", "0A", "25", "34":
			if refused.Code == undefinedTable || class == "3D" { // a copy may still have it
				return fmt.Errorf("%w: PostgreSQL refused %s: %s", batch.ErrInvalid, p.what, refused.Message)
			}
			return fmt.Errorf("%w: %w: PostgreSQL refused %s: %s%s; check database, table, query and the user's rights", batch.ErrInvalid, errMistake, p.what, refused.Message, where)
		}
		return fmt.Errorf("%w: PostgreSQL: %s", batch.ErrUnavailable, refused.Message)
	}
	// An error of the connection shows user and host, never the password.
	return fmt.Errorf("%w: PostgreSQL: %w", batch.ErrUnavailable, err)
}

func (p postgres) columns(ctx context.Context, _ []arrow.Field) (fields []arrow.Field, err error) {
	err = p.transaction(ctx, func(ctx context.Context, c *pgconn.PgConn) error {
		fields, err = p.describe(ctx, c)
		return err
	})
	return fields, err
}

func (p postgres) describe(ctx context.Context, c *pgconn.PgConn) ([]arrow.Field, error) {
	d, err := c.Prepare(ctx, "", p.query, nil)
	if err != nil {
		return nil, err
	}
	if len(d.Fields) == 0 {
		return nil, fmt.Errorf("%w: %w: %s returns no columns; write a SELECT", batch.ErrInvalid, errMistake, p.what)
	}
	var fields []arrow.Field
	seen := map[string]bool{}
	for _, f := range d.Fields {
		if lower := strings.ToLower(f.Name); seen[lower] {
			return nil, fmt.Errorf("%w: %w: %s returns column %q twice; rename one with AS", batch.ErrInvalid, errMistake, p.what, f.Name)
		} else {
			seen[lower] = true
		}
		t, err := typeOf(ctx, c, f.DataTypeOID, f.TypeModifier)
		if err != nil {
			if kind(err) == nil && errors.Is(err, errNoType) {
				err = fmt.Errorf("%w: %w: column %q of %s is %w", batch.ErrInvalid, errMistake, f.Name, p.what, err)
			}
			return nil, err
		}
		fields = append(fields, arrow.Field{Name: f.Name, Type: t, Nullable: true})
	}
	return fields, nil
}

// parquet reads the rows in the order of their texts: a table has none, and
// equal contents must have one version.
func (p postgres) parquet(ctx context.Context, fields []arrow.Field) ([]byte, error) {
	b, err := newBuilder(fields, p.bytesMax)
	if err != nil {
		return nil, err
	}
	defer b.Release()
	err = p.transaction(ctx, func(ctx context.Context, c *pgconn.PgConn) error {
		now, err := p.describe(ctx, c)
		if err != nil {
			return err
		}
		from := map[string]int{}
		for i, f := range now {
			from[f.Name] = i
		}
		at := make([]int, len(fields))
		for i, f := range fields {
			k, ok := from[f.Name]
			if !ok || !alike(now[k].Type, f.Type) {
				return fmt.Errorf("%w: column %q of %s was %s when the pipeline started, and is not any more; start the pipeline again", batch.ErrInvalid, f.Name, p.what, TypeName(f.Type))
			}
			at[i] = k
		}
		return p.rows(ctx, c, b, at)
	})
	if err != nil {
		return nil, err
	}
	rows := b.NewRecordBatch()
	defer rows.Release()
	return encode(rows)
}

func (p postgres) rows(ctx context.Context, c *pgconn.PgConn, b *builder, at []int) error {
	sorted := "SELECT * FROM (\n" + p.query + "\n) AS frazil_rows ORDER BY CAST(frazil_rows AS text) COLLATE \"C\""
	r := c.ExecParams(ctx, sorted, nil, nil, nil, nil) // as texts
	row := 0
	for r.NextRow() {
		row++
		for i, k := range at {
			v := r.Values()[k]
			if v == nil {
				b.null(i)
				continue
			}
			if err := b.text(i, string(v)); err != nil {
				_, _ = r.Close()
				if kind(err) != nil {
					return fmt.Errorf("%s: %w", p.what, err)
				}
				return fmt.Errorf("%w: %s: row %d in the order of the rows' texts: %w; filter it, or cast the column to text, in query", batch.ErrInvalid, p.what, row, err)
			}
		}
	}
	_, err := r.Close()
	return err
}

// errNoType is a type of PostgreSQL that SQL here does not have.
var errNoType = errors.New("of a type that frazil does not have")

var simpleTypes = map[uint32]arrow.DataType{
	pgtype.BoolOID: arrow.FixedWidthTypes.Boolean, pgtype.Int2OID: arrow.PrimitiveTypes.Int16, pgtype.Int4OID: arrow.PrimitiveTypes.Int32,
	pgtype.Int8OID: arrow.PrimitiveTypes.Int64, pgtype.OIDOID: arrow.PrimitiveTypes.Int64, pgtype.Float4OID: arrow.PrimitiveTypes.Float32, pgtype.Float8OID: arrow.PrimitiveTypes.Float64,
	pgtype.TextOID: arrow.BinaryTypes.String, pgtype.VarcharOID: arrow.BinaryTypes.String, pgtype.BPCharOID: arrow.BinaryTypes.String,
	pgtype.NameOID: arrow.BinaryTypes.String, pgtype.QCharOID: arrow.BinaryTypes.String, pgtype.JSONOID: arrow.BinaryTypes.String, pgtype.JSONBOID: arrow.BinaryTypes.String,
	pgtype.XMLOID: arrow.BinaryTypes.String, pgtype.InetOID: arrow.BinaryTypes.String, pgtype.CIDROID: arrow.BinaryTypes.String, pgtype.MacaddrOID: arrow.BinaryTypes.String,
	pgtype.ByteaOID: arrow.BinaryTypes.Binary, pgtype.DateOID: arrow.FixedWidthTypes.Date32, pgtype.TimeOID: arrow.FixedWidthTypes.Time64us,
	pgtype.TimestampOID: &arrow.TimestampType{Unit: arrow.Microsecond}, pgtype.TimestamptzOID: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"},
	pgtype.UUIDOID: extensions.NewUUIDType(),
}

// typeOf maps a type of PostgreSQL to one that holds all its values.
func typeOf(ctx context.Context, c *pgconn.PgConn, oid uint32, modifier int32) (arrow.DataType, error) {
	if t := simpleTypes[oid]; t != nil {
		return t, nil
	}
	if oid == pgtype.NumericOID {
		return numericType(modifier)
	}
	// Enums and texts of extensions are texts; arrays have elements.
	r := c.ExecParams(ctx, "SELECT typname, typtype::text, typcategory::text, typelem::text FROM pg_type WHERE oid = "+strconv.FormatUint(uint64(oid), 10), nil, nil, nil, nil).Read()
	if r.Err != nil {
		return nil, r.Err
	}
	if len(r.Rows) != 1 {
		return nil, fmt.Errorf("%w; cast it in query", errNoType)
	}
	name, typtype, category, element := string(r.Rows[0][0]), string(r.Rows[0][1]), string(r.Rows[0][2]), string(r.Rows[0][3])
	switch {
	case typtype == "e", category == "S":
		return arrow.BinaryTypes.String, nil
	case category == "A" && element != "0":
		var of uint32
		if _, err := fmt.Sscan(element, &of); err != nil {
			return nil, fmt.Errorf("%w; cast it in query", errNoType)
		}
		t, err := typeOf(ctx, c, of, modifier)
		if err != nil {
			return nil, err
		}
		return arrow.ListOfField(arrow.Field{Name: "element", Type: t, Nullable: true}), nil
	}
	return nil, fmt.Errorf("%w: %s; cast it in query, for instance to text", errNoType, name)
}

// numericType reads the type modifier: precision and scale, plus four.
func numericType(modifier int32) (arrow.DataType, error) {
	if modifier < 4 {
		return nil, fmt.Errorf("%w: numeric without a precision; cast it in query, for instance to numeric(18, 4)", errNoType)
	}
	precision, scale := (modifier-4)>>16&0xffff, (modifier-4)&0x7ff
	if scale >= 1024 { // negative, since PostgreSQL 15
		scale -= 2048
	}
	if precision > 38 || scale < 0 || scale > precision {
		return nil, fmt.Errorf("%w: numeric(%d, %d); cast it in query to at most 38 digits, or to text", errNoType, precision, scale)
	}
	return &arrow.Decimal128Type{Precision: precision, Scale: scale}, nil
}
