package decode

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/google/uuid"
)

// enumOp maps symbols by their names. One that the reader does not have becomes
// its default, or makes the record bad.
func enumOp(w, r *avroType, to *varied) avroOp {
	known := map[string]bool{}
	for _, s := range r.symbols {
		known[s] = true
	}
	symbols := make([][]byte, len(w.symbols))
	for i, s := range w.symbols {
		switch {
		case known[s]:
			symbols[i] = []byte(s)
		case r.fallback != "":
			symbols[i] = []byte(r.fallback)
		}
	}
	return func(in *avroInput) error {
		at := in.i
		i, err := in.long()
		if err != nil {
			return err
		}
		if uint64(i) >= uint64(len(symbols)) {
			return in.fail(at, "symbol %d of an enum that has %d", i, len(symbols))
		}
		if symbols[i] == nil {
			return in.mismatch(at, "the column's enum has no symbol %q, and no default", w.symbols[i])
		}
		to.append(symbols[i])
		return nil
	}
}

// scalarOp compiles types without parts. What the value means is the reader's
// affair, but where both schemas say the unit of a time, the writer's counts.
func scalarOp(w, r *avroType, to column) (avroOp, error) {
	if w.kind != r.kind && !promotes(w.kind, r.kind) {
		return nil, fmt.Errorf("it was written as %s, and the column is of %s", w.describe(), r.describe())
	}
	switch r.kind {
	case avroNull:
		return func(*avroInput) error {
			to.null()
			return nil
		}, nil
	case avroBoolean:
		return booleanOp(to.(*boolean)), nil
	case avroInt:
		if r.logical == "time-millis" {
			return longOp(to.(*fixed[int64]), timeOfDay(1000)), nil
		}
		return intOp(to.(*fixed[int32])), nil
	case avroLong:
		return longLogical(w, r, to.(*fixed[int64])), nil
	case avroFloat:
		return floatOp(w.kind, to.(*fixed[float32])), nil
	case avroDouble:
		return doubleOp(w.kind, to.(*fixed[float64])), nil
	case avroFixed:
		if !namesMatch(w, r) || w.size != r.size {
			return nil, fmt.Errorf("it was written as fixed %s of %d bytes, and the column is of %s with %d", w.name, w.size, r.name, r.size)
		}
	default: // bytes and strings
	}
	return bytesLogical(w, r, to)
}

// bytesLogical compiles bytes, strings and fixed.
func bytesLogical(w, r *avroType, to column) (avroOp, error) {
	read := (*avroInput).bytes
	switch r.kind {
	case avroFixed:
		size := w.size
		read = func(in *avroInput) ([]byte, error) { return in.take(size, "a fixed") }
	case avroString: // also one that was written as bytes
		read = (*avroInput).text
	default: // bytes
	}
	switch r.logical {
	case "decimal":
		if w.logical == "decimal" && w.scale != r.scale {
			return nil, fmt.Errorf("it was written as a decimal with %d digits behind the point, and the column has %d", w.scale, r.scale)
		}
		return decimalOp(read, r, to), nil
	case "uuid":
		return uuidOp(r.kind, read, to.(*uuids)), nil
	case "duration":
		return durationOp(read, to.(*structure)), nil
	}
	out := to.(*varied)
	if r.kind == avroString {
		return textOp(out), nil
	}
	return func(in *avroInput) error {
		b, err := read(in)
		if err != nil {
			return err
		}
		out.append(b)
		return nil
	}, nil
}

func textOp(to *varied) avroOp {
	return func(in *avroInput) error {
		b, err := in.text()
		if err != nil {
			return err
		}
		to.data = append(to.data, b...)
		to.offsets = append(to.offsets, int32(len(to.data)))
		to.push(true)
		return nil
	}
}

