package decode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/frazil-io/frazil/internal/batch"
)

// The headers in which Confluent's newer serializers put the id of a schema, if they
// are told to. The record itself then has nothing before it. A header holds what would
// stand before the record, or a byte 1 and the schema's GUID, behind which comes, for
// Protobuf, the index of the message.
const (
	valueIDHeader = "__value_schema_id"
	keyIDHeader   = "__key_schema_id"
	guidMagic     = 1
	guidSize      = 1 + 16
)

// heading finds schema ids in headers of records.
type heading struct {
	name    string // of the header
	schemas Schemas
	guids   map[[16]byte]int32
}

func newHeading(o Options) heading {
	h := heading{name: valueIDHeader, schemas: o.Schemas, guids: map[[16]byte]int32{}}
	if o.key {
		h.name = keyIDHeader
	}
	return h
}

// of returns what the record's header holds, nil where it has none. Of several the
// last one counts, as for Java's client: who sends a record again adds behind.
func (h *heading) of(r Record) []byte {
	for _, header := range slices.Backward(r.Headers) {
		if string(header.Key) == h.name && header.Value != nil {
			return header.Value
		}
	}
	return nil
}

// id reads the id, and returns what stands behind it.
func (h *heading) id(held []byte) (id int32, rest []byte, err error) {
	switch {
	case len(held) >= headerSize && held[0] == headerMagic:
		return int32(binary.BigEndian.Uint32(held[1:headerSize])), held[headerSize:], nil
	case len(held) < guidSize || held[0] != guidMagic:
		return 0, nil, &Error{Code: batch.CodeDecode, Reason: fmt.Sprintf("the header %s holds neither a zero byte and an id of a schema, nor a byte 1 and a GUID", h.name), Pos: -1}
	}
	guid := [16]byte(held[1:guidSize])
	id, ok := h.guids[guid]
	if !ok {
		if id, err = h.schemas.IDOf(uuid.UUID(guid).String()); err != nil {
			if errors.Is(err, ErrUnknownSchema) {
				err = &Error{Code: batch.CodeSchema, Reason: fmt.Sprintf("the registry has no schema with the GUID %s of the header %s", uuid.UUID(guid), h.name), Pos: -1}
			}
			return 0, nil, err
		}
		h.guids[guid] = id
	}
	return id, held[guidSize:], nil
}

// exact is id where nothing may stand behind it.
func (h *heading) exact(held []byte) (int32, error) {
	id, rest, err := h.id(held)
	if err == nil && len(rest) > 0 {
		err = &Error{Code: batch.CodeDecode, Reason: fmt.Sprintf("there are %d bytes behind the id of a schema in the header %s", len(rest), h.name), Pos: -1}
	}
	return id, err
}

// placeless takes the place out of an error: it is not in the record.
func placeless(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return &Error{Code: e.Code, Reason: e.Reason, Pos: -1, Key: e.Key}
	}
	return err
}
