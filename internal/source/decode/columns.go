package decode

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/extensions"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/near"
)

// elementName is the name of a list's child field, as Iceberg has it.
const elementName = "element"

// ParseColumns reads the spec's list of columns, in DuckDB's SQL: "id BIGINT NOT
// NULL, tags VARCHAR[], geo STRUCT(lat DOUBLE, lon DOUBLE)". Errors wrap
// batch.ErrInvalid and name line and column.
func ParseColumns(ddl string) ([]arrow.Field, error) {
	p := &ddlParser{text: ddl}
	p.next()
	fields := p.fields("")
	if p.err != nil {
		return nil, p.err
	}
	return fields, nil
}

// scalars are the types without parameters, by their names in SQL.
var scalars = map[string]arrow.DataType{
	"BOOLEAN": arrow.FixedWidthTypes.Boolean, "BOOL": arrow.FixedWidthTypes.Boolean, "LOGICAL": arrow.FixedWidthTypes.Boolean,
	"TINYINT": arrow.PrimitiveTypes.Int8, "INT1": arrow.PrimitiveTypes.Int8,
	"SMALLINT": arrow.PrimitiveTypes.Int16, "INT2": arrow.PrimitiveTypes.Int16, "SHORT": arrow.PrimitiveTypes.Int16,
	"INTEGER": arrow.PrimitiveTypes.Int32, "INT": arrow.PrimitiveTypes.Int32, "INT4": arrow.PrimitiveTypes.Int32, "SIGNED": arrow.PrimitiveTypes.Int32,
	"BIGINT": arrow.PrimitiveTypes.Int64, "INT8": arrow.PrimitiveTypes.Int64, "LONG": arrow.PrimitiveTypes.Int64,
	"UTINYINT": arrow.PrimitiveTypes.Uint8, "USMALLINT": arrow.PrimitiveTypes.Uint16, "UINTEGER": arrow.PrimitiveTypes.Uint32, "UBIGINT": arrow.PrimitiveTypes.Uint64,
	"FLOAT": arrow.PrimitiveTypes.Float32, "FLOAT4": arrow.PrimitiveTypes.Float32, "REAL": arrow.PrimitiveTypes.Float32,
	"DOUBLE": arrow.PrimitiveTypes.Float64, "FLOAT8": arrow.PrimitiveTypes.Float64,
	"VARCHAR": arrow.BinaryTypes.String, "TEXT": arrow.BinaryTypes.String, "STRING": arrow.BinaryTypes.String, "CHAR": arrow.BinaryTypes.String,
	"BLOB": arrow.BinaryTypes.Binary, "BYTEA": arrow.BinaryTypes.Binary, "BINARY": arrow.BinaryTypes.Binary, "VARBINARY": arrow.BinaryTypes.Binary,
	"DATE": arrow.FixedWidthTypes.Date32, "TIME": arrow.FixedWidthTypes.Time64us,
	"TIMESTAMP": &arrow.TimestampType{Unit: arrow.Microsecond}, "DATETIME": &arrow.TimestampType{Unit: arrow.Microsecond},
	"TIMESTAMPTZ":  &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"},
	"TIMESTAMP_S":  &arrow.TimestampType{Unit: arrow.Second},
	"TIMESTAMP_MS": &arrow.TimestampType{Unit: arrow.Millisecond},
	"TIMESTAMP_NS": &arrow.TimestampType{Unit: arrow.Nanosecond},
	"UUID":         extensions.NewUUIDType(),
}

// instead says what to write for types that DuckDB has and Iceberg has not.
var instead = map[string]string{
	"HUGEINT": "DECIMAL(38,0)", "UHUGEINT": "DECIMAL(38,0)", "INT128": "DECIMAL(38,0)", "INTERVAL": "BIGINT, in a unit of your choice",
	"ENUM": "VARCHAR", "UNION": "a STRUCT with one member for each alternative", "BIT": "VARCHAR", "TIMETZ": "TIME", "JSON": "VARCHAR, with unknown_fields: column for whole objects",
	"VARIANT": "VARCHAR",
}

const (
	decimalWidth = 18 // of DECIMAL without parameters, as in DuckDB
	decimalScale = 3
	decimalMax   = 38
)

// ddlParser reads tokens: words, quoted names, numbers and single characters.
type ddlParser struct {
	text   string
	pos    int // behind token
	start  int // of token
	token  string
	quoted bool
	err    error
}

func (p *ddlParser) fail(format string, args ...any) {
	if p.err != nil {
		return
	}
	line := 1 + strings.Count(p.text[:p.start], "\n")
	column := 1 + utf8.RuneCountInString(p.text[strings.LastIndexByte(p.text[:p.start], '\n')+1:p.start])
	p.err = fmt.Errorf("%w: columns, line %d column %d: %s", batch.ErrInvalid, line, column, fmt.Sprintf(format, args...))
}

// next reads a token; "" at the end.
func (p *ddlParser) next() {
	p.skipSpace()
	p.start, p.quoted = p.pos, false
	if p.pos >= len(p.text) {
		p.token = ""
		return
	}
	if p.text[p.pos] == '"' {
		p.quotedName()
		return
	}
	end := p.pos
	for end < len(p.text) {
		r, n := utf8.DecodeRuneInString(p.text[end:])
		if r != '_' && r != '$' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			break
		}
		end += n
	}
	if end == p.pos {
		_, n := utf8.DecodeRuneInString(p.text[end:])
		end += n
	}
	p.token, p.pos = p.text[p.pos:end], end
}