func booleanOp(to *boolean) avroOp {
	return func(in *avroInput) error {
		if in.i >= len(in.b) {
			return in.short("a boolean")
		}
		v := in.b[in.i]
		if v > 1 {
			return in.fail(in.i, "%d is no boolean", v)
		}
		in.i++
		to.values = append(to.values, v)
		to.push(true)
		return nil
	}
}

func intOp(to *fixed[int32]) avroOp {
	return func(in *avroInput) error {
		v, err := in.int()
		if err != nil {
			return err
		}
		to.values = append(to.values, v)
		to.push(true)
		return nil
	}
}

// longOp appends what convert makes of a number.
func longOp(to *fixed[int64], convert func(int64) (int64, string)) avroOp {
	return func(in *avroInput) error {
		at := in.i
		v, err := in.long()
		if err != nil {
			return err
		}
		out, why := convert(v)
		if why != "" {
			return in.fail(at, "%d %s", v, why)
		}
		to.add(out)
		return nil
	}
}

func timeOfDay(micros int64) func(int64) (int64, string) {
	day := int64(86_400_000_000) / micros
	return func(v int64) (int64, string) {
		if uint64(v) >= uint64(day) {
			return 0, "is no time of day"
		}
		return v * micros, ""
	}
}

// nanosOf are the units of times.
var nanosOf = map[string]int64{
	"timestamp-millis": 1e6, "timestamp-micros": 1e3, "timestamp-nanos": 1,
	"local-timestamp-millis": 1e6, "local-timestamp-micros": 1e3, "local-timestamp-nanos": 1,
}

func longLogical(w, r *avroType, to *fixed[int64]) avroOp {
	if r.logical == "time-micros" {
		if w.logical == "time-millis" {
			return longOp(to, timeOfDay(1000))
		}
		return longOp(to, timeOfDay(1))
	}
	if written := nanosOf[r.logical]; written != 0 {
		if own := nanosOf[w.logical]; own != 0 {
			written = own
		}
		column := to.kind.(*arrow.TimestampType).Unit.Multiplier().Nanoseconds()
		switch {
		case written > column:
			return longOp(to, times(written/column))
		case written < column:
			return longOp(to, func(v int64) (int64, string) { return floorDiv(v, column/written), "" })
		}
	}
	if w.kind == avroInt {
		return func(in *avroInput) error {
			v, err := in.int()
			if err != nil {
				return err
			}
			to.add(int64(v))
			return nil
		}
	}
	return func(in *avroInput) error {
		v, err := in.long()
		if err != nil {
			return err
		}
		to.values = append(to.values, v)
		to.push(true)
		return nil
	}
}

func times(k int64) func(int64) (int64, string) {
	return func(v int64) (int64, string) {
		if v > math.MaxInt64/k || v < math.MinInt64/k {
			return 0, "is out of range for a timestamp"
		}
		return v * k, ""
	}
}

func floatOp(from avroKind, to *fixed[float32]) avroOp {
	if from != avroFloat {
		return func(in *avroInput) error {
			v, err := in.whole(from)
			if err != nil {
				return err
			}
			to.add(float32(v))
			return nil
		}
	}
	return func(in *avroInput) error {
		b, err := in.take(4, "a float")
		if err != nil {
			return err
		}
		to.add(math.Float32frombits(binary.LittleEndian.Uint32(b)))
		return nil
	}
}

func doubleOp(from avroKind, to *fixed[float64]) avroOp {
	switch from {
	case avroDouble:
		return func(in *avroInput) error {
			b, err := in.take(8, "a double")
			if err != nil {
				return err
			}
			to.values = append(to.values, math.Float64frombits(binary.LittleEndian.Uint64(b)))
			to.push(true)
			return nil
		}
	case avroFloat:
		return func(in *avroInput) error {
			b, err := in.take(4, "a float")
			if err != nil {
				return err
			}
			to.add(float64(math.Float32frombits(binary.LittleEndian.Uint32(b))))
			return nil
		}
	default: // int and long
	}
	return func(in *avroInput) error {
		v, err := in.whole(from)
		if err != nil {
			return err
		}
		to.add(float64(v))
		return nil
	}
}