func (p *ddlParser) skipSpace() {
	for p.pos < len(p.text) {
		rest := p.text[p.pos:]
		switch {
		case strings.HasPrefix(rest, "--"):
			end := strings.IndexByte(rest, '\n')
			if end < 0 {
				end = len(rest)
			}
			p.pos += end
		case unicode.IsSpace(rune(rest[0])):
			p.pos++
		default:
			return
		}
	}
}

func (p *ddlParser) quotedName() {
	name := &strings.Builder{}
	for i := p.pos + 1; i < len(p.text); i++ {
		switch {
		case p.text[i] != '"':
			name.WriteByte(p.text[i])
		case i+1 < len(p.text) && p.text[i+1] == '"':
			name.WriteByte('"')
			i++
		default:
			p.token, p.pos, p.quoted = name.String(), i+1, true
			return
		}
	}
	p.fail("the quoted name does not end")
	p.token, p.pos = "", len(p.text)
}

func (p *ddlParser) expect(token string) {
	if p.token != token || p.quoted {
		p.fail("expected %q, found %q", token, p.token)
	}
	p.next()
}

// fields reads "name type, …" up to end.
func (p *ddlParser) fields(end string) []arrow.Field {
	var fields []arrow.Field
	seen := map[string]string{}
	for p.err == nil && (p.token != end || len(fields) == 0 || p.quoted) {
		if !p.quoted && (p.token == "" || !unicode.IsLetter(rune(p.token[0])) && p.token[0] != '_') {
			p.fail("expected the name of a column, found %q", p.token)
			break
		}
		f := arrow.Field{Name: p.token, Nullable: true}
		if was, ok := seen[strings.ToLower(f.Name)]; ok {
			p.fail("column %q is there twice (as %q): SQL does not tell upper from lower case", f.Name, was)
		}
		if strings.HasPrefix(f.Name, "__") {
			p.fail("column %q: names that begin with two underscores are Frazil's own", f.Name)
		}
		seen[strings.ToLower(f.Name)] = f.Name
		p.next()
		f.Type = p.dataType()
		if strings.EqualFold(p.token, "NOT") {
			p.next()
			if !strings.EqualFold(p.token, "NULL") {
				p.fail("expected NOT NULL")
			}
			p.next()
			f.Nullable = false
		}
		fields = append(fields, f)
		if p.token == "," {
			p.next()
			if p.token == end && end == "" {
				break // a comma at the end of the list does no harm
			}
			continue
		}
		if p.token != end {
			p.fail("expected a comma or the end after column %q, found %q", f.Name, p.token)
		}
	}
	return fields
}

func (p *ddlParser) dataType() arrow.DataType {
	name := strings.ToUpper(p.token)
	if p.quoted || name == "" {
		p.fail("expected a type, found %q", p.token)
		return arrow.Null
	}
	var t arrow.DataType
	switch name {
	case "STRUCT", "ROW":
		p.next()
		p.expect("(")
		t = arrow.StructOf(p.fields(")")...)
		p.expect(")")
	case "MAP":
		p.next()
		p.expect("(")
		key := p.dataType()
		p.expect(",")
		m := arrow.MapOf(key, p.dataType())
		m.SetItemNullable(true)
		t = m
		p.expect(")")
	case "DECIMAL", "NUMERIC", "DEC":
		p.next()
		t = p.decimal()
	default:
		t = p.scalar(name)
	}
	for p.token == "[" && p.err == nil {
		p.next()
		p.expect("]")
		t = arrow.ListOfField(arrow.Field{Name: elementName, Type: t, Nullable: true})
	}
	return t
}

func (p *ddlParser) scalar(name string) arrow.DataType {
	t, ok := scalars[name]
	if !ok {
		switch hint := nearest(name); {
		case instead[name] != "":
			p.fail("type %s is not supported; write %s", name, instead[name])
		case hint != "":
			p.fail("unknown type %q; did you mean %s?", p.token, hint)
		default:
			p.fail("unknown type %q; types are DuckDB's: BIGINT, DOUBLE, VARCHAR, BOOLEAN, TIMESTAMPTZ, DECIMAL(p,s), VARCHAR[], STRUCT(…), MAP(…) and so on", p.token)
		}
		return arrow.Null
	}
	p.next()
	if name == "DOUBLE" && strings.EqualFold(p.token, "PRECISION") {
		p.next()
	}
	if (name == "TIMESTAMP" || name == "TIME") && strings.EqualFold(p.token, "WITH") {
		for _, word := range []string{"WITH", "TIME", "ZONE"} {
			if !strings.EqualFold(p.token, word) {
				p.fail("expected WITH TIME ZONE")
			}
			p.next()
		}
		if name == "TIME" {
			p.fail("type TIME WITH TIME ZONE is not supported; write TIME")
		}
		return scalars["TIMESTAMPTZ"]
	}
	if p.token == "(" && t.ID() == arrow.STRING { // VARCHAR(20): the length means nothing, as in DuckDB
		p.next()
		p.number(1 << 30)
		p.expect(")")
	}
	return t
}

func (p *ddlParser) decimal() arrow.DataType {
	width, scale := decimalWidth, decimalScale
	if p.token == "(" {
		p.next()
		width, scale = p.number(decimalMax), 0
		if p.token == "," {
			p.next()
			scale = p.number(width)
		}
		p.expect(")")
	}
	return &arrow.Decimal128Type{Precision: int32(width), Scale: int32(scale)}
}

func (p *ddlParser) number(most int) int {
	n, err := strconv.Atoi(p.token)
	if err != nil || n < 0 || n > most {
		p.fail("expected a number up to %d, found %q", most, p.token)
	}
	p.next()
	return n
}

// nearest returns a type whose name differs by one or two edits, "" if none does.
func nearest(name string) string {
	return near.Of(slices.Collect(maps.Keys(scalars)), name, 2)
}