// decimalBytesMax bounds the bytes of a decimal that becomes text: more than any column holds.
const decimalBytesMax = 4096

// decimalOp reads a big-endian number in two's complement.
func decimalOp(read func(*avroInput) ([]byte, error), r *avroType, to column) avroOp {
	if text, ok := to.(*varied); ok {
		return decimalTextOp(read, r, text)
	}
	out := &to.(*decimal).fixed
	most := decimal128.GetScaleMultiplier(r.precision)
	return func(in *avroInput) error {
		at := in.i
		b, err := read(in)
		if err != nil {
			return err
		}
		v, ok := twosComplement(b)
		if !ok || !v.Less(most) || !most.Negate().Less(v) {
			return in.fail(at, "a decimal has more than %d digits", r.precision)
		}
		out.add(v)
		return nil
	}
}

// twosComplement returns a number of up to 128 bits, however many bytes it has.
func twosComplement(b []byte) (decimal128.Num, bool) {
	sign := byte(0)
	if len(b) > 0 && b[0] >= 0x80 {
		sign = 0xff
	}
	for len(b) > 16 {
		if b[0] != sign || (b[1]^sign) >= 0x80 {
			return decimal128.Num{}, false
		}
		b = b[1:]
	}
	var wide [16]byte
	for i := range 16 - len(b) {
		wide[i] = sign
	}
	copy(wide[16-len(b):], b)
	return decimal128.New(int64(binary.BigEndian.Uint64(wide[:8])), binary.BigEndian.Uint64(wide[8:])), true
}

func decimalTextOp(read func(*avroInput) ([]byte, error), r *avroType, to *varied) avroOp {
	return func(in *avroInput) error {
		at := in.i
		b, err := read(in)
		if err != nil {
			return err
		}
		if len(b) > decimalBytesMax {
			return in.fail(at, "a decimal has %d bytes", len(b))
		}
		v := new(big.Int).SetBytes(b)
		if len(b) > 0 && b[0] >= 0x80 {
			v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
		}
		digits := new(big.Int).Abs(v).String()
		if len(digits) > r.precision {
			return in.fail(at, "a decimal has more than %d digits", r.precision)
		}
		to.append(pointed(v.Sign() < 0, digits, r.scale))
		return nil
	}
}

// pointed writes digits with a point before the last scale ones.
func pointed(negative bool, digits string, scale int) []byte {
	var out []byte
	if negative {
		out = append(out, '-')
	}
	for range scale + 1 - len(digits) {
		digits = "0" + digits
	}
	out = append(out, digits[:len(digits)-scale]...)
	if scale > 0 {
		out = append(append(out, '.'), digits[len(digits)-scale:]...)
	}
	return out
}

func uuidOp(kind avroKind, read func(*avroInput) ([]byte, error), to *uuids) avroOp {
	return func(in *avroInput) error {
		at := in.i
		b, err := read(in)
		if err != nil {
			return err
		}
		if kind == avroString {
			id, err := uuid.ParseBytes(b)
			if err != nil || len(b) != 36 {
				return in.fail(at, "the text %.40q is not a UUID", b)
			}
			b = id[:]
		}
		to.values = append(to.values, b...)
		to.push(true)
		return nil
	}
}

// durationOp reads three numbers of 32 bits without a sign: months, days and
// milliseconds, which Iceberg has no type for.
func durationOp(read func(*avroInput) ([]byte, error), to *structure) avroOp {
	return func(in *avroInput) error {
		b, err := read(in)
		if err != nil {
			return err
		}
		for i, m := range to.members {
			m.(*fixed[int64]).add(int64(binary.LittleEndian.Uint32(b[4*i:])))
		}
		to.push(true)
		return nil
	}
}
